# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Kernel inception distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ggdr.metrics import kid as kid_module
from ggdr.metrics.kid import kid, polynomial_mmd
from tests.references import import_or_skip


def features_of(num: int, seed: int, shift: float = 0.0, dim: int = 6) -> Tensor:
    return torch.randn(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def test_mmd_is_the_sum_over_pairs():
    real, fake = features_of(7, seed=0), features_of(5, seed=1, shift=0.5)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / 6 + 1) ** 3

    within = [
        np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (real, fake)
    ]
    expected = sum(within) - 2 * np.mean([kernel(x, y) for x in real for y in fake])
    assert polynomial_mmd(real, fake) == pytest.approx(expected, rel=1e-12)


def test_mmd_of_points_has_a_closed_form():
    # All kernel values of a set are the same: (1 + 1)^3 and (4 + 1)^3 within, (2 + 1)^3 between.
    assert polynomial_mmd(torch.ones(3, 6), torch.full([4, 6], 2.0)) == pytest.approx(8 + 125 - 2 * 27)


def test_blocks_make_no_difference(monkeypatch):
    real, fake = features_of(50, seed=0), features_of(31, seed=1, shift=0.2)
    whole = polynomial_mmd(real, fake)
    monkeypatch.setattr(kid_module, "BLOCK_ROWS", 7)
    assert polynomial_mmd(real, fake) == pytest.approx(whole, rel=1e-12)


def test_order_of_images_does_not_matter_where_subsets_take_all():
    real, fake = features_of(50, seed=0), features_of(50, seed=1, shift=0.2)
    expected = polynomial_mmd(real, fake)
    assert kid(real.flip(0), fake, num_subsets=2).mean == pytest.approx(expected, rel=1e-12)
    assert kid(real, fake.flip(0), num_subsets=2).std == pytest.approx(0, abs=1e-12)


def test_kid_of_two_halves_of_one_sample_averages_to_zero():
    halves = [features_of(200, seed).chunk(2) for seed in range(60)]
    values = [polynomial_mmd(*pair) for pair in halves]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


def test_kid_has_no_bias_from_the_number_of_images():
    real, fake = features_of(2000, seed=0), features_of(2000, seed=1, shift=0.3)
    small, large = (kid(real, fake, num_subsets=200, max_subset_size=size) for size in (20, 500))
    assert small.mean == pytest.approx(large.mean, abs=3 * small.std / 200**0.5)
    assert small.std > 3 * large.std


def test_kid_is_that_of_torch_fidelity_for_the_same_seed():
    metric_kid = import_or_skip("torch_fidelity.metric_kid")
    real, fake = features_of(90, seed=0), features_of(70, seed=1, shift=0.1)
    options = {"kid_subsets": 5, "kid_subset_size": 40, "rng_seed": 2020, "verbose": False}
    expected = metric_kid.kid_features_to_metric(fake, real, **options)
    got = kid(real, fake, num_subsets=5, max_subset_size=40, seed=2020)
    assert got.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert got.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)


def test_kid_follows_its_seed_alone():
    real, fake = features_of(60, seed=0), features_of(60, seed=1)
    first = kid(real, fake, num_subsets=3, max_subset_size=20, seed=1)
    np.random.seed(5)
    assert kid(real, fake, num_subsets=3, max_subset_size=20, seed=1) == first
    assert kid(real, fake, num_subsets=3, max_subset_size=20, seed=2) != first


def test_float32_features_are_computed_in_float64():
    real, fake = features_of(300, seed=0).float(), features_of(300, seed=1).float()
    assert polynomial_mmd(real, fake) == polynomial_mmd(real.double(), fake.double())


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(1, 4), torch.zeros(5, 4), "at least 2 real images are needed, got 1"),
        (torch.zeros(5, 4), torch.zeros(0, 4), "at least 2 fake images are needed, got 0"),
        (torch.zeros(5, 4), torch.zeros(5, 3), r"\[R, D\] and \[F, D\], got \[5, 4\] and \[5, 3\]"),
        (torch.zeros(5, 4), torch.full([5, 4], torch.nan), "5 of 5 fake feature vectors hold NaN"),
    ],
)
def test_features_that_have_no_distance_are_refused(real, fake, message):
    for distance in (kid, polynomial_mmd):
        with pytest.raises(ValueError, match=message):
            distance(real, fake)


@pytest.mark.parametrize(("option", "message"), [("num_subsets", "got 0 of 5"), ("max_subset_size", "got 100 of 0")])
def test_no_subsets_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        kid(torch.zeros(5, 4), torch.zeros(5, 4), **{option: 0})
