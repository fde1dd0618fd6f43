# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Weights, styles and coefficients of StyleGAN2's modulated convolution.

A layer takes some twenty small operations to demodulate, which keep a fast GPU waiting for its host. There they are a
few kernels; a CPU takes PyTorch's operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check

COMPILED_DEVICES = ["cuda", "meta"]  # types of devices; the meta device goes the way of a GPU
_ACCURATE = (torch.float32, torch.float64)


def demodulation(weight: Tensor, styles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What a modulated convolution takes, and the coefficients that give its results unit variance if its maps have.

    Scaling maps instead of weights keeps one weight tensor for all images. The coefficients are
    rsqrt(sum_{i,k} (s_i w_oik)^2).

    Half types would overflow. For them each filter is divided by its norm, and the styles of an image by the largest.
    Demodulation undoes these scalings, so they are constants: what the result owes to them has no gradient.

    Args:
        weight: [Cout, Cin, k, k] float32 (or float64), of any memory format.
        styles: [N, Cin] of the type of `weight`.
        dtype:  of the maps.

    Returns:
        The weights [Cout, Cin, k, k], of `dtype` or still to be cast to it; the styles [N, Cin]; the coefficients
        [N, Cout]. All can be differentiated any number of times.

    Raises:
        ValueError: `styles` do not fit `weight`; from the reference, what PyTorch raises.

    Source: Karras et al. 2020, arXiv:1912.04958, Eq. (1) and (3).
    """
    if not _is_compiled(weight, styles):
        return _demodulation_ref(weight, styles, dtype)
    normalize = dtype not in _ACCURATE
    styles, dcoefs, _, norms, _ = torch.ops.ggdr.demodulation(weight, styles, normalize)
    return torch.ops.ggdr.scaled_weight(weight, norms, 1.0, dtype) if normalize else weight, styles, dcoefs


def scaled_weight(weight: Tensor, gain: float, dtype: torch.dtype) -> Tensor:
    """Weights with equalised learning rate, as a convolution of maps takes them.

    Args:
        weight: [Cout, Cin, k, k] float32 (or float64), of any memory format.
        gain:   their factor.
        dtype:  of the maps.

    Returns:
        [Cout, Cin, k, k] of `dtype` or still to be cast to it. Differentiable any number of times.
    """
    if dtype != weight.dtype and _is_compiled(weight):
        return torch.ops.ggdr.scaled_weight(weight, None, gain, dtype)
    return weight * gain


def _demodulation_ref(weight: Tensor, styles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    if dtype not in _ACCURATE:
        weight = weight / torch.linalg.vector_norm(weight.detach(), dim=[1, 2, 3], keepdim=True)
        styles = styles / torch.linalg.vector_norm(styles.detach(), math.inf, dim=1, keepdim=True)
    # A matrix product of squared styles with squared weights summed over taps.
    dcoefs = (styles.square() @ weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()
    return weight, styles, dcoefs


def _is_compiled(weight: Tensor, *others: Tensor) -> bool:
    if weight.device.type not in COMPILED_DEVICES or not uses_native(weight.device):
        return False
    return weight.dtype in _ACCURATE and all(t.dtype == weight.dtype for t in others)


# The compiled operations; demodulation.h has their formulas, demodulation_autograd.h their derivatives.
_library = torch.library.Library("ggdr", "FRAGMENT")
_library.define("demodulation(Tensor w, Tensor s, bool normalize) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
_library.define(
    "demodulation_styles_grad(Tensor gs, Tensor gd, Tensor d, Tensor w, Tensor s, Tensor q, Tensor c, Tensor m) -> "
    "Tensor"
)
_library.define(  # it has no derivative: where one is asked for, PyTorch's operations are taken
    "demodulation_styles_grad_backward(Tensor h, Tensor gd, Tensor d, Tensor w, Tensor s, Tensor q, Tensor c, "
    "Tensor m) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define("demodulation_weight_grad(Tensor gd, Tensor d, Tensor w, Tensor s, Tensor c) -> Tensor")
_library.define("scaled_weight(Tensor w, Tensor? scales, float gain, ScalarType type) -> Tensor")


def _like_weights(w: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights of the layout in which the kernels return them."""
    is_channels_last = not w.is_contiguous() and w.is_contiguous(memory_format=torch.channels_last)
    # Its strides are kept, also those along a single tap, by which a 1x1 convolution finds its memory format.
    return torch.empty_like(w if is_channels_last else w.contiguous(), dtype=dtype)


@torch.library.register_fake("ggdr::demodulation", lib=_library)
def _(w: Tensor, s: Tensor, normalize: bool) -> tuple[Tensor, ...]:
    (n, c_in), c_out = s.shape, w.shape[0]
    return tuple(s.new_empty(size) for size in ([n, c_in], [n, c_out], [c_out, c_in], [c_out], [n]))


@torch.library.register_fake("ggdr::demodulation_styles_grad", lib=_library)
def _(gs: Tensor, *others: Tensor) -> Tensor:
    return torch.empty_like(gs, memory_format=torch.contiguous_format)


@torch.library.register_fake("ggdr::demodulation_styles_grad_backward", lib=_library)
def _(h: Tensor, gd: Tensor, d: Tensor, w: Tensor, s: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(s), torch.empty_like(d), torch.empty_like(d), _like_weights(w, w.dtype), torch.empty_like(s)


@torch.library.register_fake("ggdr::demodulation_weight_grad", lib=_library)
def _(gd: Tensor, d: Tensor, w: Tensor, s: Tensor, c: Tensor) -> Tensor:
    return _like_weights(w, w.dtype)


@torch.library.register_fake("ggdr::scaled_weight", lib=_library)
def _(w: Tensor, scales: Tensor | None, gain: float, dtype: torch.dtype) -> Tensor:
    return _like_weights(w, dtype)


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, ...]:
    weight = torch.randn([64, 64, 3, 3], generator=rng).contiguous(memory_format=torch.channels_last)
    return weight.requires_grad_(), torch.randn([16, 64], generator=rng).requires_grad_()


register_self_check(
    "demodulation", lambda w, s: demodulation(w, s, torch.float32)[2], _check_inputs, device_types=("cuda",)
)
register_self_check(  # it rounds to float16
    "scaled_weight",
    lambda w: scaled_weight(w, 0.1, torch.float16),
    lambda rng: _check_inputs(rng)[:1],
    device_types=("cuda",),
    tolerance=1e-3,
)
