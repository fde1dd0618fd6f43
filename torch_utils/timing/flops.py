# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic that a piece of PyTorch code asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

# Operations with products of styles and squared weights in them: how many, and where their weights and styles stand.
DEMODULATIONS = {
    "ggdr::demodulation": (1, 0, 1),
    "ggdr::demodulation_styles_grad": (1, 3, 4),
    "ggdr::demodulation_styles_grad_backward": (3, 3, 4),
    "ggdr::demodulation_weight_grad": (1, 2, 3),
}


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of the convolutions and matrix products in `run()`, forward and backward, two a multiply-add.

    Counted is what PyTorch is asked for: a gradient that nobody needs costs nothing, nor does a second use of a
    result. Left out are depthwise convolutions (FIR filters) and everything that works element by element. conv3x3
    counts as the direct sum.
    """
    with _Counter() as counter:
        run()
    return counter.total


class _Counter(TorchDispatchMode):
    """Sums up PyTorch's own formulas. FlopCounterMode does too, but fails in torch.autograd.grad, which R1 needs."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        op = func.overloadpacket
        if op is torch.ops.aten.convolution:
            self.total += _convolution(*args, **kwargs, out=out)
        elif op is torch.ops.aten.convolution_backward:
            self.total += _convolution_backward(*args, **kwargs)
        elif op in flop_registry:
            self.total += flop_registry[op](*args, **kwargs, out_val=out)
        elif func.name() == "ggdr::conv3x3":
            x, w, *_, transpose = args
            self.total += _products(x if transpose else out, w)
        elif func.name() in ("ggdr::modulated_product", "ggdr::modulated_product_grad"):
            self.total += _products(args[0], args[1 if func.name() == "ggdr::modulated_product" else 2])
        elif func.name() in DEMODULATIONS:
            num, *places = DEMODULATIONS[func.name()]
            w, s = (args[i] for i in places)
            self.total += num * 2 * s.shape[0] * w.shape[0] * w.shape[1]
        elif func.name().startswith("ggdr::linear_layers"):
            self.total += _linear_layers(args[0], args[1] if func.name() != "ggdr::linear_layers_weight_grad" else out)
        elif func.name() == "ggdr::conv3x3_weight_grad":
            self.total += _products(args[1], out)
        return out


def _convolution(x, w, bias, stride, padding, dilation, transposed, output_padding, groups, *, out) -> int:
    """FLOPs of one call of aten.convolution, from the shapes of x, w and out."""
    if groups == x.shape[1] > 1:
        return 0
    return conv_flop_count(list(x.shape), list(w.shape), list(out.shape), transposed=transposed)


def _products(small: Tensor, w: Tensor) -> int:
    """FLOPs of pairing each pixel of the smaller images with all weights."""
    return 2 * small.shape[0] * small.shape[2] * small.shape[3] * w.numel()


def _linear_layers(x: Tensor | list[Tensor], weights: list[Tensor]) -> int:
    """FLOPs of pairing each image, one a row of x or of each x, with all weights."""
    num_images = len(x if isinstance(x, Tensor) else x[0])
    return 2 * num_images * sum(w.numel() for w in weights)


def _convolution_backward(grad_out, x, w, bias_sizes, *settings) -> int:
    """Each gradient asked for pairs the numbers that the forward paired. PyTorch's own formula forgets groups."""
    *settings, output_mask = settings
    return _convolution(x, w, None, *settings, out=grad_out) * sum(output_mask[:2])
