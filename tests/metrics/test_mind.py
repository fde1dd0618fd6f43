# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Monge-inspired distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ggdr.metrics.mind import mind


def normal(num: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_numpy(real: np.ndarray, fake: np.ndarray, num_directions: int, seed: int) -> float:
    """The definition, a direction at a time; for sets of one size."""
    directions = torch.randn(num_directions, real.shape[1], generator=torch.Generator().manual_seed(seed)).numpy()
    total = 0.0
    for u in directions / np.linalg.norm(directions, axis=1, keepdims=True):
        total += np.mean((np.sort(real @ u) - np.sort(fake @ u)) ** 2)
    return 3 * real.shape[1] * total / num_directions


def test_it_is_its_definition():
    real, fake = normal(70, 9, 0), normal(70, 9, 1) * 1.5 + 0.3
    expected = in_numpy(real.numpy(), fake.numpy(), 130, seed=3)
    assert mind(real, fake, num_directions=130, seed=3) == pytest.approx(expected, rel=1e-5)


def test_on_one_axis_it_is_three_times_the_distance_of_two_gaussians():
    # Quantiles of N(0, 1) and N(1, 2^2); squared Wasserstein distance (mean difference)^2 + (deviation difference)^2.
    quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(20_000) + 0.5) / 20_000)[:, None]
    assert mind(quantiles, 1 + 2 * quantiles) == pytest.approx(3 * (1 + 1), rel=1e-3)


def test_of_a_shift_it_is_three_times_the_squared_length():
    x = normal(500, 64, 0)
    shift = torch.zeros(64, dtype=torch.float64)
    shift[[3, 8]] = 2.0
    # Its spread over 1000 directions: about sqrt(2 / 1000).
    assert mind(x, x + shift) == pytest.approx(3 * 8, rel=0.15)


def test_a_set_is_at_no_distance_from_itself_in_any_order():
    x = normal(100, 5, 0)
    assert mind(x, x.flip(0)) == 0
    assert mind(x, x + 1) > 0


def test_the_larger_set_is_cut_at_random():
    real, fake = normal(300, 4, 0), normal(100, 4, 1)
    real[100:] += 100
    # Without a choice the first hundred would be taken, which are near.
    assert mind(real, fake) > 1000
    assert mind(real, fake) == mind(real, fake)


@pytest.mark.parametrize("fake", [torch.zeros(5, 3), torch.zeros(1, 4), torch.full((5, 4), torch.nan)])
def test_other_features_are_refused(fake):
    with pytest.raises(ValueError):
        mind(torch.zeros(5, 4), fake)
