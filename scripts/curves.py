# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr curves`: training curves of one run, or of several overlaid, as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ggdr.metrics.names import parse_metric
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Panel(NamedTuple):
    """One plot: title, axis label, and each curve's key in stats.jsonl with its name in the legend."""

    title: str
    ylabel: str
    curves: tuple[tuple[str, str], ...]


PANELS = (
    Panel("Losses", "loss", (("loss/D", "D"), ("loss/G", "G"))),
    Panel("Discriminator scores", "mean logit", (("score/real", "real"), ("score/fake", "fake"))),
    Panel("GGDR cosine distance", "1 − cosine similarity", (("ggdr/distance", "GGDR"),)),
    Panel("ADA probability", "augmentation p", (("ada/p", "p"),)),
    Panel("Training time", "seconds per kimg", (("time/sec_per_kimg", "time"),)),
)
# Okabe and Ito's palette, told apart with every kind of colour vision; black comes last, yellow is left out.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
METRIC = "result/"  # what the keys of metrics begin with
_VALUE = re.compile(r"(.*?)(?:_(mean|std|precision|recall|density|coverage))?")  # metric, and which value of it
SMOOTH_FRACTION = 0.01  # of the run's length: half-life of the moving average, to either side
FORMATS = (".png", ".pdf", ".svg")
STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666666",
    "axes.grid": True, "grid.color": "#E3E3E3", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "xtick.color": "#444444", "ytick.color": "#444444", "legend.frameon": False, "svg.fonttype": "none",
}  # fmt: skip


run_dirs_argument = click.argument(
    "run_dirs", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
label_option = click.option(
    "--label",
    "labels",
    metavar="NAME",
    multiple=True,
    show_default="the folders' names",
    help="What to call each run, in order.",
)

EXAMPLES = """\b
Examples:
  ggdr curves runs/digits --out digits.png --smooth
  ggdr curves runs/probe runs/ggdr --label "weight 0" --label "weight 10" --out ggdr.pdf
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@run_dirs_argument
@click.option(
    "--out",
    metavar="FILE",
    default="curves.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture to write: .png, .pdf or .svg.",
)
@label_option
@click.option("--smooth", is_flag=True, help="Draw a moving average over the raw curves.")
def main(run_dirs: tuple[Path, ...], out: Path, labels: tuple[str, ...], smooth: bool) -> None:
    """Draw training curves from the stats.jsonl and metric-*.jsonl of one or more run folders.

    Losses, D's scores, the GGDR cosine distance, ADA p, seconds per kimg and every metric, over kimg. Panels that
    no run has numbers for are left out.
    """
    from ggdr.torch_utils.runlog import read_stats

    try:
        names = run_names(run_dirs, labels)
    except ValueError as err:
        raise bad_parameter(str(err), "--label") from err
    if out.suffix.lower() not in FORMATS:
        raise bad_parameter(f"{out}: expected a name ending in .png, .pdf or .svg", "--out")
    try:
        runs = {
            name: [{**line, "kimg": line["nimg"] / 1000} for line in read_stats(run_dir)] + read_metrics(run_dir)
            for name, run_dir in zip(names, run_dirs, strict=True)
        }
        plot_runs(runs, out, smooth=smooth)
    except ValueError as err:
        raise bad_parameter(str(err), "RUN_DIR...") from err
    except OSError as err:
        raise bad_parameter(f"cannot write {out}: {err.strerror or err}", "--out") from err
    click.echo(f"curves of {printable(', '.join(names))} written to {out}")


def run_names(run_dirs: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """A name for each run: its label; without labels its folder's name, or its whole path where that is ambiguous.

    Raises:
        ValueError: labels that are not as many as runs, or two runs of one name.
    """
    if labels and len(labels) != len(run_dirs):
        raise ValueError(f"got {len(labels)} labels for {len(run_dirs)} runs, expected one each")
    names = list(labels) or [path.resolve().name for path in run_dirs]
    if not labels and len(set(names)) != len(names):
        names = [str(path) for path in run_dirs]
    if len(set(names)) != len(names):
        raise ValueError(f"expected another label for each run, got {names}")
    return names


def read_metrics(run_dir: str | Path) -> list[dict]:
    """The lines of a run's metric-NAME.jsonl, by kimg: {"kimg": .., "result/fid50k_full": ..}.

    Of a snapshot measured twice the last line counts. Lines without kimg, of images of no run, are left out, and so
    is a last line that is only half written.

    Raises:
        ValueError: a line is no result of a metric.
    """
    lines = []
    for path in sorted(path for path in Path(run_dir).glob("metric-*.jsonl") if path.is_file()):
        found = {}
        content = path.read_text(errors="replace")
        for number, text in enumerate(content[: content.rfind("\n") + 1].splitlines(), start=1):
            try:
                record = parse_json(text)
                name, results = parse_metric(record["metric"]).name, dict(record["results"])
                kimg = record.get("kimg")
                if not (kimg is None or is_finite(kimg)):
                    raise ValueError(f"kimg {kimg!r}")
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                shown = printable(text, 60)
                raise ValueError(f"{path}, line {number}: expected a metric's result, got {shown!r}") from error
            if kimg is not None:
                found[kimg] = {f"{METRIC}{name}{key.removeprefix(name)}": v for key, v in results.items()}
        lines += [{"kimg": kimg, **found[kimg]} for kimg in sorted(found)]
    return lines


def metric_panels(runs: dict[str, list[dict]]) -> list[Panel]:
    """A panel for each metric in the runs, with a curve for each of its values but standard deviations."""
    keys = dict.fromkeys(key for stats in runs.values() for line in stats for key in line if key.startswith(METRIC))
    panels: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        match = _VALUE.fullmatch(key.removeprefix(METRIC))
        if match is not None and match[2] != "std" and _is_metric(match[1]):
            panels.setdefault(match[1], []).append((key, match[2] or match[1]))
    return [
        Panel(name, f"{'higher' if parse_metric(name).higher_is_better else 'lower'} is better", tuple(curves))
        for name, curves in panels.items()
    ]


def _is_metric(name: str) -> bool:
    try:
        parse_metric(name)
    except (ValueError, OverflowError):
        return False
    return True


def plot_runs(runs: dict[str, list[dict]], path: str | Path, *, smooth: bool = False) -> None:
    """Draw the training curves of several runs into one picture.

    Args:
        runs:   stats of each run (as `ggdr.torch_utils.runlog.read_stats` returns them) by its name in the legend.
                Each dict has `kimg`. A panel whose keys no run has is left out; what is no finite number is a gap.
        path:   the picture, .png, .pdf or .svg; appears whole or not at all.
        smooth: draw a moving average over the raw curves.

    Raises:
        ValueError: no run holds any number to draw, or there are more than seven runs.
        OSError: `path` cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ggdr.torch_utils.atomic_write import atomic_write

    if len(runs) > len(COLORS):
        raise ValueError(f"got {len(runs)} runs, expected {len(COLORS)} at most, told apart by colour")
    panels = [
        panel
        for panel in (*PANELS, *metric_panels(runs))
        if any(_has_number(stats, key) for stats in runs.values() for key, _ in panel.curves)
    ]
    if not panels:
        raise ValueError(f"nothing to draw: no run has a number for any curve yet (runs: {list(runs)})")
    columns = _num_columns(len(panels))
    rows = -(-len(panels) // columns)  # rounded up

    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * columns, 2.9 * rows), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)  # no window system, whatever backend is configured
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.remove()
        for ax, panel in zip(axes.flat, panels, strict=False):
            _draw_panel(ax, panel, runs, smooth=smooth)
        if len(runs) > 1:
            handles = [
                axes.flat[0].plot([], [], color=COLORS[i], linewidth=2.5, label=_label(name))[0]
                for i, name in enumerate(runs)
            ]
            figure.legend(handles=handles, loc="outside upper center", ncols=columns, fontsize=10)
        elif runs:
            figure.suptitle(_label(next(iter(runs))), fontsize=11)
        with atomic_write(Path(path)) as file:
            figure.savefig(file, format=Path(path).suffix[1:].lower() or "png")


def _label(name: str) -> str:
    """A name as it is: matplotlib takes what lies between dollars for a formula."""
    return printable(name).replace("$", r"\$")


def _draw_panel(ax: Axes, panel: Panel, runs: dict[str, list[dict]], *, smooth: bool) -> None:
    """Draw one panel. One run: each curve has a colour. Several: each run has a colour, each curve dashes."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    handles = []
    for j, (key, curve_name) in enumerate(panel.curves):
        for i, stats in enumerate(runs.values()):
            if not _has_number(stats, key):
                continue
            color = COLORS[i if len(runs) > 1 else j]
            dashes = DASHES[j] if len(runs) > 1 else "-"
            kimg, values = _series(stats, key)
            # A run with one point has no line to show.
            marker = {"marker": "o", "markersize": 3} if len(kimg) == 1 else {}
            if smooth and len(kimg) > 2:
                ax.plot(kimg, values, color=color, linewidth=0.7, alpha=0.25)
                values = smoothed(kimg, values)
            ax.plot(kimg, values, color=color, linestyle=dashes, linewidth=1.5, **marker)
        legend_color = "#444444" if len(runs) > 1 else COLORS[j]
        legend_dashes = DASHES[j] if len(runs) > 1 else "-"
        handles.append(Line2D([], [], color=legend_color, linestyle=legend_dashes, label=curve_name))
    if len(panel.curves) > 1:
        ax.legend(handles=handles, loc="best", handlelength=2.4)
    if panel.title == "ADA probability":
        ax.set_ylim(bottom=0)
    ax.set(title=panel.title, xlabel="kimg", ylabel=panel.ylabel)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    ax.margins(x=0.01)


def _series(stats: list[dict], key: str) -> tuple[list[float], list[float]]:
    """kimg and value of the lines that have `key`; what is no finite number is NaN, which leaves a gap."""
    points = [(line["kimg"], line[key]) for line in stats if key in line]
    return [kimg for kimg, _ in points], [value if is_finite(value) else math.nan for _, value in points]


def _has_number(stats: list[dict], key: str) -> bool:
    return any(is_finite(line.get(key)) for line in stats)


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


def _num_columns(num_panels: int) -> int:
    """Two rows from four panels on, one below."""
    return num_panels if num_panels < 4 else -(-num_panels // 2)
