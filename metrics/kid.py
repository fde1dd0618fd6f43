# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Kernel distance of two sets of features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.features import check_sets

# Kernel values held at once, 2000 x 2000 of them: 32 MB.
BLOCK_ROWS = 2000


class KID(NamedTuple):
    """Mean over subsets, and standard deviation between them (of one subset, not of the mean)."""

    mean: float
    std: float


def kid(real: Tensor, fake: Tensor, *, num_subsets: int = 100, max_subset_size: int = 1000, seed: int = 0) -> KID:
    """Kernel inception distance: the mean of `polynomial_mmd` over random subsets.

    Has no bias from the number of images, so it may come out slightly negative. The subsets are those that
    torch-fidelity draws for (fake, real) and the same seed.

    Args:
        real:            [R, D], any floating type; computed in float64 on their device.
        fake:            [F, D].
        num_subsets:     subsets of each; an image is at most once in a subset.
        max_subset_size: images in a subset; all of the smaller set where it has fewer.
        seed:            of the subsets.

    Raises:
        ValueError: fewer than 2 images, other shapes, or numbers that are not finite.

    Source: Binkowski et al. 2018, arXiv:1801.01401.
    """
    check_sets(real, fake, least_real=2, least_fake=2)
    size = min(len(real), len(fake), max_subset_size)
    if num_subsets < 1 or size < 2:
        raise ValueError(f"KID needs at least 1 subset of at least 2 images, got {num_subsets} of {size}")
    rng = np.random.RandomState(seed)
    distances = []
    for _ in range(num_subsets):
        fakes, reals = (features[_drawn(len(features), size, rng, features.device)] for features in (fake, real))
        distances.append(_mmd(reals, fakes))
    return KID(float(np.mean(distances)), float(np.std(distances)))


def polynomial_mmd(real: Tensor, fake: Tensor) -> float:
    """Squared maximum mean discrepancy for the kernel (x.y / D + 1)^3, without bias; may be negative.

    Args:
        real, fake: [R, D] and [F, D], any floating type; computed in float64 on their device, by blocks.

    Raises:
        ValueError: fewer than 2 images, other shapes, or numbers that are not finite.

    Source: Gretton et al. 2012, "A kernel two-sample test".
    """
    check_sets(real, fake, least_real=2, least_fake=2)
    return _mmd(real, fake)


def _drawn(num: int, size: int, rng: np.random.RandomState, device: torch.device) -> Tensor:
    """[size] different numbers below num."""
    return torch.from_numpy(rng.choice(num, size, replace=False)).to(device)


def _mmd(real: Tensor, fake: Tensor) -> float:
    within = [_kernel_sum(x, x, without_diagonal=True) / (len(x) * (len(x) - 1)) for x in (real, fake)]
    return float(sum(within) - 2 * _kernel_sum(real, fake) / (len(real) * len(fake)))


def _kernel_sum(x: Tensor, y: Tensor, *, without_diagonal: bool = False) -> Tensor:
    """[] float64: sum of (x_i . y_j / D + 1)^3 over all i and j, or over those that differ."""
    total = torch.zeros([], dtype=torch.float64, device=x.device)
    for i, rows in enumerate(x.split(BLOCK_ROWS)):
        for j, columns in enumerate(y.split(BLOCK_ROWS)):
            kernel = (rows.double() @ columns.double().T).div_(x.shape[1]).add_(1)
            kernel = kernel.square().mul_(kernel)
            if without_diagonal and i == j:
                kernel.fill_diagonal_(0)
            total += kernel.sum()
    return total
