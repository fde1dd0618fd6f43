# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Noise of seeds, computed on the device that it is for.

Each number is a function of its seed, its stream and its place, made of integer operations: it depends neither on the
device nor on what else is drawn, and all are computed at once. A random generator for each seed would draw them one by
one on a CPU, or on a GPU others for each kind of GPU.

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64);
Box and Muller 1958, "A note on the generation of random normal deviates".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# SplitMix64's constants, as signed numbers of 64 bits: products wrap around, as they shall. Each round is a shift and a
# factor.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], *, stream: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal numbers of each seed.

    Args:
        seeds:  n of them, 0 to 2^63 - 1.
        shape:  of what one seed gets.
        stream: another one gives other numbers of the same seeds.

    Returns:
        [n, *shape] float32 on `device`; between kinds of devices the last bit may differ.
    """
    num = math.prod(shape)
    # A pair of numbers for each hash: [n, num / 2].
    keys = mix_bits(mix_bits(torch.tensor(seeds, dtype=torch.int64)) + stream)
    places = torch.arange(1, (num + 1) // 2 + 1, device=device)
    bits = mix_bits(keys.to(device)[:, None] + places * _GAMMA)
    # float64: in float32 the logarithm of a number near 1 has few digits, and devices differ more.
    radius = (_logical_shift(bits, 32).double() + 0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = bits.bitwise_and_(2**32 - 1).double().mul_(2.0**-32 * 2 * math.pi)
    noise = torch.cat([(radius * angle.cos()).float(), (radius * angle.sin()).float()], dim=1)
    return noise[:, :num].reshape(len(seeds), *shape)


def mix_bits(x: Tensor) -> Tensor:
    """SplitMix64's hash of int64 numbers of any shape, read as 64 bits without a sign; one to one."""
    for shift, factor in _ROUNDS:
        x = _logical_shift(x, shift).bitwise_xor_(x).mul_(factor)
    return x


def _logical_shift(x: Tensor, num: int) -> Tensor:
    """x >> num with zeros from the left, in place of the sign."""
    return (x >> num).bitwise_and_(2 ** (64 - num) - 1)
