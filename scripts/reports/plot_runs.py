# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The picture of `ggdr curves`: training curves of one run, or of several overlaid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ggdr.scripts.reports.panels import Lines, Plot, group_panels
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.pictures.plot_style import COLORS, DASHES, plain_text, plot_style
from ggdr.torch_utils.untrusted.json_text import is_finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ggdr.scripts.reports.read_run import Run

SMOOTH_FRACTION = 0.01  # of the run's length: half-life of the moving average, to either side
MAX_PLOTS = 120  # what a picture can hold
MAX_COLUMNS = 6
MAX_NAMED = 24  # curves of a plot; a legend of more would be larger than the plot


def plot_runs(runs: Sequence[Run], path: Path, *, smooth: bool = False) -> None:
    """Draws the training curves of several runs into one picture: what they declare, without details, and metrics.

    Args:
        runs:   at most seven, which are told apart by colour. What no run has a number for is left out; what is no
                finite number is a gap.
        path:   the picture, .png, .pdf or .svg; appears whole or not at all.
        smooth: draw a moving average over the raw curves.

    Raises:
        ValueError: no run holds any number to draw, or all together have more plots than a picture can hold.
        OSError: `path` cannot be written.
    """
    panels = [panel for run in runs for panel in run.panels if not panel.detail]
    panels += [panel for run in runs for panel in run.metrics]
    plots = group_panels(panels, [run.lines for run in runs])
    if not plots:
        raise ValueError(f"nothing to draw: no run has a number for any curve yet: {[run.name for run in runs]}")
    if len(plots) > MAX_PLOTS:
        raise ValueError(f"got {len(plots)} plots of {len(runs)} runs, expected {MAX_PLOTS} at most")
    columns = _num_columns(len(plots))
    rows = -(-len(plots) // columns)  # rounded up

    with plot_style():
        figure = Figure(figsize=(4.2 * columns, 2.9 * rows), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)  # no window system, whatever backend is configured
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(plots) :]:
            ax.remove()
        for ax, plot in zip(axes.flat, plots, strict=False):
            _draw_plot(ax, plot, [run.lines for run in runs], smooth=smooth)
        if len(runs) > 1:
            handles = [
                Line2D([], [], color=COLORS[i], linewidth=2.5, label=plain_text(run.name)) for i, run in enumerate(runs)
            ]
            figure.legend(handles=handles, loc="outside upper center", ncols=columns, fontsize=10)
        else:
            figure.suptitle(plain_text(runs[0].name), fontsize=11)
        with atomic_write(path) as file:
            figure.savefig(file, format=path.suffix[1:].lower() or "png")


def _draw_plot(ax: Axes, plot: Plot, runs: Sequence[Lines], *, smooth: bool) -> None:
    """Draws one plot. One run: each curve has a colour. Several: each run has a colour, each curve dashes."""
    several, handles, drawn = len(runs) > 1, [], []
    for j, panel in enumerate(plot.panels):
        curve_color, dashes = COLORS[j % len(COLORS)], DASHES[j % len(DASHES)] if several else "-"
        for i, lines in enumerate(runs):
            kimg, values = _series(lines, panel.name)
            if not any(map(math.isfinite, values)):
                continue
            drawn += filter(math.isfinite, values)
            color = COLORS[i] if several else curve_color
            # A run with one point has no line to show.
            marker = {"marker": "o", "markersize": 3} if len(kimg) == 1 else {}
            if smooth and len(kimg) > 2:
                ax.plot(kimg, values, color=color, linewidth=0.7, alpha=0.25)
                values = smoothed(kimg, values)
            ax.plot(kimg, values, color=color, linestyle=dashes, linewidth=1.5, **marker)
        legend_color = "#444444" if several else curve_color
        handles.append(Line2D([], [], color=legend_color, linestyle=dashes, label=plain_text(panel.label)))
    if 1 < len(handles) <= MAX_NAMED:
        small = {"fontsize": 6, "ncols": 3} if len(handles) > MAX_NAMED // 3 else {}
        ax.legend(handles=handles, loc="best", handlelength=2.4, **small)
    ax.set(title=plain_text(plot.title), xlabel="kimg", ylabel=plain_text(plot.unit))
    if plot.axis == "log" and min(drawn) > 0:
        ax.set_yscale("log")
    else:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        if plot.axis == "zero" and min(drawn) >= 0:
            ax.set_ylim(bottom=0)
            # A curve that is 0 lies on the axis: let it show there.
            for line in ax.lines:
                line.set(clip_on=False, zorder=3)
    ax.margins(x=0.01)


def _series(lines: Lines, key: str) -> tuple[list[float], list[float]]:
    """kimg and value of the lines that have `key`; what is no finite number is NaN, which leaves a gap."""
    points = [(line["kimg"], line[key]) for line in lines if key in line]
    return [kimg for kimg, _ in points], [value if is_finite(value) else math.nan for _, value in points]


def smoothed(kimg: list[float], values: list[float]) -> list[float]:
    """Average with weights that halve with every `SMOOTH_FRACTION` of the run, to both sides; gaps stay.

    Both sides, since an average of the past alone trails behind a falling curve.
    """
    half_life = max((kimg[-1] - kimg[0]) * SMOOTH_FRACTION, 1e-9)
    sums = [[0.0, 0.0] for _ in values]  # weighted sum of values, sum of weights
    for order in (range(len(values)), range(len(values) - 1, -1, -1)):
        total = weight = 0.0
        last = kimg[order[0]]
        for i in order:
            decay = 0.5 ** (abs(kimg[i] - last) / half_life)
            total, weight, last = total * decay, weight * decay, kimg[i]
            if math.isfinite(values[i]):
                # The point itself counts in both passes, half in each.
                sums[i][0] += total + values[i] / 2
                sums[i][1] += weight + 0.5
                total, weight = total + values[i], weight + 1
    return [total / weight if weight else math.nan for total, weight in sums]


def _num_columns(num_plots: int) -> int:
    """Two rows from four plots on, one below; of very many more rows."""
    return num_plots if num_plots < 4 else min(-(-num_plots // 2), MAX_COLUMNS)
