# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Many linear layers at once, as the styles of a StyleGAN2 are.

Each is a small product, which takes the host longer to ask for than a GPU to compute, forward and in its derivatives.
The compiled operation is PyTorch's products on any device, asked for by C++.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check


def linear_layers(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Sequence[int], *, gain: float = 1.0
) -> list[Tensor]:
    """What each layer makes of one of several inputs.

    Args:
        x:       [N, num_inputs, in_features], any floating type.
        weights: [out_features, in_features] of each layer, of the type of `x`.
        biases:  [out_features] of each layer, of the type of `x`.
        inputs:  which input each layer takes, from 0 to num_inputs - 1.
        gain:    factor on the weights.

    Returns:
        [N, out_features] of each layer. Differentiable any number of times.

    Raises:
        ValueError: the shapes do not fit; from the reference, what PyTorch raises.
    """
    if uses_native(x.device):
        return torch.ops.ggdr.linear_layers(x, weights, biases, inputs, gain)
    return _linear_layers_ref(x, weights, biases, inputs, gain)


def _linear_layers_ref(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Sequence[int], gain: float
) -> list[Tensor]:
    return [torch.addmm(b, x[:, i], w.t(), alpha=gain) for w, b, i in zip(weights, biases, inputs, strict=True)]


# The compiled operations; linear_layers_autograd.h has their formulas and derivatives.
_library = torch.library.Library("ggdr", "FRAGMENT")
_library.define("linear_layers(Tensor x, Tensor[] w, Tensor[] b, int[] inputs, float gain) -> Tensor[]")
_library.define("linear_layers_inputs_grad(Tensor[] y, Tensor[] w, int num_inputs, int[] inputs, float gain) -> Tensor")
_library.define("linear_layers_weight_grad(Tensor x, Tensor[] y, int[] inputs, float gain) -> Tensor[]")


@torch.library.register_fake("ggdr::linear_layers", lib=_library)
def _(x: Tensor, w: list[Tensor], b: list[Tensor], inputs: list[int], gain: float) -> list[Tensor]:
    return [x.new_empty([x.shape[0], each.shape[0]]) for each in w]


@torch.library.register_fake("ggdr::linear_layers_inputs_grad", lib=_library)
def _(y: list[Tensor], w: list[Tensor], num_inputs: int, inputs: list[int], gain: float) -> Tensor:
    return y[0].new_empty([y[0].shape[0], num_inputs, w[0].shape[1]])


@torch.library.register_fake("ggdr::linear_layers_weight_grad", lib=_library)
def _(x: Tensor, y: list[Tensor], inputs: list[int], gain: float) -> list[Tensor]:
    return [x.new_empty([each.shape[1], x.shape[2]]) for each in y]


_WIDTHS = (512, 512, 256, 256, 128)


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, ...]:
    sizes = [(16, 3, 512), *((width, 512) for width in _WIDTHS), *((width,) for width in _WIDTHS)]
    return tuple(torch.randn(size, generator=rng).requires_grad_() for size in sizes)


def _check(x: Tensor, *params: Tensor) -> Tensor:
    weights, biases = params[: len(_WIDTHS)], params[len(_WIDTHS) :]
    return torch.cat(linear_layers(x, weights, biases, (0, 1, 1, 2, 2), gain=0.05), dim=1)


register_self_check("linear_layers", _check, _check_inputs)
