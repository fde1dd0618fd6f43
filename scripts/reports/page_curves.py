# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The curves of `ggdr report`: which panels there are, and their points, few enough for a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggdr.scripts.curves import PANELS, Panel, metric_panels
from ggdr.scripts.reports.read_run import finite_number

MAX_POINTS = 2000  # of a curve; a panel is about 500 pixels wide
DIGITS = 6  # significant ones of a value on the page
MORE_PANELS = (
    Panel("Discriminator signs", "mean sign of the logit", (("sign/real", "real"), ("sign/fake", "fake"))),
    Panel("Regularisation losses", "loss", (("loss/D_r1", "R1"), ("loss/G_pl", "path length"))),
    Panel(
        "Gradient norms",
        "L2 norm",
        (("grad_norm/D", "D"), ("grad_norm/G", "G"), ("grad_norm/D_r1", "R1"), ("grad_norm/G_pl", "path length")),
    ),
    Panel("Memory", "GiB", (("memory/cpu", "process"), ("memory/gpu", "GPU, peak"))),
)
LOG_PANELS = ("Gradient norms", "Regularisation losses")  # whose curves lie decades apart
ZERO_PANELS = ("ADA probability", "Memory", "Training time")  # whose axis begins at 0

Lines = Sequence[Mapping[str, Any]]


def chart_panels(runs: Mapping[str, Lines], most: int = MAX_POINTS) -> list[dict[str, Any]]:
    """The panels that some run has a number for, metrics first.

    Args:
        runs: each run's lines {"kimg": .., KEY: number or None}; of one key by kimg.
        most: points of a curve that are kept.

    Returns:
        [{"title", "ylabel", "log", "zero", "curves": [{"name", "series": [as of `series`, one for each run]}]}].
    """
    panels = []
    for panel in (*metric_panels({name: list(lines) for name, lines in runs.items()}), *PANELS, *MORE_PANELS):
        curves = [
            {"name": name, "series": [series(lines, key, most) for lines in runs.values()]}
            for key, name in panel.curves
        ]
        curves = [curve for curve in curves if any(curve["series"])]
        if curves:
            about = {"title": panel.title, "ylabel": panel.ylabel}
            about |= {"log": panel.title in LOG_PANELS, "zero": panel.title in ZERO_PANELS}
            panels.append({**about, "curves": curves})
    return panels


def series(lines: Lines, key: str, most: int = MAX_POINTS) -> dict[str, Any] | None:
    """One curve of one run.

    Returns:
        x, y:   kimg and values, None being a gap; thinned to `most` points, spikes and ends included.
        num:    points before thinning.
        mean_x, mean_y: if it was thinned, also the means of even parts of the curve, which may be smoothed further
                without a bias towards the spikes.
        None if there is no number.
    """
    points = [(line["kimg"], finite_number(line[key])) for line in lines if key in line]
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
