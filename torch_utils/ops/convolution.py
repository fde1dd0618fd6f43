# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""2-D convolutions whose every derivative is a convolution, a transposed convolution or a gradient of weights.

PyTorch takes second derivatives in the weights as convolutions whose kernels are as large as the maps. Libraries for
GPUs have no fast algorithm for these, and for some sizes none at all. Convolution and the gradient of its weights are
bilinear, so each one's derivatives are the two again: two autograd functions that call each other are enough.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.torch_utils.ops.build import uses_native

_LEFT_TO_PYTORCH = ("cpu",)  # where its second derivatives are faster, on small maps by a fifth


def conv2d(x: Tensor, w: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Correlates with filters, as `torch.nn.functional.conv2d`; for gradients that are differentiated again.

    Args:
        x:       [N, Cin, H, W], any floating type, memory format and device.
        w:       [Cout, Cin, kh, kw] of the type of `x`.
        stride:  of both axes.
        padding: zeros on all sides.

    Returns:
        [N, Cout, (H + 2 * padding - kh) // stride + 1, ...] of the type of `x`, or of autocast's. Differentiable any
        number of times in both.

    Raises:
        RuntimeError: PyTorch's own, if `w` does not fit `x`.
    """
    if x.device.type in _LEFT_TO_PYTORCH:
        return F.conv2d(x, w, stride=stride, padding=padding)
    return _convolution(x, w, stride, padding, transposed=False)


def conv_transpose2d(x: Tensor, w: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """The adjoint of `conv2d`, as `torch.nn.functional.conv_transpose2d`.

    Args:
        x:       [N, Cin, H, W], any floating type, memory format and device.
        w:       [Cin, Cout, kh, kw] of the type of `x`; as `conv2d` takes it for the other direction.
        stride:  of both axes.
        padding: pixels to cut off on all sides.

    Returns:
        [N, Cout, (H - 1) * stride + kh - 2 * padding, ...] of the type of `x`, or of autocast's. Differentiable any
        number of times in both.

    Raises:
        RuntimeError: PyTorch's own, if `w` does not fit `x`.
    """
    if x.device.type in _LEFT_TO_PYTORCH:
        return F.conv_transpose2d(x, w, stride=stride, padding=padding)
    return _convolution(x, w, stride, padding, transposed=True)


def _convolution(x: Tensor, w: Tensor, stride: int, padding: int, *, transposed: bool) -> Tensor:
    x, w = _autocast(x, w)
    if uses_native(x.device):
        return torch.ops.ggdr.convolution(x, w, stride, padding, transposed)
    return _Convolution.apply(x, w, stride, padding, transposed, (0, 0))


def _autocast(*tensors: Tensor) -> list[Tensor]:
    """As PyTorch casts the arguments of its own convolutions."""
    device_type = tensors[0].device.type
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device_type)
    return [t if t.dtype == torch.float64 else t.to(dtype) for t in tensors]


# PyTorch's convolution with derivatives in C++, which are in convolution_autograd.h.
_LIBRARY = torch.library.Library("ggdr", "FRAGMENT")
_LIBRARY.define("convolution(Tensor x, Tensor w, int stride, int padding, bool transposed) -> Tensor")


# The reference has its derivatives in Python. A Python function is not told which of its gradients are asked for, so
# that it computes those of weights also where nobody needs them.
class _Settings(NamedTuple):
    """Of a convolution."""

    stride: int
    padding: int
    transposed: bool
    output_padding: tuple[int, int]  # what a transposed convolution adds at the far edges of its result

    def aten(self) -> tuple[Any, ...]:
        """Stride, padding, dilation, transposed, output padding and groups."""
        return [self.stride] * 2, [self.padding] * 2, [1, 1], self.transposed, list(self.output_padding), 1

    def adjoint(self, size: torch.Size, taps: torch.Size) -> _Settings:
        """Of the convolution that takes results back to the images' size; both [h, w]."""
        rest = (0, 0)
        if not self.transposed:
            rest = tuple((n + 2 * self.padding - k) % self.stride for n, k in zip(size, taps, strict=True))
        return _Settings(self.stride, self.padding, not self.transposed, rest)


class _Convolution(torch.autograd.Function):
    """Images and weights to images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = _Settings(*settings)
        return torch.convolution(x, w, None, *ctx.settings.aten())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x, w), (gy,), needed = ctx.saved_tensors, grad_outputs, ctx.needs_input_grad[:2]
        gx = gw = None
        if not torch.is_grad_enabled():  # both at once, as nothing will be differentiated again
            gx, gw, _ = torch.ops.aten.convolution_backward(gy, x, w, None, *ctx.settings.aten(), [*needed, False])
            return gx, gw, None, None, None, None
        if needed[0]:
            gx = _Convolution.apply(gy, w, *ctx.settings.adjoint(x.shape[2:], w.shape[2:]))
        if needed[1]:
            gw = _WeightGradient.apply(x, gy, w.detach(), *ctx.settings)
        return gx, gw, None, None, None, None


class _WeightGradient(torch.autograd.Function):
    """Images and the gradient of their convolution to the gradient of its weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gy: Tensor, w: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(x, gy)
        ctx.settings = _Settings(*settings)
        mask = [False, True, False]  # of the weights, only shape and memory format count
        return torch.ops.aten.convolution_backward(gy, x, w, None, *ctx.settings.aten(), mask)[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x, gy), (ggw,) = ctx.saved_tensors, grad_outputs
        gx = ggy = None
        if ctx.needs_input_grad[0]:
            gx = _Convolution.apply(gy, ggw, *ctx.settings.adjoint(x.shape[2:], ggw.shape[2:]))
        if ctx.needs_input_grad[1]:
            ggy = _Convolution.apply(x, ggw, *ctx.settings)
        return gx, ggy, None, None, None, None, None
