# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of features that arrive in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ggdr.metrics.stats import BLOCK_ROWS, FeatureStats

NUM, DIM = 2 * BLOCK_ROWS + 77, 12


def features_of(num: int = NUM, dim: int = DIM, seed: int = 0) -> Tensor:
    """Correlated, and far from 0."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=rng) @ torch.randn(dim, dim, generator=rng) + 100


def stats_of(features: Tensor, batch: int | None = None) -> FeatureStats:
    stats = FeatureStats(features.shape[1])
    for rows in features.split(batch or len(features)):
        stats.update(rows)
    return stats


def assert_close(got: FeatureStats, expected: FeatureStats) -> None:
    torch.testing.assert_close(got.gaussian().mean, expected.gaussian().mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(got.gaussian().cov, expected.gaussian().cov, rtol=1e-10, atol=1e-10)
    assert got.num == expected.num


@pytest.mark.parametrize("ddof", [0, 1])
def test_gaussian_is_that_of_numpy(ddof):
    features = features_of()
    mean, cov, num = stats_of(features, 100).gaussian(ddof)
    as_numpy = features.double().numpy()
    np.testing.assert_allclose(mean, as_numpy.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(cov, np.cov(as_numpy, rowvar=False, ddof=ddof), rtol=1e-10, atol=1e-10)
    assert (mean.dtype, cov.dtype, num) == (torch.float64, torch.float64, NUM)
    assert torch.equal(cov, cov.T)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000, BLOCK_ROWS, BLOCK_ROWS + 1])
def test_batch_size_does_not_change_a_bit(batch):
    got, expected = stats_of(features_of(), batch).gaussian(), stats_of(features_of()).gaussian()
    assert torch.equal(got.mean, expected.mean)
    assert torch.equal(got.cov, expected.cov)


def test_reading_in_between_does_not_change_a_bit():
    features, stats = features_of(), FeatureStats(DIM)
    for rows in features.split(300):
        stats.update(rows)
        stats.gaussian()
        stats.state()
    assert torch.equal(stats.gaussian().cov, stats_of(features).gaussian().cov)


def test_what_was_read_does_not_change_later():
    stats = stats_of(features_of())
    before, state = stats.gaussian(), stats.state()
    kept = [before.mean.clone(), before.cov.clone(), state["mean"].clone(), state["scatter"].clone()]
    stats.update(features_of(seed=1))
    for now, then in zip([before.mean, before.cov, state["mean"], state["scatter"]], kept, strict=True):
        assert torch.equal(now, then)


def test_order_of_images_does_not_matter():
    assert_close(stats_of(features_of().flip(0)), stats_of(features_of()))


@pytest.mark.parametrize("first", [1, 500, BLOCK_ROWS, 1500])
def test_merge_equals_concatenation(first):
    features = features_of()
    stats = stats_of(features[:first])
    stats.merge(stats_of(features[first : NUM - 5]))
    stats.update(features[NUM - 5 :])
    assert_close(stats, stats_of(features))


def test_merge_with_nothing_changes_nothing():
    features = features_of()
    left, right = stats_of(features), FeatureStats(DIM)
    left.merge(FeatureStats(DIM))
    right.merge(stats_of(features))
    assert_close(left, stats_of(features))
    assert_close(right, stats_of(features))


def test_merge_leaves_the_other_as_it_was():
    features = features_of()
    left, right = stats_of(features[:700]), stats_of(features[700:])
    left.merge(right)
    left.update(features)
    assert_close(right, stats_of(features[700:]))


def test_small_deviations_far_from_zero_keep_their_precision():
    features = torch.randn(3000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cov = stats_of(1e6 + features, 50).gaussian().cov
    torch.testing.assert_close(cov, torch.cov(features.T, correction=0), rtol=1e-8, atol=1e-8)


def test_state_restores_the_statistics_and_more_may_follow():
    features = features_of()
    stats = FeatureStats.from_state(stats_of(features[:1500]).state())
    assert_close(stats, stats_of(features[:1500]))
    stats.update(features[1500:])
    assert_close(stats, stats_of(features))


def test_half_precision_features_are_summed_in_float64():
    features = features_of()
    assert_close(stats_of(features.half()), stats_of(features.half().double()))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(5, 3), r"features must be \[n, 4\], got \[5, 3\]"),
        (torch.zeros(4), r"features must be \[n, 4\], got \[4\]"),
        (torch.tensor([[0.0] * 4, [torch.nan] * 4, [torch.inf, 0, 0, 0]]), "2 of 3 feature vectors hold NaN or inf"),
    ],
)
def test_features_of_another_kind_are_refused_and_leave_no_trace(features, message):
    stats = FeatureStats(4)
    with pytest.raises(ValueError, match=message):
        stats.update(features)
    assert stats.num == 0


@pytest.mark.parametrize(("num", "ddof", "needed"), [(0, 0, 2), (1, 0, 2), (1, 1, 2), (2, 2, 3)])
def test_too_few_features_for_a_covariance_are_counted(num, ddof, needed):
    stats = FeatureStats(4)
    stats.update(torch.zeros(num, 4))
    with pytest.raises(ValueError, match=f"needs at least {needed} feature vectors, got {num}"):
        stats.gaussian(ddof)


def test_statistics_of_other_dimensions_are_not_merged():
    with pytest.raises(ValueError, match="statistics of 5 dimensions cannot be merged into those of 4"):
        FeatureStats(4).merge(FeatureStats(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num": None}, r"lacks \['num'\]"),
        ({"mean": torch.zeros(3, dtype=torch.float64)}, r"must be mean \[D\], scatter \[D, D\]"),
        ({"mean": torch.zeros(DIM)}, "must be float64, got torch.float32"),
        ({"mean": torch.full([DIM], torch.nan, dtype=torch.float64)}, "NaN"),
        ({"num": torch.tensor(-1)}, "negative count"),
    ],
)
def test_damaged_state_is_refused(change, message):
    state = {**stats_of(features_of()).state(), **change}
    with pytest.raises(ValueError, match=message):
        FeatureStats.from_state({key: value for key, value in state.items() if value is not None})
