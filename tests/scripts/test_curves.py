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

from ggdr.scripts import curves
from ggdr.scripts.curves import main, plot_runs, read_metrics
from tests.conftest import ROOT

KEYS = (
    "loss/D", "loss/G", "score/real", "score/fake", "ada/p", "ggdr/distance", "time/sec_per_kimg",
)  # fmt: skip


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


def make_run(run_dir: Path, stats: list[dict] | None = None) -> str:
    run_dir.mkdir(parents=True)
    lines = run_stats() if stats is None else stats
    (run_dir / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(run_dir)


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


def test_every_quantity_has_its_panel(tmp_path, drawn):
    plot_runs({"run": run_stats()}, tmp_path / "x.png")
    titles = [ax.get_title(loc="left") for ax in drawn[0].axes]
    assert titles == [panel.title for panel in curves.PANELS]
    assert [len(ax.lines) for ax in drawn[0].axes] == [2, 2, 1, 1, 1]
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_curves_show_the_numbers_of_their_key(tmp_path, drawn):
    stats = run_stats(3)
    plot_runs({"run": stats}, tmp_path / "x.png")
    losses = drawn[0].axes[0]
    for line, key in zip(losses.lines, ("loss/D", "loss/G"), strict=True):
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == [record[key] for record in stats]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["D", "G"]
    assert [line.get_color() for line in losses.get_legend().get_lines()] == [line.get_color() for line in losses.lines]


def test_panels_without_numbers_in_any_run_are_left_out(tmp_path, drawn):
    nulls = [{**record, "ada/p": None} for record in run_stats(keys=("loss/D", "ggdr/distance"))]
    plot_runs({"a": nulls, "b": run_stats(keys=("loss/D",))}, tmp_path / "x.png")
    assert [ax.get_title(loc="left") for ax in drawn[0].axes] == ["Losses", "GGDR cosine distance"]
    assert len(drawn[0].axes[1].lines) == 1


def test_runs_are_told_apart_by_colour_and_named_in_the_legend(tmp_path, drawn):
    plot_runs({"weight 0": run_stats(), "weight 10": run_stats(offset=5)}, tmp_path / "x.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["weight 0", "weight 10"]
    colors = [line.get_color() for line in legend.get_lines()]
    distance = drawn[0].axes[2]
    assert [line.get_color() for line in distance.lines] == colors and colors[0] != colors[1]
    assert distance.lines[0].get_ydata()[0] < distance.lines[1].get_ydata()[0]


def test_null_leaves_a_gap(tmp_path, drawn):
    stats = run_stats(5)
    stats[2]["loss/D"] = None
    plot_runs({"run": stats}, tmp_path / "x.png", smooth=True)
    for line in drawn[0].axes[0].lines[:2]:  # raw and smoothed
        assert [math.isnan(value) for value in line.get_ydata()] == [False, False, True, False, False]


def test_smoothing_keeps_constants_and_straight_lines_and_calms_noise():
    kimg = [float(i) for i in range(401)]
    assert curves.smoothed(kimg, [3.0] * 401) == pytest.approx([3.0] * 401)
    # An average of the past alone would trail behind.
    assert curves.smoothed(kimg, kimg)[50:-50] == pytest.approx(kimg[50:-50], abs=0.01)
    zigzag = curves.smoothed(kimg, [float(i % 2) for i in range(401)])
    assert all(0.4 < value < 0.6 for value in zigzag[20:-20])


def test_run_of_one_line_is_visible(tmp_path, drawn):
    plot_runs({"run": run_stats(1)}, tmp_path / "x.png", smooth=True)
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
