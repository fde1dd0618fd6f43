# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Curves over seeds: mean, least and greatest value at each kimg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggdr.scripts.reports.page_curves import DIGITS
from ggdr.scripts.studies.lenient import MAX_NAME, listed, mapping, mappings, number, text

MAX_POINTS = 300  # of a curve; a longer one is drawn as the means of so many even parts

Points = Sequence[tuple[float, float]]


def study_charts(
    data: Mapping[str, Any], variants: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The charts that some run has a number for: metrics, then what runs declare.

    Args:
        data:              as `results.py` makes it.
        variants, metrics: in the shape of `page_data`.

    Returns:
        [{"title", "unit", "is_metric", "decimals": of a metric, else None,
          "curves": [as of `band`, one for each variant, or None]}].
    """
    raw = {}
    for entry in mappings(data.get("variants")):
        raw.setdefault(entry.get("name") if isinstance(entry.get("name"), str) else None, mappings(entry.get("runs")))
    wanted = [
        ("metrics", metric["name"], metric["name"], f"{metric['better']} is better", metric) for metric in metrics
    ]
    seen = set()
    for panel in mappings(data.get("panels")):
        key = panel.get("key")
        if isinstance(key, str) and key not in seen:
            seen.add(key)
            group, title = text(panel.get("group"), MAX_NAME), text(panel.get("title"), MAX_NAME) or text(key, MAX_NAME)
            name = f"{group}: {title}" if group and group != title else title
            wanted.append(("curves", key, name, text(panel.get("unit"), MAX_NAME), None))
    charts = []
    for part, key, title, unit, metric in wanted:
        curves = []
        for variant in variants:
            runs = raw.get(variant["name"], [])
            curves.append(
                band([(text(run.get("seed"), MAX_NAME), points(mapping(run.get(part)).get(key))) for run in runs])
            )
        if any(curves):
            about = {"title": title, "unit": unit, "is_metric": metric is not None}
            charts.append({**about, "decimals": metric and metric["decimals"], "curves": curves})
    return charts


def points(value: Any) -> Points:
    """The pairs of finite numbers in a list of [kimg, value], by kimg; of several at one kimg the last."""
    pairs = (tuple(map(number, pair)) for pair in map(listed, listed(value)))
    found = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and None not in pair}
    return sorted(found.items())


def band(runs: Sequence[tuple[str, Points]], most: int = MAX_POINTS) -> dict[str, Any] | None:
    """The curves of a variant's seeds at common kimg, and what spans them.

    Between its points a seed's curve is a straight line; before its first and after its last it has no value, and the
    others make up the mean. Where there are more than `most` points, each is the mean of an even part.

    Args:
        runs: (seed, points) of each run.

    Returns:
        {"x": kimg, "mean", "low", "high", "seeds": [{"seed", "y": values or None}]}; None if there is no point.
    """
    import numpy as np

    runs = [(seed, np.array(found).T) for seed, found in runs if len(found)]
    if not runs:
        return None
    x = np.unique(np.concatenate([kimg for _, (kimg, _) in runs]))
    if len(x) > most:
        edges = np.linspace(x[0], x[-1], most + 1)
        x, rows = (edges[:-1] + edges[1:]) / 2, [_part_means(kimg, y, edges) for _, (kimg, y) in runs]
    else:
        rows = [np.interp(x, kimg, y, left=np.nan, right=np.nan) for _, (kimg, y) in runs]
    values = np.stack(rows)
    some = ~np.isnan(values).all(axis=0)
    x, values = x[some], values[:, some]
    spans = {name: _rounded(span(values, axis=0)) for name, span in (("low", np.nanmin), ("high", np.nanmax))}
    seeds = [{"seed": seed, "y": _rounded(row)} for (seed, _), row in zip(runs, values, strict=True)]
    return {"x": [round(float(kimg), 3) for kimg in x], "mean": _rounded(_mean(values)), **spans, "seeds": seeds}


def _mean(values: Any) -> Any:
    """The mean over seeds [num_seeds, num_points]; halves first, as sums of the greatest numbers overflow."""
    import numpy as np

    count = (~np.isnan(values)).sum(axis=0)
    return np.nansum(values / count, axis=0)


def _part_means(kimg: Any, y: Any, edges: Any) -> Any:
    """The mean of a curve in each part; nan where it has no point."""
    import numpy as np

    part = np.clip(np.searchsorted(edges, kimg, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(part, minlength=len(edges) - 1)
    return np.where(count, np.bincount(part, y, minlength=len(edges) - 1) / np.maximum(count, 1), np.nan)


def _rounded(values: Any) -> list[float | None]:
    return [None if value != value else float(f"{value:.{DIGITS}g}") for value in values]
