# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""3x3 convolution of stride 1 and 2; on a CPU with a quarter, or little more than half, of the multiplications."""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.convolution import conv2d, conv_transpose2d
from ggdr.torch_utils.ops.self_check import register_self_check

# Where Winograd's filtering pays, by type and stride: from so many tiles of 4x4 results on, and so many channels. Its
# arithmetic is in float32, so that CPUs with bfloat16 products are faster without in the rest.
_MIN_TILES = {(torch.float32, 1): 64, (torch.float32, 2): 64, (torch.bfloat16, 1): 256}
_MIN_CHANNELS = 16


def conv3x3(x: Tensor, w: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Correlates with 3x3 filters.

    On a CPU, large enough float32 and bfloat16 images take a compiled kernel that uses Winograd's minimal filtering:
    36 products (stride 2: 81) where the direct sum takes 144, in float32 also for bfloat16 images. Its float32
    rounding error is about four times (twice) that of the direct sum: at 512 channels, 1e-6 of the root mean square
    of the result.

    Args:
        x:       [N, Cin, H, W], any floating type and memory format.
        w:       [Cout, Cin, 3, 3], float32 or the type of `x`.
        stride:  1 or 2.
        padding: zeros on all sides, 0 or 1.

    Returns:
        [N, Cout, (H + 2 * padding - 3) // stride + 1, ...] of the type of `x`. Differentiable any number of times in
        both.

    Raises:
        ValueError: `w` is not 3x3, or does not fit the channels of `x`.
        RuntimeError: PyTorch's own, if `x` is too small.

    Source: Lavin & Gray 2016, arXiv:1509.09308.
    """
    if w.ndim != 4 or tuple(w.shape[2:]) != (3, 3) or x.ndim != 4 or w.shape[1] != x.shape[1]:
        raise ValueError(f"w must be [Cout, {x.shape[1]}, 3, 3] for x {tuple(x.shape)}, got {tuple(w.shape)}")
    if is_compiled(x, w, stride=stride, padding=padding):
        return torch.ops.ggdr.conv3x3(x, w.float(), stride, padding, False)
    return _conv3x3_ref(x, w, stride, padding)


def is_compiled(x: Tensor, w: Tensor, *, stride: int = 1, padding: int = 0) -> bool:
    """Whether `conv3x3` takes the compiled kernel for these arguments; builds it if that is still to be done."""
    # Sizes come last: in graphs that are traced with reference operations they may be unknown.
    if not _winograd_knows(x, w, stride) or not uses_native(x.device):
        return False
    sides = [size + 2 * padding for size in x.shape[2:]]
    if min(sides) < 3 or (stride == 2 and (padding > 0 or any(side % 2 == 0 for side in sides))):
        return False
    return _winograd_pays(x, stride, *((side - 3) // stride + 1 for side in sides))


def conv3x3_up(x: Tensor, w: Tensor) -> Tensor:
    """The adjoint of `conv3x3` with stride 2: a transposed convolution.

    Args:
        x: [N, Cin, H, W], any floating type and memory format.
        w: [Cin, Cout, 3, 3], float32 or the type of `x`; as `conv3x3` takes it for the other direction.

    Returns:
        [N, Cout, 2H + 1, 2W + 1] of the type of `x`. Differentiable any number of times in both.

    Raises:
        ValueError: `w` is not 3x3, or does not fit the channels of `x`.
    """
    if w.ndim != 4 or tuple(w.shape[2:]) != (3, 3) or x.ndim != 4 or w.shape[0] != x.shape[1]:
        raise ValueError(f"w must be [{x.shape[1]}, Cout, 3, 3] for x {tuple(x.shape)}, got {tuple(w.shape)}")
    if _winograd_knows(x, w, 2) and uses_native(x.device) and _winograd_pays(x, 2, *x.shape[2:]):
        return torch.ops.ggdr.conv3x3(x, w.float(), 2, 0, True)
    return _conv3x3_up_ref(x, w)


def _conv3x3_ref(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    return conv2d(x, w.to(x.dtype), stride=stride, padding=padding)


def _conv3x3_up_ref(x: Tensor, w: Tensor) -> Tensor:
    return conv_transpose2d(x, w.to(x.dtype), stride=2)


def _winograd_knows(x: Tensor, w: Tensor, stride: int) -> bool:
    """Whether there are images and filters of a kind that the compiled kernel is for."""
    return x.device.type == "cpu" and (x.dtype, stride) in _MIN_TILES and min(w.shape[:2]) >= _MIN_CHANNELS


def _winograd_pays(x: Tensor, stride: int, height: int, width: int) -> bool:
    """Whether they are large enough; height and width are those of the results, or in the adjoint of the inputs."""
    return x.shape[0] * -(-height // 4) * -(-width // 4) >= _MIN_TILES[x.dtype, stride]


# The compiled operations; padding is 0, or 1 with stride 1. Where `transpose`, the first is the adjoint: from Cout to
# Cin channels, and back to the size of what was convolved. How they are differentiated is in convolution_autograd.h.
_library = torch.library.Library("ggdr", "FRAGMENT")
_library.define("conv3x3(Tensor x, Tensor w, int stride, int padding, bool transpose) -> Tensor")
_library.define("conv3x3_weight_grad(Tensor x, Tensor gy, int stride, int padding) -> Tensor")


@torch.library.register_fake("ggdr::conv3x3", lib=_library)
def _(x: Tensor, w: Tensor, stride: int, padding: int, transpose: bool) -> Tensor:
    rest = 3 - 2 * padding
    size = [stride * (n - 1) + rest if transpose else (n - rest) // stride + 1 for n in x.shape[2:]]
    return torch.empty(
        [x.shape[0], w.shape[1 if transpose else 0], *size],
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


@torch.library.register_fake("ggdr::conv3x3_weight_grad", lib=_library)
def _(x: Tensor, gy: Tensor, stride: int, padding: int) -> Tensor:
    shape = [gy.shape[1], x.shape[1], 3, 3]
    return torch.empty(shape, dtype=torch.float32, device=x.device, memory_format=torch.channels_last)


def _check_inputs(rng: torch.Generator, res: int) -> tuple[Tensor, Tensor]:
    x = torch.randn([16, 64, res, res], generator=rng).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), torch.randn([64, 64, 3, 3], generator=rng, requires_grad=True)


register_self_check(
    "conv3x3", lambda x, w: conv3x3(x, w, padding=1), lambda rng: _check_inputs(rng, 32), device_types=["cpu"]
)
register_self_check(
    "conv3x3, stride 2", lambda x, w: conv3x3(x, w, stride=2), lambda rng: _check_inputs(rng, 33), device_types=["cpu"]
)
register_self_check("conv3x3, transposed", conv3x3_up, lambda rng: _check_inputs(rng, 16), device_types=["cpu"])
