# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Monge-inspired distance: how far features have to move, seen along random directions."""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.metrics.features import check_sets

SEED = 2020  # of the directions
NUM_DIRECTIONS = 1000
CHUNK_DIRECTIONS = 50  # sorted at once


def mind(real: Tensor, fake: Tensor, *, num_directions: int = NUM_DIRECTIONS, seed: int = SEED) -> float:
    """Three times the dimension times the squared sliced Wasserstein-2 distance.

    The larger set is cut to the number of the smaller one, by a random choice. Of two Gaussians that differ by a shift
    alone it is about three times the squared length of the shift.

    Args:
        real: [R, D], any floating type; computed in float32 on their device.
        fake: [F, D].
        seed: of the directions and of the choice.

    Raises:
        ValueError: fewer than 2 images, other shapes, or numbers that are not finite.

    Source: arXiv:2605.06797.
    """
    check_sets(real, fake, least_real=2, least_fake=2)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(num_directions, real.shape[1], generator=generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    num = min(len(real), len(fake))
    x, y = (_cut(features, num, generator).float() for features in (real, fake))
    total = torch.zeros([], dtype=torch.float64, device=x.device)
    for u in directions.to(x.device).split(CHUNK_DIRECTIONS):
        along_x, along_y = ((u @ features.T).sort(dim=1).values for features in (x, y))
        total += (along_x - along_y).square().mean(1).double().sum()
    return float(3 * real.shape[1] * total / num_directions)


def _cut(features: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """As many rows, chosen at random."""
    if len(features) == num:
        return features
    return features[torch.randperm(len(features), generator=generator)[:num].to(features.device)]
