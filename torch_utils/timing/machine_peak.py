# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How fast this machine multiplies: the yardstick that training speed is divided by.

Rates differ from machine to machine and from hour to hour; a figure divided by one measured beside it much less.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

MIN_RUNS, MIN_SECONDS = 3, 0.3  # that each rate is the best of


def conv_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a 3x3 convolution, channels_last: 256 channels at 32x32, 16 images (a GPU: 512, 256 images)."""
    n, c, res = (256, 512, 32) if device.type == "cuda" else (16, 256, 32)
    x = torch.randn(n, c, res, res, device=device).to(dtype, memory_format=torch.channels_last)
    w = torch.randn(c, c, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
    return _rate(lambda: F.conv2d(x, w, padding=1), 2 * n * res**2 * c**2 * 9, device)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the product of two square matrices of 2048 rows (a GPU: 8192)."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return _rate(lambda: a @ b, 2 * size**3, device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy within the memory: 64 MiB (a GPU: 1 GiB)."""
    x = torch.zeros(2**30 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return _rate(lambda: y.copy_(x), 2 * x.numel(), device)


@torch.no_grad()
def _rate(run: Callable[[], object], amount: int, device: torch.device) -> float:
    """FLOPs or bytes a second, the best of some runs: what the machine can do when nothing else disturbs it."""

    def seconds() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds()
    times: list[float] = []
    while len(times) < MIN_RUNS or sum(times) < MIN_SECONDS:
        times.append(seconds())
    return amount / min(times)
