# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What surrounds StyleGAN2's modulated convolution: styles before; demodulation, noise, bias and activation behind.

Each is one pass over memory in a compiled kernel, and so are its backward pass and the derivatives of that, which path
length regularisation takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ggdr.torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check

# Maps that have compiled kernels, by device type; on the meta device, those that a GPU would take.
_GPU_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
COMPILED_TYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": _GPU_TYPES, "meta": _GPU_TYPES}


def modulate(x: Tensor, styles: Tensor) -> Tensor:
    """Scales every channel of every image.

    Args:
        x:      [N, C, H, W], any floating type and memory format.
        styles: [N, C] float32, or float64 for float64 `x`.

    Returns:
        [N, C, H, W] of the type of `x`. Differentiable any number of times.

    Raises:
        ValueError: `styles` is not [N, C]; from the reference, what PyTorch raises.
    """
    if _is_compiled(x, styles):
        return torch.ops.ggdr.modulate(x, styles)
    return _modulate_ref(x, styles)


def demodulated_act(
    x: Tensor,
    dcoefs: Tensor,
    noise: Tensor | None,
    noise_strength: Tensor,
    b: Tensor,
    *,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """Scales the channels, adds noise and bias, and applies a leaky ReLU, gain and clamp.

    Args:
        x:              [N, C, H, W], any floating type and memory format.
        dcoefs:         [N, C] float32, the demodulation coefficients. They and the rest are float64 for float64 `x`.
        noise:          [N, 1, H, W], or for all images [1, 1, H, W] or [H, W], float32; None for none. The kernels
                        take a constant: with noise that requires a gradient the reference runs.
        noise_strength: [] float32, its factor.
        b:              [C] float32.
        gain:           factor on the result, on top of the sqrt(2) of the activation.
        clamp:          bound on the result's magnitude before `gain`; None for none.

    Returns:
        [N, C, H, W] of the type of `x`. Differentiable any number of times.

    Raises:
        ValueError: the shape of an argument does not fit `x`; from the reference, what PyTorch raises.

    Source: Karras et al. 2020, arXiv:1912.04958, Fig. 2 (d).
    """
    gain, clamp = ACTIVATIONS["lrelu"].default_gain * gain, None if clamp is None else clamp * gain
    is_constant = noise is None or not noise.requires_grad
    if is_constant and _is_compiled(x, dcoefs, noise, noise_strength, b):
        slope = ACTIVATIONS["lrelu"].default_alpha
        clamp = -1.0 if clamp is None else clamp
        return torch.ops.ggdr.demodulated_act(x, dcoefs, noise, noise_strength, b, slope, gain, clamp)
    return _demodulated_act_ref(x, dcoefs, noise, noise_strength, b, gain=gain, clamp=clamp)


def _modulate_ref(x: Tensor, styles: Tensor) -> Tensor:
    return x * styles.to(x.dtype)[:, :, None, None]


def _demodulated_act_ref(
    x: Tensor,
    dcoefs: Tensor,
    noise: Tensor | None,
    noise_strength: Tensor,
    b: Tensor,
    *,
    gain: float,
    clamp: float | None,
) -> Tensor:
    x = _modulate_ref(x, dcoefs)
    if noise is not None:
        x = x + (noise * noise_strength).to(x.dtype)
    return bias_act(x, b, act="lrelu", gain=gain, clamp=clamp)


def _is_compiled(x: Tensor, *others: Tensor | None) -> bool:
    if x.dtype not in COMPILED_TYPES.get(x.device.type, ()) or not uses_native(x.device):
        return False
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return all(t is None or t.dtype == dtype for t in others)


# The compiled operations; modulation.h has their formulas, modulation_autograd.h their derivatives. A negative clamp is
# none.
_CONSTANTS = "float slope, float gain, float clamp"
_library = torch.library.Library("ggdr", "FRAGMENT")
_library.define("modulate(Tensor x, Tensor s) -> Tensor")
_library.define("modulate_backward(Tensor g, Tensor x, Tensor s) -> (Tensor, Tensor)")
_library.define("modulate_tangent(Tensor x, Tensor s, Tensor hx, Tensor hs) -> Tensor")
_library.define(
    f"demodulated_act(Tensor x, Tensor d, Tensor? noise, Tensor strength, Tensor b, {_CONSTANTS}) -> Tensor"
)
_library.define(
    f"demodulated_act_backward(Tensor g, Tensor y, Tensor x, Tensor d, Tensor? noise, {_CONSTANTS}) -> "
    "(Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "demodulated_act_tangent(Tensor y, Tensor x, Tensor d, Tensor? noise, Tensor hx, Tensor hd, Tensor? hstrength, "
    f"Tensor? hb, {_CONSTANTS}) -> Tensor"
)


def _like_maps(x: Tensor) -> Tensor:
    """Maps of the layout in which the kernels return them."""
    is_channels_last = x.device.type == "cpu" or (
        not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    )
    return torch.empty_like(x, memory_format=torch.channels_last if is_channels_last else torch.contiguous_format)


def _like_values(t: Tensor) -> Tensor:
    return torch.empty_like(t, memory_format=torch.contiguous_format)


@torch.library.register_fake("ggdr::modulate", lib=_library)
def _(x: Tensor, s: Tensor) -> Tensor:
    return _like_maps(x)


@torch.library.register_fake("ggdr::modulate_backward", lib=_library)
def _(g: Tensor, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return _like_maps(x), _like_values(s)


@torch.library.register_fake("ggdr::modulate_tangent", lib=_library)
def _(x: Tensor, s: Tensor, hx: Tensor, hs: Tensor) -> Tensor:
    return _like_maps(x)


@torch.library.register_fake("ggdr::demodulated_act", lib=_library)
def _(x: Tensor, d: Tensor, noise: Tensor | None, strength: Tensor, b: Tensor, *constants: float) -> Tensor:
    return _like_maps(x)


@torch.library.register_fake("ggdr::demodulated_act_backward", lib=_library)
def _(g: Tensor, y: Tensor, x: Tensor, d: Tensor, noise: Tensor | None, *constants: float) -> tuple[Tensor, ...]:
    return _like_maps(x), _like_values(d), d.new_empty([x.shape[1]]), d.new_empty([])


@torch.library.register_fake("ggdr::demodulated_act_tangent", lib=_library)
def _(y: Tensor, x: Tensor, *others: Any) -> Tensor:
    return _like_maps(x)


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, ...]:
    x = torch.randn([16, 64, 32, 32], generator=rng).contiguous(memory_format=torch.channels_last)
    styles, b = torch.randn([16, 64], generator=rng), torch.randn([64], generator=rng)
    noise, strength = torch.randn([16, 1, 32, 32], generator=rng), torch.tensor(0.5)
    return x.requires_grad_(), styles.requires_grad_(), noise, strength.requires_grad_(), b.requires_grad_()


register_self_check("modulate", modulate, lambda rng: _check_inputs(rng)[:2])
register_self_check("demodulated_act", demodulated_act, _check_inputs)
