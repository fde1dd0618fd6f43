# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a comparison, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from ggdr.scripts.studies.statistics import count_wins, first_reached, paired_difference, sample_sd


@pytest.mark.parametrize("num", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_paired_intervals_are_those_of_scipy(num, confidence):
    a, b = np.random.RandomState(num).randn(2, num) * 3 + [[50], [48]]
    found = paired_difference(a.tolist(), b.tolist(), confidence)
    expected = scipy.stats.ttest_rel(b, a).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    expected = scipy.stats.ttest_1samp(b - a, 0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.mean == pytest.approx((b - a).mean()) and found.differences == pytest.approx(b - a)
    assert sample_sd(a.tolist()) == pytest.approx(a.std(ddof=1))


def test_a_difference_is_b_minus_a():
    assert paired_difference([1.0, 2.0], [4.0, 5.5]).differences == [3.0, 3.5]


def test_one_pair_has_no_interval():
    assert paired_difference([2.0], [3.0]) == ([1.0], 1.0, None, None)
    assert sample_sd([2.0]) is None and sample_sd([]) is None


def test_equal_differences_have_an_interval_without_width():
    assert paired_difference([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]) == ([2.0, 2.0, 2.0], 2.0, 2.0, 2.0)
    assert paired_difference([1.0, 1.0], [1.0, 1.0])[1:] == (0.0, 0.0, 0.0)


def test_pairs_need_two_values_each():
    with pytest.raises(ValueError, match="at least one pair"):
        paired_difference([], [])
    with pytest.raises(ValueError):
        paired_difference([1.0], [1.0, 2.0])


def test_wins_leave_out_ties_and_heed_the_direction():
    assert count_wins([-1.0, 0.0, 2.0, 3.0], higher_is_better=False) == 1
    assert count_wins([-1.0, 0.0, 2.0, 3.0], higher_is_better=True) == 2


@pytest.mark.parametrize(
    "curve, target, higher_is_better, expected",
    [
        ([(10, 100), (20, 50), (30, 40)], 75, False, 15),
        ([(10, 100), (20, 50), (30, 40)], 50, False, 20),
        ([(10, 100), (20, 50), (30, 40)], 39, False, None),
        ([(10, 100), (20, 50), (30, 40)], 100, False, 10),
        ([(10, 100), (20, 50), (30, 90), (40, 20)], 60, False, 18),  # the first time, though it is lost again
        ([(10, 0.1), (20, 0.5), (30, 0.4)], 0.3, True, 15),
        ([(10, 0.1), (20, 0.5), (30, 0.4)], 0.6, True, None),
        ([(10, 0.1), (20, 0.1)], 0.1, True, 10),
        ([(10, 5)], 7, False, 10),
        ([], 7, False, None),
    ],
)
def test_where_a_curve_first_is_as_good(curve, target, higher_is_better, expected):
    found = first_reached(curve, target, higher_is_better)
    assert found is None if expected is None else found == pytest.approx(expected)
