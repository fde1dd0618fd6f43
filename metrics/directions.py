# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One result of a metric from those of several directions of translation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ggdr.metrics.evaluate import MetricResult


def merge_directions(results: Mapping[str, Sequence[MetricResult]]) -> list[MetricResult]:
    """The mean over directions of each value, and after all means the values of each direction.

    Args:
        results: of the same metrics in the same order, by direction, as "AtoB".

    Returns:
        As many; values of a direction have its name at their end: {"fd_lite0.5k_full": mean,
        "fd_lite0.5k_full_AtoB": .., "fd_lite0.5k_full_BtoA": ..}. Of one direction alone, its results.
    """
    (first, *others) = results.values()
    return list(first) if not others else [_merge(dict(zip(results, each))) for each in zip(*results.values())]  # noqa: B905


def _merge(by_direction: Mapping[str, MetricResult]) -> MetricResult:
    """One metric's."""
    first = next(iter(by_direction.values()))
    values = {name: statistics.fmean(x.values[name] for x in by_direction.values()) for name in first.values}
    values |= {f"{name}_{way}": value for way, x in by_direction.items() for name, value in x.values.items()}
    differing = {key for x in by_direction.values() for key in x.choices if x.choices[key] != first.choices.get(key)}
    choices = {key: value for key, value in first.choices.items() if key not in differing}
    choices["directions"] = {
        way: {key: x.choices.get(key) for key in sorted(differing)} for way, x in by_direction.items()
    }
    common = [text for text in first.warnings if all(text in x.warnings for x in by_direction.values())]
    own = [f"{way}: {text}" for way, x in by_direction.items() for text in x.warnings if text not in common]
    seconds = sum(x.seconds for x in by_direction.values())
    return MetricResult(first.name, values, choices, [*common, *own], seconds)
