# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Bilinear sampling of images at given positions, differentiable any number of times in the image.

The backward pass of `torch.nn.functional.grid_sample` has no derivative of its own. For a fixed grid,
sampling is linear in the image, so the derivative of its adjoint is sampling again: two autograd functions
that call each other are enough.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_PADDING_MODES = {"zeros": 0, "border": 1, "reflection": 2}  # the numbering of torch's grid_sampler_2d_backward


def grid_sample(x: Tensor, grid: Tensor, *, padding_mode: str = "zeros") -> Tensor:
    """Samples `x` bilinearly at the positions of `grid`, with align_corners false.

    Args:
        x:            [N, C, H, W] float32 or float64, in any memory format.
        grid:         [N, h, w, 2] of the same type: x and y, where -1 and 1 are the outer edges of `x`. It is
                      a constant, and receives no gradient.
        padding_mode: what lies outside: "zeros", "border" for the nearest pixel, or "reflection" for the image
                      mirrored at its outer edges, as often as needed.

    Returns:
        [N, C, h, w] of the type of `x`.

    Raises:
        ValueError: a shape or the padding mode is not one of the above.
    """
    if padding_mode not in _PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(_PADDING_MODES)}; got {padding_mode!r}")
    if x.ndim != 4:
        raise ValueError(f"x must be [N, C, H, W], got shape {tuple(x.shape)}")
    if grid.ndim != 4 or grid.shape[0] != x.shape[0] or grid.shape[3] != 2:
        raise ValueError(f"grid must be [{x.shape[0]}, h, w, 2], got shape {tuple(grid.shape)}")
    if torch.is_grad_enabled() and x.requires_grad:
        return _GridSample.apply(x, grid.detach(), padding_mode)
    return _samples(x, grid.detach(), padding_mode)


class _GridSample(torch.autograd.Function):
    """Image to samples."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor, padding_mode: str) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.x_shape, ctx.padding_mode = x.shape, padding_mode
        return _samples(x, grid, padding_mode)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        adjoint = _GridSampleAdjoint.apply if torch.is_grad_enabled() else _adjoint
        return adjoint(grad_outputs[0], grid, ctx.x_shape, ctx.padding_mode), None, None


class _GridSampleAdjoint(torch.autograd.Function):
    """Samples to image: adds each sample to the pixels it was read from."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, grid: Tensor, x_shape: torch.Size, padding_mode: str) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.padding_mode = padding_mode
        return _adjoint(grad, grid, x_shape, padding_mode)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grad_outputs[0], grid, ctx.padding_mode), None, None, None


def _samples(x: Tensor, grid: Tensor, padding_mode: str) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)


def _adjoint(grad: Tensor, grid: Tensor, x_shape: torch.Size, padding_mode: str) -> Tensor:
    """Samples to image."""
    if torch.are_deterministic_algorithms_enabled() and grad.device.type != "cpu":
        return _adjoint_in_order(grad, grid, x_shape, padding_mode)
    x = grad.new_zeros(()).expand(x_shape)  # only its shape counts: the gradient in x does not depend on x
    mode = _PADDING_MODES[padding_mode]
    return torch.ops.aten.grid_sampler_2d_backward(grad, x, grid, 0, mode, False, (True, False))[0]


def _adjoint_in_order(grad: Tensor, grid: Tensor, x_shape: torch.Size, padding_mode: str) -> Tensor:
    """Samples to image, added up in an order that is always the same; torch's own adds with atomics on a GPU.

    It keeps four times the samples in memory.
    """
    n, c, height, width = x_shape
    columns = _pixels(grid[..., 0], width, padding_mode)
    rows = _pixels(grid[..., 1], height, padding_mode)
    left, top = columns.floor(), rows.floor()
    pixels, weights = [], []
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - (columns - column).abs()) * (1 - (rows - row).abs())
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weights.append(weight.where(inside, 0))
        pixels.append(row.where(inside, 0).long() * width + column.where(inside, 0).long())
    image = torch.arange(n, device=grad.device).view(n, 1, 1, 1) * (height * width)
    pixels = torch.stack(pixels, dim=1) + image  # [N, 4, h, w]
    values = grad.movedim(1, -1)[:, None] * torch.stack(weights, dim=1)[..., None]  # [N, 4, h, w, C]
    x = grad.new_zeros([n * height * width, c])
    x.index_put_([pixels.flatten()], values.reshape(-1, c), accumulate=True)  # sorted first in this mode
    return x.view(n, height, width, c).movedim(-1, 1)


def _pixels(x: Tensor, size: int, padding_mode: str) -> Tensor:
    """Positions along an axis in pixels, within the image unless zeros lie outside of it."""
    x = ((x + 1) * size - 1) / 2
    if padding_mode == "reflection":
        x = size - ((x + 0.5).remainder(2 * size) - size).abs() - 0.5
    return x if padding_mode == "zeros" else x.clamp(0, size - 1)
