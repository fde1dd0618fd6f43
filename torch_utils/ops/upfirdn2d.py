# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pad, upsample, filter and downsample images in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check


def setup_filter(f: Sequence[float] | Sequence[Sequence[float]] | Tensor, *, normalize: bool = True) -> Tensor:
    """A FIR filter as a float32 tensor: 2-D from an outer product if `f` is 1-D with fewer than 8 taps.

    Args:
        f:         taps, 1-D (separable) or 2-D.
        normalize: scale the taps to sum 1.

    Returns:
        [fh, fw] float32, or [n] for a long separable filter.
    """
    f = torch.as_tensor(f, dtype=torch.float32)
    if f.ndim == 1 and f.numel() < 8:
        f = torch.outer(f, f)
    return f / f.sum() if normalize else f


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int | tuple[int, int] = 1,
    down: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Inserts zeros, pads, filters, and keeps every `down`-th sample.

    Half types are summed in float32. Filters that are outer products run along one axis after the other on a CPU.

    Args:
        x:           [N, C, H, W], any floating type and memory format.
        f:           [fh, fw], or [n] to run along both axes, float32; None is the identity. It is a constant, and
                     receives no gradient.
        up:          factor, or (x, y); up - 1 zeros are inserted behind each sample.
        down:        factor, or (x, y).
        padding:     pixels at the upsampled resolution: all sides, (x, y) or (x0, x1, y0, y1); negative crops.
        flip_filter: False for convolution, True for correlation.
        gain:        factor on the result.

    Returns:
        [N, C, (H*up + pad - fh) // down + 1, ...] of the type of `x`. Differentiable any number of times.

    Raises:
        ValueError: `x` is not 4-D, or smaller than the filter after padding.
    """
    if x.ndim != 4:
        raise ValueError(f"x must be [N, C, H, W], got shape {tuple(x.shape)}")
    up, down, pad = _pair(up), _pair(down), _padding(padding)
    f = torch.ones([1, 1], device=x.device) if f is None else f.to(x.device)
    f = f.detach() if f.requires_grad else f
    height = x.shape[2] * up[1] + pad[2] + pad[3]
    width = x.shape[3] * up[0] + pad[0] + pad[1]
    if height < f.shape[0] or width < f.shape[-1]:
        raise ValueError(f"x {tuple(x.shape)} padded to {height}x{width} is smaller than filter {tuple(f.shape)}")
    if uses_native(x.device):
        return torch.ops.ggdr.upfirdn2d(x, f, up, down, pad, flip_filter, gain)
    return _upfirdn2d_ref(x, f, up, down, pad, flip_filter, gain)


def upsample2d(x: Tensor, f: Tensor, *, up: int = 2, gain: float = 1.0) -> Tensor:
    """[N, C, H, W] -> [N, C, H*up, W*up]: zero insertion and filter `f`, which keeps the mean of the image."""
    fw, fh = f.shape[-1], f.shape[0]
    pad = ((fw + up - 1) // 2, (fw - up) // 2, (fh + up - 1) // 2, (fh - up) // 2)
    return upfirdn2d(x, f, up=up, padding=pad, gain=gain * up * up)


def downsample2d(x: Tensor, f: Tensor, *, down: int = 2, gain: float = 1.0) -> Tensor:
    """[N, C, H, W] -> [N, C, H//down, W//down]: filter `f`, then every `down`-th sample."""
    fw, fh = f.shape[-1], f.shape[0]
    pad = ((fw - down + 1) // 2, (fw - down) // 2, (fh - down + 1) // 2, (fh - down) // 2)
    return upfirdn2d(x, f, down=down, padding=pad, gain=gain)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _padding(padding: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    """x0, x1, y0, y1 of any of the three ways to write a padding."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    x0, x1, y0, y1 = padding
    return x0, x1, y0, y1


def _upfirdn2d_ref(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    if up == (1, 1) and pad[0] == pad[1] >= 0 and pad[2] == pad[3] >= 0:
        conv_pad = (pad[2], pad[0])  # the convolution pads by itself, without a copy
    else:
        x, conv_pad = _insert_zeros(x, *up, pad), (0, 0)
    if f.ndim == 2:
        return _filter(x, f * gain, (down[1], down[0]), conv_pad)
    x = _filter(x, f[None, :] * gain, (1, down[0]), (0, conv_pad[1]))
    return _filter(x, f[:, None], (down[1], 1), (conv_pad[0], 0))


def _insert_zeros(x: Tensor, up_x: int, up_y: int, pad: tuple[int, int, int, int]) -> Tensor:
    """Puts up - 1 zeros behind each sample, then pads (crops where negative)."""
    if up_x > 1 or up_y > 1:
        # Padding rather than writing into zeros: a graph of it (ONNX) holds no scatter.
        n, c, h, w = x.shape
        x = F.pad(x[:, :, :, None, :, None], (0, up_x - 1, 0, 0, 0, up_y - 1)).reshape(n, c, h * up_y, w * up_x)
    return F.pad(x, pad) if any(pad) else x


def _filter(x: Tensor, f: Tensor, down: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Correlates every channel with one [fh, fw] filter; down and zero padding are (y, x)."""
    return _Filter.apply(x, f.to(x.dtype)[None, None].expand(x.shape[1], 1, *f.shape), down, padding)


class _Filter(torch.autograd.Function):
    """Image to image, with a constant filter: PyTorch's second derivative has a convolution for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, down: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)  # by channels in rows it takes many times as long
        ctx.save_for_backward(weight)
        ctx.args = down, padding, x.shape, x.stride()
        return F.conv2d(x, weight, stride=down, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        return _FilterAdjoint.apply(*grad_outputs, *ctx.saved_tensors, *ctx.args), None, None, None


class _FilterAdjoint(torch.autograd.Function):
    """The gradient of `_Filter`, which is linear, and so the derivative of this."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        weight: Tensor,
        down: tuple[int, int],
        padding: tuple[int, int],
        x_shape: torch.Size,
        x_stride: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.args = down, padding
        x = torch.empty_strided(x_shape, x_stride, dtype=grad.dtype, device=grad.device)  # only its layout counts
        settings = None, down, padding, (1, 1), False, (0, 0), len(weight)
        return torch.ops.aten.convolution_backward(grad, x, weight, *settings, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return _Filter.apply(*grad_outputs, *ctx.saved_tensors, *ctx.args), None, None, None, None, None


# The compiled operation. How it is differentiated is in upfirdn2d_autograd.h.
_LIBRARY = torch.library.Library("ggdr", "FRAGMENT")
_LIBRARY.define(
    "upfirdn2d(Tensor x, Tensor f, int[2] up, int[2] down, SymInt[4] padding, bool flip_filter, float gain) -> Tensor"
)


@torch.library.register_fake("ggdr::upfirdn2d", lib=_LIBRARY)
def _upfirdn2d_fake(
    x: Tensor, f: Tensor, up: list[int], down: list[int], padding: list[int], flip_filter: bool, gain: float
) -> Tensor:
    n, c, h, w = x.shape
    out_h = (h * up[1] + padding[2] + padding[3] - f.shape[0]) // down[1] + 1
    out_w = (w * up[0] + padding[0] + padding[1] - f.shape[-1]) // down[0] + 1
    return x.new_empty([n, c, out_h, out_w]).to(memory_format=suggest_memory_format(x))


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn([16, 64, 33, 33], generator=rng).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), setup_filter([1, 3, 3, 1])


register_self_check("upfirdn2d", lambda x, f: upfirdn2d(x, f, padding=1, gain=4.0), _check_inputs)
