# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr curves`: which panels and curves are drawn, and what it says about bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from PIL import Image

from ggdr.scripts.curves import main
from ggdr.scripts.reports.panels import read_metrics
from ggdr.scripts.reports.plot_runs import plot_runs, smoothed
from ggdr.scripts.reports.read_run import read_run
from tests.conftest import ROOT
from tests.report_runs import PANELS, panel

KEYS = tuple(entry["name"] for entry in PANELS)


def run_stats(num: int = 20, keys: tuple[str, ...] = KEYS, offset: float = 0.0) -> list[dict]:
    return [
        {
            "nimg": 1000 * i,
            "kimg": float(i),
            "time": 0.0,
            **{key: offset + j + 1 / i for j, key in enumerate(keys)},
        }
        for i in range(1, num + 1)
    ]


def make_run(run_dir: Path, stats: list[dict] | None = None, panels: object = PANELS) -> str:
    """A run folder that says what these tests need; without training_options.json if `panels` is None."""
    run_dir.mkdir(parents=True)
    lines = run_stats() if stats is None else stats
    (run_dir / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if panels is not None:
        (run_dir / "training_options.json").write_text(json.dumps({"command": {}, "panels": panels}))
    return str(run_dir)


def plot(folder: Path, runs: dict[str, list[dict]], *, panels: object = PANELS, smooth: bool = False) -> list[str]:
    """Draws runs of these lines into x.png in `folder`; the notes on them."""
    found = [read_run(Path(make_run(folder / name, lines, panels)), name) for name, lines in runs.items()]
    plot_runs(found, folder / "x.png", smooth=smooth)
    return [note for run in found for note in run.notes]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


@pytest.fixture
def drawn(monkeypatch):
    """The figure as it was saved."""
    figures: list[Figure] = []
    real_savefig = Figure.savefig

    def savefig(self, *args, **kwargs):
        figures.append(self)
        real_savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_declared_values_share_the_plot_of_their_group_and_details_are_left_out(tmp_path, drawn):
    plot(tmp_path, {"run": run_stats()})
    assert titles(drawn[0]) == list(dict.fromkeys(entry["group"] for entry in PANELS if not entry["detail"]))
    assert [len(ax.lines) for ax in drawn[0].axes] == [2, 2, 1, 1, 1]
    assert [ax.get_ylabel() for ax in drawn[0].axes][:3] == ["loss", "mean logit", "1 - cosine similarity"]
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_curves_show_the_numbers_of_their_key(tmp_path, drawn):
    stats = run_stats(3)
    plot(tmp_path, {"run": stats})
    losses = drawn[0].axes[0]
    for line, key in zip(losses.lines, ("loss/D", "loss/G"), strict=True):
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == [record[key] for record in stats]
    assert labels(losses) == ["D", "G"]
    assert [line.get_color() for line in losses.get_legend().get_lines()] == [line.get_color() for line in losses.lines]


def test_values_that_only_another_host_has_are_plotted_as_it_declares_them(tmp_path, drawn):
    panels = [
        panel("cycle/a", "photo", "Cycle $loss$", "L1"),
        panel("cycle/b", "map", "Cycle $loss$", "L1"),
        panel("odd/p", "p", "Odd", axis="zero"),
        panel("odd/norm", "norm", "Norms", axis="log"),
    ]
    names = tuple(entry["name"] for entry in panels)
    plot(tmp_path, {"run": run_stats(keys=(*names, "loss/D"), offset=5)}, panels=panels)
    assert titles(drawn[0]) == [r"Cycle \$loss\$", "Odd", "Norms"]  # dollars stay dollars
    assert labels(drawn[0].axes[0]) == ["photo", "map"]
    assert [ax.get_ylim()[0] == 0 for ax in drawn[0].axes] == [False, True, False]
    assert [ax.get_yscale() for ax in drawn[0].axes] == ["linear", "linear", "log"]


def test_a_log_axis_is_linear_where_a_value_is_not_positive_and_zero_does_not_cut(tmp_path, drawn):
    panels = [panel("a/x", "x", "Log", axis="log"), panel("a/y", "y", "Zero", axis="zero")]
    plot(tmp_path, {"run": run_stats(keys=("a/x", "a/y"), offset=-5)}, panels=panels)
    assert drawn[0].axes[0].get_yscale() == "linear"
    assert drawn[0].axes[1].get_ylim()[0] < -3


def test_a_curve_that_is_zero_shows_on_its_axis(tmp_path, drawn):
    stats = [{**line, "a/x": 0.0} for line in run_stats(keys=())]
    plot(tmp_path, {"run": stats}, panels=[panel("a/x", "x", "Zero", axis="zero")])
    (ax,) = drawn[0].axes
    (line,) = ax.lines
    x, y = ax.transData.transform((10, 0)).round().astype(int)
    with Image.open(tmp_path / "x.png") as picture:
        column = [picture.convert("RGB").getpixel((x, picture.height - 1 - y + i)) for i in (-1, 0, 1)]
    assert tuple(bytes.fromhex(line.get_color()[1:])) in column and ax.get_ylim()[0] == 0


def test_a_run_that_declares_nothing_has_a_plot_for_each_first_part_of_a_key(tmp_path, drawn):
    stats = run_stats(keys=("train/loss", "eval/loss", "train/acc", "lr", "result/evil"))
    stats[3] |= {"text/a": "x", "none/a": None}
    out = tmp_path / "x.png"
    result = invoke(make_run(tmp_path / "run", stats, panels=None), "--out", str(out))
    assert result.exit_code == 0 and "training_options.json" in result.output
    assert titles(drawn[0]) == ["train", "eval", "lr"]
    assert labels(drawn[0].axes[0]) == ["loss", "acc"]


def test_runs_that_declare_other_values_share_the_plots_of_the_same_group(tmp_path, drawn):
    a = make_run(tmp_path / "a", run_stats(), PANELS[:3])
    other = [panel("loss/F", "F", "Losses"), panel("loss/D", "mine", "Elsewhere"), panel("x/y", "y", "Own")]
    b = make_run(tmp_path / "b", run_stats(keys=("loss/F", "loss/D", "x/y")), other)
    assert invoke(a, b, "--out", str(tmp_path / "x.png")).exit_code == 0
    assert titles(drawn[0]) == ["Losses", "Discriminator scores", "Own"]
    # What both declare is drawn once, where the first one says.
    assert labels(drawn[0].axes[0]) == ["D", "G", "F"] and len(drawn[0].axes[0].lines) == 4


MALFORMED = [
    (5, "expected a list of panels, got int"),
    ({"loss/D": 1}, "expected a list of panels, got dict"),
    ([*PANELS, 7, {"name": 3, "group": "x"}, {"name": "loss/D"}], "3 of 18 panels are malformed"),
    ([*PANELS, panel("loss/G", "G", "x", axis="wide"), panel("loss/G", ["G"], "x")], "2 of 17 panels"),
    ([*PANELS, panel("loss/G", "G", "x", detail=1), panel("result/fid50k_full", "G", "x")], "2 of 17 panels"),
    ([*PANELS, *(panel(f"a/{i}", "a", f"{i}") for i in range(200))], "of 215 panels the first 100 are shown"),
]


@pytest.mark.parametrize(("panels", "message"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_panels_are_told_in_one_line_and_the_others_drawn(tmp_path, drawn, panels, message):
    keys = KEYS + tuple(f"a/{i}" for i in range(200) if "of 215" in message)
    out = tmp_path / "x.png"
    result = invoke(make_run(tmp_path / "run", run_stats(2, keys), panels), "--out", str(out))
    assert result.exit_code == 0, result.output
    (note,) = [line for line in result.output.splitlines() if line.startswith("note: ")]
    assert message in note
    assert len(drawn[0].axes) <= 100 and ("Losses" in titles(drawn[0]) or "loss" in titles(drawn[0]))


def test_labels_of_strangers_are_printable_and_short(tmp_path, drawn):
    panels = [panel("a/b", "l\x1b[2J", "t" * 1000, "\n$"), panel("a/c", "c", "t" * 1000)]
    plot(tmp_path, {"run": run_stats(keys=("a/b", "a/c"))}, panels=panels)
    (ax,) = drawn[0].axes
    assert len(ax.get_title(loc="left")) < 100 and ax.get_ylabel() == r"\n\$"
    assert labels(ax)[0] == r"l\x1b[2J"


def test_more_curves_than_colours_and_dashes_begin_again(tmp_path, drawn):
    panels = [panel(f"a/{i}", str(i), "Many") for i in range(9)]
    stats = run_stats(keys=tuple(entry["name"] for entry in panels))
    plot(tmp_path / "one", {"run": stats}, panels=panels)
    plot(tmp_path / "two", {"a": stats, "b": stats}, panels=panels)
    colors = [line.get_color() for line in drawn[0].axes[0].lines]
    assert colors[7:] == colors[:2] and len(set(colors)) == 7
    assert len(drawn[1].axes[0].lines) == 18


def test_more_plots_than_a_picture_holds_are_refused(tmp_path):
    stats = [{"nimg": 1000, **{f"{i}/a": 1.0 for i in range(100)}}, {"nimg": 2000}]
    others = [{"nimg": 1000, **{f"x{i}/a": 1.0 for i in range(100)}}]
    runs = [make_run(tmp_path / "a", stats, None), make_run(tmp_path / "b", others, None)]
    result = invoke(*runs, "--out", str(tmp_path / "x.png"))
    assert result.exit_code == 2 and "200 plots" in result.output and not (tmp_path / "x.png").exists()


def test_plots_without_numbers_in_any_run_are_left_out(tmp_path, drawn):
    nulls = [{**record, "ada/p": None} for record in run_stats(keys=("loss/D", "ggdr/distance"))]
    plot(tmp_path, {"a": nulls, "b": run_stats(keys=("loss/D",))})
    assert titles(drawn[0]) == ["Losses", "GGDR cosine distance"]
    assert len(drawn[0].axes[1].lines) == 1


def test_runs_are_told_apart_by_colour_and_named_in_the_legend(tmp_path, drawn):
    plot(tmp_path, {"weight 0": run_stats(), "weight 10": run_stats(offset=5)})
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["weight 0", "weight 10"]
    colors = [line.get_color() for line in legend.get_lines()]
    distance = drawn[0].axes[2]
    assert [line.get_color() for line in distance.lines] == colors and colors[0] != colors[1]
    assert distance.lines[0].get_ydata()[0] < distance.lines[1].get_ydata()[0]


def test_null_leaves_a_gap(tmp_path, drawn):
    stats = run_stats(5)
    stats[2]["loss/D"] = None
    plot(tmp_path, {"run": stats}, smooth=True)
    for line in drawn[0].axes[0].lines[:2]:  # raw and smoothed
        assert [math.isnan(value) for value in line.get_ydata()] == [False, False, True, False, False]


def test_smoothing_keeps_constants_and_straight_lines_and_calms_noise():
    kimg = [float(i) for i in range(401)]
    assert smoothed(kimg, [3.0] * 401) == pytest.approx([3.0] * 401)
    # An average of the past alone would trail behind.
    assert smoothed(kimg, kimg)[50:-50] == pytest.approx(kimg[50:-50], abs=0.01)
    zigzag = smoothed(kimg, [float(i % 2) for i in range(401)])
    assert all(0.4 < value < 0.6 for value in zigzag[20:-20])


def test_run_of_one_line_is_visible(tmp_path, drawn):
    plot(tmp_path, {"run": run_stats(1)}, smooth=True)
    assert drawn[0].axes[0].lines[0].get_marker() == "o"


@pytest.mark.parametrize(("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_file_format_goes_by_the_name(tmp_path, suffix: str, start: bytes):
    out = tmp_path / f"x.{suffix}"
    result = invoke(make_run(tmp_path / "run"), "--out", str(out), "--smooth")
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(start)
    assert f"written to {out}" in result.output


def test_legend_takes_labels_or_folder_names(tmp_path, drawn):
    run_dirs = [
        make_run(tmp_path / "a" / "00000"),
        make_run(tmp_path / "a" / "00001"),
        make_run(tmp_path / "b" / "00000"),
    ]
    out = str(tmp_path / "x.png")
    assert invoke(*run_dirs[:2], "--out", out).exit_code == 0
    assert invoke(*run_dirs[:2], "--out", out, "--label", "without", "--label", "with").exit_code == 0
    assert invoke(run_dirs[0], run_dirs[2], "--out", out).exit_code == 0
    texts = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert texts == [["00000", "00001"], ["without", "with"], [run_dirs[0], run_dirs[2]]]


def test_bad_input_is_named_and_the_old_picture_stays(tmp_path):
    good = make_run(tmp_path / "good")
    broken = make_run(tmp_path / "broken")
    (tmp_path / "broken" / "stats.jsonl").write_text('{"nimg": 1}\nnonsense\n{"nimg": 2}\n')
    empty = make_run(tmp_path / "empty", [])
    many = [make_run(tmp_path / f"many{i}") for i in range(8)]
    out = tmp_path / "x.png"
    out.write_bytes(b"old")
    for args, messages in (
        ([str(tmp_path / "nowhere")], ["nowhere", "stats.jsonl"]),
        ([broken], ["broken", "line 2", "nonsense"]),
        ([empty], ["nothing to draw", "empty"]),
        ([good, good], ["--label", "good"]),
        ([good, "--label", "a", "--label", "b"], ["2 labels for 1 runs"]),
        (many, ["8 runs", "7 at most"]),
    ):
        result = invoke(*args, "--out", str(out))
        assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
        for message in messages:
            assert message in " ".join(result.output.split())
        assert out.read_bytes() == b"old"
    for bad_out in ("x.gif", "nowhere/x.png"):
        result = invoke(good, "--out", str(tmp_path / bad_out))
        assert result.exit_code == 2 and "--out" in result.output


def test_module_runs_as_a_script_and_help_loads_no_heavy_package():
    code = (
        "import sys, ggdr.scripts.curves, ggdr.scripts.generate\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.argv[1:] = ['--help']\n"
        "ggdr.scripts.curves.main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("  ggdr curves runs/") == 2


def test_a_half_written_last_line_of_a_metric_is_left_out(tmp_path):
    line = json.dumps({"metric": "fd_offline1k_full", "results": {"fd_offline1k_full": 3.5}, "kimg": 2})
    path = tmp_path / "metric-fd_offline1k_full.jsonl"
    path.write_text(f"{line}\n{line[:20]}")
    assert read_metrics(tmp_path) == [{"kimg": 2, "result/fd_offline1k_full": 3.5}]
    path.write_text(f"{line[:20]}\n{line}\n")
    with pytest.raises(ValueError, match="line 1: expected a metric's result"):
        read_metrics(tmp_path)
