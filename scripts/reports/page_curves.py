# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The curves of `ggdr report`: its plots, and their points, few enough for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ggdr.scripts.reports.panels import Lines, group_panels
from ggdr.torch_utils.untrusted.json_text import is_finite

if TYPE_CHECKING:
    from ggdr.scripts.reports.read_run import Run

MAX_POINTS = 2000  # of a curve; a plot is about 500 pixels wide
DIGITS = 6  # significant ones of a value on the page


def chart_plots(runs: Sequence[Run], most: int = MAX_POINTS) -> list[dict[str, Any]]:
    """The plots that some run has a number for: metrics, then what runs declare, details last.

    Args:
        most: points of a curve that are kept.

    Returns:
        [{"title", "unit", "axis", "is_metric",
          "curves": [{"name", "series": [as of `series`, one for each run]}]}].
    """
    panels = [panel for run in runs for panel in run.metrics] + [panel for run in runs for panel in run.panels]
    plots = group_panels(panels, [run.lines for run in runs])
    return [
        {
            "title": plot.title,
            "unit": plot.unit,
            "axis": plot.axis,
            "is_metric": plot.is_metric,
            "curves": [
                {"name": panel.label, "series": [series(run.lines, panel.name, most) for run in runs]}
                for panel in plot.panels
            ],
        }
        for plot in sorted(plots, key=lambda plot: plot.is_detail)
    ]


def series(lines: Lines, key: str, most: int = MAX_POINTS) -> dict[str, Any] | None:
    """One curve of one run.

    Returns:
        x, y:   kimg and values, None being a gap; thinned to `most` points, spikes and ends included.
        num:    points before thinning.
        mean_x, mean_y: if it was thinned, also the means of even parts of the curve, which may be smoothed further
                without a bias towards the spikes.
        None if there is no number.
    """
    points = [(line["kimg"], line[key] if is_finite(line[key]) else None) for line in lines if key in line]
    x, y = [kimg for kimg, _ in points], [value for _, value in points]
    if all(value is None for value in y):
        return None
    kept = thinned(y, most)
    found = {"x": [round(x[i], 3) for i in kept], "y": [_rounded(y[i]) for i in kept], "num": len(y)}
    if len(kept) < len(y):
        means = [(_mean(x[part]), _mean(y[part])) for part in _parts(len(y), most // 2)]
        found |= {"mean_x": [round(kimg, 3) for kimg, _ in means], "mean_y": [_rounded(value) for _, value in means]}
    return found


def thinned(values: Sequence[float | None], most: int) -> list[int]:
    """Indices of at most `most` values (8 or more): the ends, and of even parts the least, the greatest and a gap."""
    if len(values) <= most:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    for part in _parts(len(values), (most - 2) // 3):
        indices = range(len(values))[part]
        numbers = [i for i in indices if values[i] is not None]
        if numbers:
            kept |= {min(numbers, key=values.__getitem__), max(numbers, key=values.__getitem__)}
        gap = next((i for i in indices if values[i] is None), None)
        kept |= set() if gap is None else {gap}
    return sorted(kept)


def _parts(length: int, num: int) -> list[slice]:
    """`num` slices of even size that make up the whole."""
    bounds = [i * length // num for i in range(num + 1)]
    return [slice(start, end) for start, end in zip(bounds, bounds[1:], strict=False)]


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
