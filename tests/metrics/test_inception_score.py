# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Inception Score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ggdr.metrics.inception_score import inception_score
from tests.references import import_or_skip


def logits_of(num: int, num_classes: int = 7) -> Tensor:
    return 3 * torch.randn(num, num_classes, generator=torch.Generator().manual_seed(0))


def test_score_of_sure_and_even_classes_is_their_number():
    logits = 1000 * torch.eye(5).repeat(20, 1)
    assert inception_score(logits) == pytest.approx((5, 0))


def test_score_without_sureness_or_without_variety_is_1():
    assert inception_score(torch.zeros(20, 5)) == pytest.approx((1, 0))
    assert inception_score(logits_of(1).repeat(20, 1)) == pytest.approx((1, 0), abs=1e-12)


def test_score_of_two_images_has_a_closed_form():
    # Probabilities (3/4, 1/4) and (1/4, 3/4), whose mean is (1/2, 1/2).
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    expected = math.exp(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert inception_score(logits, num_splits=1).mean == pytest.approx(expected, rel=1e-6)


def test_splits_are_consecutive_rows():
    # One class in the first half, another in the second: no variety within either.
    logits = 100 * torch.eye(2).repeat_interleave(10, dim=0)
    assert inception_score(logits, num_splits=2).mean == pytest.approx(1)
    assert inception_score(logits, num_splits=1).mean == pytest.approx(2)


def test_constant_added_to_the_logits_of_an_image_changes_nothing():
    logits = logits_of(50).double()
    assert inception_score(logits + torch.arange(50)[:, None]) == pytest.approx(inception_score(logits), rel=1e-12)


def test_order_of_images_does_not_matter_within_a_split():
    logits = logits_of(50)
    assert inception_score(logits.flip(0), num_splits=1) == pytest.approx(inception_score(logits, num_splits=1))


def test_class_that_no_image_shows_leaves_the_score_finite():
    logits = torch.tensor([[0.0, 1.0, -2000.0], [1.0, 0.0, -2000.0]])
    assert inception_score(logits, num_splits=1) == pytest.approx(inception_score(logits[:, :2], num_splits=1))


@pytest.mark.parametrize(("num", "splits"), [(100, 10), (103, 10), (29, 4)])
def test_score_is_that_of_torch_fidelity(num, splits):
    metric_isc = import_or_skip("torch_fidelity.metric_isc")
    logits = logits_of(num)
    expected = metric_isc.isc_features_to_metric(logits, splits, shuffle=True, rng_seed=2020)
    order = torch.from_numpy(np.random.RandomState(2020).permutation(num))
    got = inception_score(logits[order], num_splits=splits)
    assert got.mean == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert got.std == pytest.approx(expected["inception_score_std"], rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(5), r"logits must be \[N, K\], got \[5\]"),
        (torch.zeros(9, 3), "9 images cannot be split into 10 parts"),
        (torch.full([20, 3], torch.nan), "20 of 20 rows of logits hold NaN"),
    ],
)
def test_logits_that_have_no_score_are_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(logits)
