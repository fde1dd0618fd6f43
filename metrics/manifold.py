# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Precision and recall, density and coverage: how far two sets of features lie within each other's neighbourhoods.

Around each feature vector of a set lies a ball that reaches to its k-th neighbour in the set. Distances are computed
by blocks, in the features' own type (float32 for half precision), so that two sets of 50,000 need tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ggdr.metrics.features import CHUNK_ROWS, check_sets
from ggdr.torch_utils.float32 import exact_float32

# Rounding errors of a squared distance, relative to the squares of both vectors: 6 epsilons at most were seen in
# float32 and up to 4096 dimensions. Twice that, as a distance is compared with a radius that has errors too.
TIE_EPSILONS = 16


class PrecisionRecall(NamedTuple):
    """Fractions in [0, 1]: of the fakes that lie among the reals, and of the reals that lie among the fakes."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Reals' balls that a fake lies in, over k (about 1 for fakes like the reals); fraction of balls with a fake."""

    density: float
    coverage: float


@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3, block: int = 1024) -> PrecisionRecall:
    """Precision: fakes that lie in a ball of any real. Recall: reals that lie in a ball of any fake.

    A distance that equals the radius to rounding counts as inside, as for images that occur in both sets.

    Args:
        real, fake: [R, D] and [F, D], any floating type; float64 for results free of float32's rounding.
        k:          neighbour that a ball reaches to, not counting the vector itself.
        block:      rows and columns of distances held at once; makes no difference to the result.

    Raises:
        ValueError: no more than k images in a set, other shapes, or numbers that are not finite.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991.
    """
    _check(real, fake, k, least_fake=k + 1)
    reals, fakes = _centred(real, fake)
    real_radii, fake_radii = reals.squared_radii(k, block), fakes.squared_radii(k, block)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for i, j, squared in _cross_distances(reals, fakes, block):
        precise[j] |= (squared <= real_radii[i, None]).any(dim=0)
        recalled[i] |= (squared <= fake_radii[j]).any(dim=1)
    return PrecisionRecall(float(precise.double().mean()), float(recalled.double().mean()))


@torch.no_grad()
def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5, block: int = 1024) -> DensityCoverage:
    """Density: reals' balls that a fake lies in, over k. Coverage: reals' balls that hold any fake.

    A distance that equals the radius to rounding counts as inside.

    Args:
        real, fake: [R, D] and [F, D], any floating type; float64 for results free of float32's rounding.
        k:          neighbour that a ball reaches to, not counting the vector itself.
        block:      rows and columns of distances held at once; makes no difference to the result.

    Raises:
        ValueError: no more than k reals, no fakes, other shapes, or numbers that are not finite.

    Source: Naeem et al. 2020, arXiv:2002.09797.
    """
    _check(real, fake, k, least_fake=1)
    reals, fakes = _centred(real, fake)
    radii = reals.squared_radii(k, block)
    num_fakes_inside = torch.zeros(len(real), dtype=torch.int64, device=real.device)
    for i, _, squared in _cross_distances(reals, fakes, block):
        num_fakes_inside[i] += (squared <= radii[i, None]).sum(dim=1)
    density = float(num_fakes_inside.sum()) / (k * len(fake))
    return DensityCoverage(density, float((num_fakes_inside > 0).double().mean()))


def _check(real: Tensor, fake: Tensor, k: int, *, least_fake: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_sets(real, fake, least_real=k + 1, least_fake=least_fake)


class _Points(NamedTuple):
    """Features [N, D] as given, what to subtract of them [D], and their squared lengths [N] thereafter."""

    features: Tensor
    centre: Tensor
    squares: Tensor

    def blocks(self, block: int) -> list[slice]:
        return [slice(start, min(start + block, len(self.features))) for start in range(0, len(self.features), block)]

    def rows(self, part: slice) -> Tensor:
        return self.features[part].to(self.centre.dtype) - self.centre

    def squared_radii(self, k: int, block: int) -> Tensor:
        """[N]: squared distance of each point from its k-th neighbour."""
        parts = self.blocks(block)
        nearest = self.centre.new_full([len(self.features), k], torch.inf)
        for a, i in enumerate(parts):
            for j in parts[a:]:
                squared = _squared_distances(self, i, self, j)
                if i == j:
                    squared.fill_diagonal_(torch.inf)
                nearest[i] = _smallest(nearest[i], squared, k)
                if i != j:
                    nearest[j] = _smallest(nearest[j], squared.T.contiguous(), k)
        return nearest[:, -1]


def _centred(real: Tensor, fake: Tensor) -> tuple[_Points, _Points]:
    """Both sets less the reals' mean: what is left of shorter vectors after rounding is more."""
    dtype = torch.promote_types(torch.promote_types(real.dtype, fake.dtype), torch.float32)
    total = sum(rows.double().sum(dim=0) for rows in real.split(CHUNK_ROWS))
    centre = (total / len(real)).to(dtype)
    points = []
    for features in (real, fake):
        squares = [(rows.to(dtype) - centre).double().square().sum(dim=1) for rows in features.split(CHUNK_ROWS)]
        points.append(_Points(features, centre, torch.cat(squares).to(dtype)))
    return points[0], points[1]


def _smallest(known: Tensor, squared: Tensor, k: int) -> Tensor:
    """[n, k], ascending: the smallest of `known` [n, k] and of the rows of `squared` [n, m]."""
    new = squared.topk(min(k, squared.shape[1]), dim=1, largest=False).values
    return torch.cat([known, new], dim=1).topk(k, dim=1, largest=False).values


def _squared_distances(a: _Points, i: slice, b: _Points, j: slice, keep: float = 1.0) -> Tensor:
    """[n, m]: keep (|x|^2 + |y|^2) - 2 x.y."""
    columns = b.squares[j] * keep
    with exact_float32(columns.device):
        return torch.addmm(columns, a.rows(i), b.rows(j).T, alpha=-2).add_(a.squares[i, None], alpha=keep)


def _cross_distances(reals: _Points, fakes: _Points, block: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows i of the reals, columns j of the fakes, their squared distances less what may be rounding errors."""
    keep = 1 - TIE_EPSILONS * torch.finfo(reals.centre.dtype).eps
    for i in reals.blocks(block):
        for j in fakes.blocks(block):
            yield i, j, _squared_distances(reals, i, fakes, j, keep)
