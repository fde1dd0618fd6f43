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


def outcome(
    a: Mapping[str, Any], b: Mapping[str, Any], pair: Mapping[str, Any], metric: Mapping[str, Any]
) -> Outcome | None:
    """Whether variant `b` is better than the baseline `a` by a metric; None if no seed of both has a value.

    Args:
        a, b:   variants: {"name", "summary": {metric: {"values": {seed: value}}}}.
        pair:   their paired differences b - a.
        metric: {"name", "better", "decimals"}.
    """
    if not pair["differences"] or pair["mean"] is None:
        return None
    names, by, sign = (b["name"], a["name"]), metric["name"], -1 if metric["better"] == "lower" else 1
    num, gain = len(pair["differences"]), sign * pair["mean"]
    wins = sum(sign * difference > 0 for difference in pair["differences"])
    losses = sum(sign * difference < 0 for difference in pair["differences"])
    numbers = _numbers(a, b, pair, metric)
    if num == 1:
        how = "better than" if gain > 0 else "worse than" if gain < 0 else "level with"
        sentence = f"{names[0]} is {how} {names[1]} in the only seed by {by}: {numbers}."
        return Outcome("single", f"{sentence} One seed cannot tell this from chance.")
    low, high = pair["low"], pair["high"]
    if low is None or high is None or low <= 0 <= high:
        sentence = f"No clear difference between {names[0]} and {names[1]} by {by}: {numbers}."
        return Outcome("unclear", f"{sentence} {names[0]} is better in {wins} of {num} seeds.")
    verdict, count = ("better", wins) if gain > 0 else ("worse", losses)
    return Outcome(verdict, f"{names[0]} is {verdict} than {names[1]} in {count} of {num} seeds by {by}: {numbers}.")


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


def written(value: float, decimals: int, *, signed: bool = False) -> str:
    """A number with a true minus; a plus too if `signed`."""
    shown = f"{value:.{decimals}f}" if abs(value) < 1e9 else f"{value:.3g}"
    return (f"+{shown}" if signed and value > 0 else shown).replace("-", "−")


def _numbers(a: Mapping[str, Any], b: Mapping[str, Any], pair: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """Both means, over the seeds of both, and the difference with its interval."""
    name, decimals = metric["name"], metric["decimals"]
    means = [_mean_over(variant["summary"].get(name, {}).get("values", {}), pair["seeds"]) for variant in (a, b)]
    shown = f"difference {written(pair['mean'], decimals, signed=True)}"
    if None not in means:
        shown = f"{written(means[1], decimals)} against {written(means[0], decimals)}, {shown}"
    if pair["low"] is None or pair["high"] is None:
        return shown
    low, high = (written(pair[end], decimals, signed=True) for end in ("low", "high"))
    contains = ", which contains 0" if pair["low"] <= 0 <= pair["high"] else ""
    return f"{shown} (95 % interval {low} to {high}{contains})"


def _mean_over(values: Mapping[str, float | None], seeds: Sequence[str]) -> float | None:
    """The mean of the values of these seeds; None if one is missing."""
    numbers = [values.get(seed) for seed in seeds]
    return None if None in numbers or not numbers else sum(numbers) / len(numbers)
