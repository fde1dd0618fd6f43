# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a comparison: spread, paired differences with their interval, and when a curve gets there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class PairedDifference(NamedTuple):
    """Differences b - a of paired values.

    Attributes:
        differences: of each pair.
        mean:        of them.
        low, high:   ends of the interval of the mean; None for a single pair.
    """

    differences: list[float]
    mean: float
    low: float | None
    high: float | None


def sample_sd(values: Sequence[float]) -> float | None:
    """Standard deviation with n - 1; None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> PairedDifference:
    """Mean difference b - a, with Student's t interval on n - 1 degrees of freedom.

    Equal differences have an interval of no width.

    Args:
        a, b: finite values, pair by pair.

    Raises:
        ValueError: no pair, or as many values of one as not of the other.
    """
    from scipy.special import stdtrit

    differences = [y - x for x, y in zip(a, b, strict=True)]
    if not differences:
        raise ValueError("expected at least one pair of values, got none")
    mean, sd, num = statistics.fmean(differences), sample_sd(differences), len(differences)
    if sd is None:
        return PairedDifference(differences, mean, None, None)
    half = float(stdtrit(num - 1, (1 + confidence) / 2)) * sd / math.sqrt(num)
    return PairedDifference(differences, mean, mean - half, mean + half)


def count_wins(differences: Sequence[float], higher_is_better: bool) -> int:
    """In how many pairs b is better, equal ones not among them."""
    return sum(difference > 0 if higher_is_better else difference < 0 for difference in differences)


def first_reached(curve: Sequence[tuple[float, float]], target: float, higher_is_better: bool) -> float | None:
    """Where a curve first is as good as a value, linear between its points; None if it never is.

    Args:
        curve: (x, y) by ascending x, unsmoothed. A curve that begins as good as the value counts from its first point.
    """
    sign = 1 if higher_is_better else -1
    before: tuple[float, float] | None = None
    for x, y in curve:
        if sign * y >= sign * target:
            if before is None or y == before[1]:
                return x
            x0, y0 = before
            return x0 + (x - x0) * (target - y0) / (y - y0)
        before = (x, y)
    return None
