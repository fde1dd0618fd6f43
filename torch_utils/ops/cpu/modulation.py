# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What surrounds StyleGAN2's modulated convolution: styles before; demodulation, noise, bias and activation behind.

On a CPU each is one pass over memory in a compiled kernel, and so is its backward pass. A backward pass that is
itself differentiated (path length regularisation) runs as plain tensor operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ggdr.torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check

_TYPES = (torch.float32, torch.bfloat16)


def modulate(x: Tensor, styles: Tensor) -> Tensor:
    """Scales every channel of every image: x [N, C, H, W] of any floating type, styles [N, C] float32 -> as x.

    Differentiable any number of times.
    """
    if _is_compiled(x) and styles.dtype == torch.float32:
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
        dcoefs:         [N, C] float32, the demodulation coefficients.
        noise:          [N, 1, H, W] or [H, W] float32, a constant; None for none.
        noise_strength: [] float32, its factor.
        b:              [C] float32.
        gain:           factor on the result, on top of the sqrt(2) of the activation.
        clamp:          bound on the result's magnitude before `gain`; None for none.

    Returns:
        [N, C, H, W] of the type of `x`. Differentiable any number of times in all but `noise`.

    Source: Karras et al. 2020, arXiv:1912.04958, Fig. 2 (d).
    """
    gain, clamp = ACTIVATIONS["lrelu"].default_gain * gain, None if clamp is None else clamp * gain
    if _is_compiled(x) and dcoefs.dtype == b.dtype == noise_strength.dtype == torch.float32:
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


def _is_compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in _TYPES and uses_native(x.device)


# The compiled operations. A negative clamp is none.
_library = torch.library.Library("ggdr", "FRAGMENT")
_library.define("modulate(Tensor x, Tensor s) -> Tensor")
_library.define("modulate_backward(Tensor gy, Tensor x, Tensor s) -> (Tensor, Tensor)")
_library.define(
    "demodulated_act(Tensor x, Tensor d, Tensor? noise, Tensor strength, Tensor b, float slope, float gain, "
    "float clamp) -> Tensor"
)
_library.define(
    "demodulated_act_backward(Tensor gy, Tensor y, Tensor x, Tensor d, Tensor? noise, Tensor strength, float slope, "
    "float gain, float clamp) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _like_maps(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@torch.library.register_fake("ggdr::modulate", lib=_library)
def _(x: Tensor, s: Tensor) -> Tensor:
    return _like_maps(x)


@torch.library.register_fake("ggdr::modulate_backward", lib=_library)
def _(gy: Tensor, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return _like_maps(x), torch.empty_like(s, memory_format=torch.contiguous_format)


@torch.library.register_fake("ggdr::demodulated_act", lib=_library)
def _(x: Tensor, d: Tensor, noise: Any, strength: Tensor, b: Tensor, slope: float, gain: float, clamp: float) -> Tensor:
    return _like_maps(x)


@torch.library.register_fake("ggdr::demodulated_act_backward", lib=_library)
def _(gy: Tensor, y: Tensor, x: Tensor, d: Tensor, noise: Any, strength: Tensor, *constants: float) -> Any:
    gd = torch.empty_like(d, memory_format=torch.contiguous_format)
    return _like_maps(x), gd, d.new_empty([x.shape[1]]), torch.empty_like(strength)


def _save_modulate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _modulate_backward(ctx: Any, gy: Tensor) -> tuple[Tensor, Tensor]:
    x, s = ctx.saved_tensors
    if not torch.is_grad_enabled():
        return torch.ops.ggdr.modulate_backward(gy, x, s)
    return _modulate_ref(gy, s), (gy.float() * x.float()).sum(dim=[2, 3])


def _save_act(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, d, noise, strength, b, *ctx.constants = inputs
    ctx.save_for_backward(output, x, d, noise, strength)


def _act_backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
    y, x, d, noise, strength = ctx.saved_tensors
    if not torch.is_grad_enabled():
        gx, gd, gb, gs = torch.ops.ggdr.demodulated_act_backward(gy, y, x, d, noise, strength, *ctx.constants)
        return gx, gd, None, gs, gb, None, None, None
    # The activation is piecewise linear: its slope is a constant of the next derivative.
    slope, gain, clamp = ctx.constants
    mask = torch.where(y.detach() > 0, gain, gain * slope)
    if clamp >= 0:
        mask = mask * (y.detach().abs() < clamp)
    g = gy.float() * mask
    gs = None if noise is None else (g * noise).sum()
    gx = _modulate_ref(g, d).to(x.dtype)
    return gx, (g * x.float()).sum(dim=[2, 3]), None, gs, g.sum(dim=[0, 2, 3]), None, None, None


torch.library.register_autograd("ggdr::modulate", _modulate_backward, setup_context=_save_modulate, lib=_library)
torch.library.register_autograd("ggdr::demodulated_act", _act_backward, setup_context=_save_act, lib=_library)


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, ...]:
    x = torch.randn([16, 64, 32, 32], generator=rng).contiguous(memory_format=torch.channels_last)
    styles, b = torch.randn([16, 64], generator=rng), torch.randn([64], generator=rng)
    noise, strength = torch.randn([16, 1, 32, 32], generator=rng), torch.tensor(0.5)
    return x.requires_grad_(), styles.requires_grad_(), noise, strength.requires_grad_(), b.requires_grad_()


register_self_check("modulate", modulate, lambda rng: _check_inputs(rng)[:2], device_types=["cpu"])
register_self_check("demodulated_act", demodulated_act, _check_inputs, device_types=["cpu"])
