# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Modulated 1x1 convolution without demodulation, as StyleGAN2's toRGB layers have it.

They have few output channels, so weights of its own for each image cost less than a scaled copy of its features. The
compiled operation is PyTorch's products on any device, with derivatives in C++.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check


def modulated_product(x: Tensor, weight: Tensor, styles: Tensor, *, gain: float = 1.0) -> Tensor:
    """What weights times styles, of each image its own, make of the channels at each pixel.

    Args:
        x:      [N, Cin, H, W], any floating type and memory format.
        weight: [Cout, Cin, 1, 1] float32, or float64 for float64 `x`.
        styles: [N, Cin] of the type of `weight`.
        gain:   factor on the weights.

    Returns:
        [N, Cout, H, W] of the type of `x`, channels_last. Differentiable any number of times.

    Raises:
        ValueError: the shapes do not fit; from the reference, what PyTorch raises.

    Source: Karras et al. 2020, arXiv:1912.04958, Eq. (1).
    """
    if uses_native(x.device):
        return torch.ops.ggdr.modulated_product(x, weight, styles, gain, False)
    return _modulated_product_ref(x, weight, styles, gain)


def _modulated_product_ref(x: Tensor, weight: Tensor, styles: Tensor, gain: float) -> Tensor:
    n, in_channels, height, width = x.shape
    weights = (weight.flatten(1) * (styles * gain)[:, None]).to(x.dtype)
    y = torch.bmm(x.permute(0, 2, 3, 1).reshape(n, height * width, in_channels), weights.mT)
    return y.reshape(n, height, width, -1).permute(0, 3, 1, 2)


# The compiled operations; modulated_product_autograd.h has their formulas and derivatives.
_library = torch.library.Library("ggdr", "FRAGMENT")
_library.define("modulated_product(Tensor x, Tensor w, Tensor s, float gain, bool adjoint) -> Tensor")
_library.define(
    "modulated_product_grad(Tensor x, Tensor y, Tensor w, Tensor s, float gain, bool of_w, bool of_s) -> "
    "(Tensor, Tensor)"
)


@torch.library.register_fake("ggdr::modulated_product", lib=_library)
def _(x: Tensor, w: Tensor, s: Tensor, gain: float, adjoint: bool) -> Tensor:
    n, _, height, width = x.shape
    return x.new_empty([n, height, width, w.shape[1 if adjoint else 0]]).permute(0, 3, 1, 2)


@torch.library.register_fake("ggdr::modulated_product_grad", lib=_library)
def _(x: Tensor, y: Tensor, w: Tensor, s: Tensor, gain: float, of_w: bool, of_s: bool) -> tuple[Tensor, Tensor]:
    return w.new_empty(w.shape if of_w else [0]), s.new_empty(s.shape if of_s else [0])


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, ...]:
    x = torch.randn([16, 64, 32, 32], generator=rng).contiguous(memory_format=torch.channels_last)
    weight, styles = torch.randn([3, 64, 1, 1], generator=rng), torch.randn([16, 64], generator=rng)
    return x.requires_grad_(), weight.requires_grad_(), styles.requires_grad_()


register_self_check("modulated_product", modulated_product, _check_inputs)
