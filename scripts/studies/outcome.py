# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What came of a comparison, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_DECIMALS = 8


class Outcome(NamedTuple):
    """`verdict` is "better", "worse", "unclear", "single" (one seed) or "none" (no result)."""

    verdict: str
    text: str


def outcome(a: str, b: str, pair: Mapping[str, Any], metric: Mapping[str, Any]) -> Outcome | None:
    """Whether variant `b` is better than the baseline `a` by a metric; None if no seed of both has a value.

    Args:
        a, b:   names.
        pair:   their paired differences b - a, in the shape of `page_data`.
        metric: {"name", "better", "decimals"}.
    """
    if not pair["differences"] or pair["mean"] is None:
        return None
    by, sign = metric["name"], -1 if metric["better"] == "lower" else 1
    num, gain = len(pair["differences"]), sign * pair["mean"]
    wins = sum(sign * difference > 0 for difference in pair["differences"])
    losses = sum(sign * difference < 0 for difference in pair["differences"])
    numbers = _numbers(pair, metric["decimals"])
    if num == 1:
        how = "better than" if gain > 0 else "worse than" if gain < 0 else "level with"
        sentence = f"{b} is {how} {a} in the only seed by {by}: {numbers}."
        return Outcome("single", f"{sentence} One seed cannot tell this from chance.")
    low, high = pair["low"], pair["high"]
    if low is None or high is None or low <= 0 <= high:
        sentence = f"No clear difference between {b} and {a} by {by}: {numbers}."
        return Outcome("unclear", f"{sentence} {b} is better in {wins} of {num} seeds.")
    verdict, count = ("better", wins) if gain > 0 else ("worse", losses)
    return Outcome(verdict, f"{b} is {verdict} than {a} in {count} of {num} seeds by {by}: {numbers}.")


def progress(variants: Sequence[Mapping[str, Any]]) -> str:
    """What to say where nothing can be compared yet."""
    runs = [run for variant in variants for run in variant["runs"]]
    finished = sum(run["state"] == "finished" for run in runs)
    failed = sum(run["state"] == "failed" for run in runs)
    state = f"{finished} of {len(runs)} runs finished" if runs else "no run has started"
    return f"Nothing to compare yet: {state}{f', {failed} failed' if failed else ''}."


def decimals_of(means: Sequence[float | None], differences: Sequence[float | None] = ()) -> int:
    """Decimals that give the largest mean three digits and, by at most two more, the least difference two of them."""
    sizes = [abs(mean) for mean in means if mean]
    decimals = 2 - math.floor(math.log10(max(sizes))) if sizes else 2
    gaps = [abs(difference) for difference in differences if difference]
    if gaps:
        decimals = max(decimals, min(1 - math.floor(math.log10(min(gaps))), decimals + 2))
    return min(max(decimals, 0), MAX_DECIMALS)


def format_number(value: float, decimals: int, *, signed: bool = False) -> str:
    """A number with a true minus; a plus too if `signed`."""
    shown = f"{value:.{decimals}f}" if abs(value) < 1e9 else f"{value:.3g}"
    return (f"+{shown}" if signed and value > 0 else shown).replace("-", "−")


def _numbers(pair: Mapping[str, Any], decimals: int) -> str:
    """Both means, if they are known and are those of the difference, and the difference with its interval."""
    shown = f"difference {format_number(pair['mean'], decimals, signed=True)}"
    last_a, last_b = pair["reach"]["a_last"], pair["reach"]["b_last"]
    if None not in (last_a, last_b) and math.isclose(last_a + pair["mean"], last_b, rel_tol=1e-6, abs_tol=1e-12):
        shown = f"{format_number(last_b, decimals)} against {format_number(last_a, decimals)}, {shown}"
    if pair["low"] is None or pair["high"] is None:
        return shown
    low, high = (format_number(pair[end], decimals, signed=True) for end in ("low", "high"))
    contains = ", which contains 0" if pair["low"] <= 0 <= pair["high"] else ""
    return f"{shown} (95 % interval {low} to {high}{contains})"
