# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a report takes from a run: curves, settings and status, pictures."""

from __future__ import annotations

import shlex
import shutil

import numpy as np
import pytest
import torch

from ggdr.clusters import Clusters
from ggdr.scripts.reports import page_pictures
from ggdr.scripts.reports.page_curves import series, thinned
from ggdr.scripts.reports.read_run import command_line, machines, read_run, settings, snapshots, status
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.scripts.viewing.cluster_files import ClusterFolder
from ggdr.scripts.viewing.cluster_sheets import NetworkView
from ggdr.torch_utils.checkpoint import save_snapshot
from ggdr.torch_utils.pictures.images import save_image
from tests.conftest import ROOT
from tests.report_runs import (
    EVIL,
    METRIC,
    OPTIONS,
    PANELS,
    PICTURES,
    add_clusters,
    add_metric,
    data_of,
    grid,
    make_run,
    picture,
)

# Curves.


def test_thinning_keeps_ends_extremes_and_gaps():
    rng = np.random.RandomState(0)
    values = rng.rand(60_000).tolist()
    values[1234], values[40_001], values[777] = 50.0, -50.0, None
    kept = thinned(values, 2000)
    assert len(kept) <= 2000 and kept == sorted(set(kept))
    assert {0, 59_999, 1234, 40_001, 777} <= set(kept)
    # Every stretch of the curve is still as high and as low as it was.
    for start in range(0, 60_000, 5000):
        part = [v for v in values[start : start + 5000] if v is not None]
        shown = [values[i] for i in kept if start <= i < start + 5000 and values[i] is not None]
        assert (min(shown), max(shown)) == (min(part), max(part))
    assert thinned(values[:2000], 2000) == list(range(2000))


def test_means_of_a_thinned_curve_are_not_drawn_to_its_spikes():
    lines = [{"kimg": float(i), "loss": 100.0 if i % 100 == 0 else 1.0} for i in range(10_000)]
    found = series(lines, "loss", 200)
    assert found["num"] == 10_000 and max(found["y"]) == 100 and len(found["y"]) <= 200
    assert np.mean(found["mean_y"]) == pytest.approx(1.99)
    assert np.mean(found["y"]) > 10  # which the extremes themselves are
    assert "mean_y" not in series(lines[:200], "loss", 200)


def test_what_is_no_finite_number_is_a_gap():
    lines = [
        {"kimg": 1, "a": 1.0},
        {"kimg": 2, "a": None},
        {"kimg": 3},
        {"kimg": 4, "a": EVIL},
        {"kimg": 5, "a": 1e999},
    ]
    assert series(lines, "a")["y"] == [1.0, None, None, None]
    assert series(lines[1:2], "a") is None


def test_plots_begin_with_metrics_end_with_details_and_leave_out_what_no_run_has(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    add_metric(b, {4: 9.0, 8: 7.0})
    plots = data_of(a, b)["plots"]
    titles = [plot["title"] for plot in plots]
    assert titles == [
        METRIC, "Losses", "Discriminator scores", "GGDR cosine distance", "Training time",
        "Discriminator signs", "Regularisation losses", "Gradient norms", "Memory",
    ]  # fmt: skip
    assert plots[0]["curves"][0]["series"] == [None, {"x": [4, 8], "y": [9.0, 7.0], "num": 2}]
    assert (plots[0]["is_metric"], plots[0]["unit"], plots[1]["is_metric"]) == (True, "lower is better", False)
    losses = plots[1]["curves"]
    assert [curve["name"] for curve in losses] == ["D", "G"] and losses[1]["series"][0]["y"] == list(range(1, 13))
    assert [curve["name"] for curve in plots[titles.index("Gradient norms")]["curves"]] == ["D", "D_r1"]


def test_axes_and_units_are_those_that_the_run_declares(tmp_path):
    plots = {plot["title"]: plot for plot in data_of(make_run(tmp_path / "run"))["plots"]}
    axes = {entry["group"]: entry["axis"] for entry in PANELS}
    units = {entry["group"]: entry["unit"] for entry in PANELS}
    assert {"linear", "log", "zero"} == set(axes.values())
    for title, plot in plots.items():
        assert (plot["axis"], plot["unit"]) == (axes[title], units[title])


def test_no_reader_of_runs_knows_a_value_or_picture_by_name():
    names = {entry["name"] for entry in PANELS} | {f"{entry['name']}.png" for entry in PICTURES}
    files = [path for path in (ROOT / "scripts" / "reports").rglob("*.*") if path.suffix in (".py", ".js")]
    assert len(files) > 15
    for path in (*files, ROOT / "scripts" / "curves.py", ROOT / "scripts" / "report.py", ROOT / "scripts" / "card.py"):
        assert not [name for name in names if name in path.read_text()], path


def test_damaged_options_leave_the_curves_of_every_value_and_the_pictures(tmp_path):
    path = make_run(tmp_path / "run")
    (path / "training_options.json").write_text('{"command": ')
    data = data_of(path)
    assert [plot["title"] for plot in data["plots"]] == [
        "loss", "score", "sign", "ggdr", "grad_norm", "loss_term", "time", "memory",
    ]  # fmt: skip
    (fakes,) = data["samples"]["kinds"]
    assert (fakes["title"], len(fakes["runs"][0]["frames"])) == ("fakes", 4)


# Status, settings, machine.


def test_status_tells_running_from_stopped_and_finished(tmp_path):
    half = make_run(tmp_path / "half", ticks=6)
    with RunFolder(half).locked():
        running = status(read_run(half, "half"))
    stopped = status(read_run(half, "half"))
    assert (running["state"], stopped["state"]) == ("running", "stopped")
    assert status(read_run(make_run(tmp_path / "done"), "done"))["state"] == "finished"
    # One slow tick does not count: the median is 10 s/kimg.
    assert (running["kimg"], running["total"], running["sec_per_kimg"], running["left"]) == (6, 12, 10, 60)
    assert running["spent"] == 150 and stopped["left"] is None


def test_asking_whether_a_run_goes_on_changes_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.in_use() is False and not list(tmp_path.iterdir())
    with folder.locked():
        before = (tmp_path / ".lock").read_bytes()
        assert folder.in_use() is True and folder.in_use() is True
        assert (tmp_path / ".lock").read_bytes() == before != b""
    assert folder.in_use() is False
    with folder.locked():  # and it left no lock
        pass


def test_a_run_folder_records_its_hardware(tmp_path):
    run = read_run(make_run(tmp_path / "run"), "run")
    hardware = run.options["hardware"]
    assert hardware["cpu"] and hardware["cores"] >= 1 and hardware["memory_gib"] > 0 and hardware["gpus"] == []
    run.options["hardware"]["gpus"] = [{"name": "Big GPU", "memory_gib": 80.0}]
    groups = {group["title"]: {row["name"]: row["values"] for row in group["rows"]} for group in machines([run])}
    assert groups["Hardware"]["processor"] == [hardware["cpu"]] and groups["Hardware"]["trained on"] == ["CPU"]
    assert groups["Hardware"]["processes"] == ["2"]
    assert groups["Hardware"]["GPU 0"] == ["Big GPU, 80.0 GiB"]
    assert groups["Software"]["operations"] == ["compiled"] and {"python", "torch"} <= set(groups["Software"])


def test_settings_are_grouped_and_differences_marked(tmp_path):
    other = {"regularizers": {}, "loop": {"total_nimg": 12_000, "batch": 32}}
    a = read_run(make_run(tmp_path / "a"), "a")
    b = read_run(make_run(tmp_path / "b", options=other), "b")
    groups = {group["title"]: {row["name"]: row for row in group["rows"]} for group in settings([a, b])}
    assert list(groups) == ["Run", "Loop", "Regularizers: ggdr"]
    assert groups["Loop"]["batch"] == {"name": "batch", "values": ["16", "32"], "differs": True}
    assert groups["Loop"]["total_nimg"] == {"name": "total_nimg", "values": ["12,000"] * 2, "differs": False}
    assert groups["Regularizers: ggdr"]["weight"]["values"] == ["10", None]
    assert groups["Run"]["regularizers"]["values"] == [None, "none"]
    assert set(groups["Run"]) == {"host", "cfg", "regularizers"}  # what else is there is no setting


def test_the_command_is_the_one_that_was_typed(tmp_path):
    run = read_run(make_run(tmp_path / "run"), "run")
    assert command_line(run) == "ggdr train --data 'my data.zip' --outdir runs/x --cfg demo --kimg 12"
    assert shlex.split(command_line(run))[2:] == OPTIONS["argv"]
    for odd in (None, "--data x", ["--data", 5], {"a": 1}):
        run.options["argv"] = odd
        assert command_line(run) is None


def test_the_best_snapshot_is_lowest_or_highest_as_the_metric_is(tmp_path):
    path = make_run(tmp_path / "run")
    add_metric(path, {4.016: 9.0, 8.0: 3.0, 12.0: 5.0})
    add_metric(path, {4.016: 1.5, 8.0: 1.1, 12.0: 1.2}, "is1k")
    save_snapshot(path / "network-best.safetensors", {}, {"best": {"nimg": 8000}})
    found, metrics = snapshots(read_run(path, "run"))
    assert [(s["kimg"], s["values"].get(f"result/{METRIC}")) for s in found] == [(4, 9), (8, 3), (8, 3), (12, 5)]
    assert {metric["name"]: metric["best"] for metric in metrics} == {METRIC: 8, "is1k": 4}
    assert found[0]["bytes"] == 2000


def test_snapshots_less_than_a_kimg_apart_keep_their_own_values(tmp_path):
    path = make_run(tmp_path / "run", snaps=())
    for kimg in (0.512, 1.008, 1.504):
        (path / f"network-snapshot-{kimg:010.3f}.safetensors").write_bytes(b"")
    add_metric(path, {0.512: 3.0, 1.008: 2.0, 1.504: 1.0})
    found, _ = snapshots(read_run(path, "run"))
    assert [(s["kimg"], *s["values"].values()) for s in found] == [(0.512, 3), (1.008, 2), (1.504, 1)]


def test_a_last_snapshot_less_than_a_kimg_after_the_one_before_keeps_its_own_values(tmp_path):
    path = make_run(tmp_path / "run", snaps=())
    for name in ("000001", "000001.504"):
        (path / f"network-snapshot-{name}.safetensors").write_bytes(b"")
    add_metric(path, {1.008: 2.0, 1.504: 1.0})
    found, _ = snapshots(read_run(path, "run"))
    assert [(s["kimg"], *s["values"].values()) for s in found] == [(1, 2), (1.504, 1)]


# Pictures.


def runs_of(data: dict, title: str = "Samples") -> list[dict]:
    """The pictures of a kind, a dict for each run."""
    return next(kind["runs"] for kind in data["samples"]["kinds"] if kind["title"] == title)


def test_sample_grids_are_thinned_with_both_ends(tmp_path):
    a = make_run(tmp_path / "a", snaps=range(0, 40))
    b = make_run(tmp_path / "b", snaps=range(0, 25))
    data = data_of(a, b, max_images=6)
    for run, last, total in zip(runs_of(data), (39, 24), (40, 25), strict=True):
        kimg = [frame["kimg"] for frame in run["frames"]]
        assert len(kimg) <= 6 and kimg[0] == 0 and kimg[-1] == last and run["total"] == total
    kimgs = [{frame["kimg"] for frame in run["frames"]} for run in runs_of(data)]
    assert kimgs[1] - {24} <= kimgs[0]  # the same steps, so that runs can be compared
    assert data["samples"]["kimg"] == sorted(kimgs[0] | kimgs[1])


def test_pictures_are_kept_small_and_equal_ones_once(tmp_path):
    a, b = make_run(tmp_path / "a", snaps=(0, 4)), make_run(tmp_path / "b", snaps=(0, 4))
    data = data_of(a, b)
    assert len(data["pictures"]) == 3  # two grids and the reals, the same in both runs
    frame = runs_of(data)[1]["frames"][1]
    assert (frame["width"], frame["height"], frame["enlarged"]) == (32, 32, True) and frame["kimg"] == 4
    shown = picture(data, frame["image"])
    assert shown.shape == (8, 8, 3) and np.abs(shown - grid(4)[::4, ::4]).mean() < 15
    assert np.abs(shown - grid(0)[::4, ::4]).mean() > 60


def test_every_kind_of_pictures_that_a_run_declares_is_shown(tmp_path):
    kinds = [
        {"name": "input", "title": "Photographs", "once": True},
        {"name": "output", "title": "Maps"},
        {"name": "reconstruction", "title": "Photographs again", "once": False},
        {"name": "never", "title": "Of which there are none"},
    ]
    a, b = make_run(tmp_path / "a", options={"pictures": kinds}), make_run(tmp_path / "b")
    for kimg in (0, 4):
        save_image(grid(kimg), a / f"output{kimg:06d}.png")
        save_image(grid(kimg + 1), a / f"reconstruction{kimg:06d}.png")
    shutil.copy(a / "reals.png", a / "input.png")
    data = data_of(a, b)
    found = {
        kind["title"]: (kind["once"], [len(run["frames"]) for run in kind["runs"]]) for kind in data["samples"]["kinds"]
    }
    assert found == {
        "Photographs": (True, [1, 0]),
        "Maps": (False, [2, 0]),
        "Photographs again": (False, [2, 0]),
        "Real images": (True, [0, 1]),
        "Samples": (False, [0, 4]),  # the first run has such files, and does not say so
    }
    assert data["samples"]["kimg"] == [0, 4, 8, 12]
    assert [frame["kimg"] for frame in runs_of(data, "Photographs")[0]["frames"]] == [None]
    assert runs_of(data, "Maps")[0]["frames"][1]["link"] == "output000004.png"


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ("fakes", "expected a list of pictures, got str"),
        ([{"name": "../a/fakes"}, {"name": "fakes", "title": "Fakes"}], "1 of 2 pictures are malformed"),
        ([{"name": "fakes", "title": 3}, {"name": "", "title": "x"}, {"name": "fakes", "once": "no"}], "3 of 3"),
        ([{"name": f"kind{'x' * i}"} for i in range(30)], "of 30 pictures the first 20 are shown"),
    ],
    ids=range(4),
)
def test_malformed_kinds_of_pictures_are_told_in_one_line(tmp_path, pictures, message):
    path = make_run(tmp_path / "run", options={"pictures": pictures})
    (tmp_path / "a").mkdir()
    save_image(grid(1), tmp_path / "a" / "fakes000001.png")
    data = data_of(path)
    assert message in data["notes"][0] and len(data["notes"]) == 1
    assert all("/" not in frame["link"] for kind in data["samples"]["kinds"] for frame in kind["runs"][0]["frames"])


def test_a_large_grid_is_made_smaller_and_a_photograph_is_not_taken_for_an_enlarged_one(tmp_path):
    path = make_run(tmp_path / "run", snaps=())
    pixels = np.random.RandomState(0).randint(256, size=(600, 1200, 3)).astype(np.uint8)
    save_image(pixels, path / "fakes000000.png")
    data = data_of(path)
    (frame,) = runs_of(data)[0]["frames"]
    assert picture(data, frame["image"]).shape == (512, 1024, 3)
    assert (frame["width"], frame["height"], frame["enlarged"]) == (1200, 600, False)


def test_cluster_sheets_are_shown_and_links_lead_there_from_the_page(tmp_path):
    path = make_run(tmp_path / "my run")
    add_clusters(path)
    data = data_of(path, out=tmp_path / "pages" / "report.html")
    (cluster,) = data["clusters"]
    assert [sheet["title"] for sheet in cluster["sheets"]] == ["8x8", "16x16"] and not data["notes"]
    assert picture(data, cluster["sheets"][0]["image"]).tolist() == grid(1, 16).tolist()  # flat colours stay exact
    assert cluster["sheets"][0]["link"] == "../my%20run/clusters/b8.png"
    assert data["pictures"][cluster["animations"][0]["image"]].startswith("data:image/webp")
    words = {"prediction: mutual information": 0.5, "prediction: cosine similarity": None}
    assert cluster["numbers"] == [{"network": "net", "clusters": 8, **words}]
    assert data["runs"][0]["snapshots"][0]["link"] == "../my%20run/network-snapshot-000004.safetensors"


def test_clusters_are_proposed_where_they_can_be_made(tmp_path):
    assert data_of(make_run(tmp_path / "gan", options={"host": "stylegan2"}))["hints"]
    assert not data_of(make_run(tmp_path / "translator", options={"host": "cyclegan"}))["hints"]


def test_what_a_run_does_not_have_is_no_fault(tmp_path):
    path = make_run(tmp_path / "run")
    data = data_of(path)
    assert data["clusters"] == [] and data["notes"] == []
    (hint,) = data["hints"]
    assert f"ggdr clusters --run {path}" in hint
    (path / "reals.png").unlink()
    (path / "log.txt").unlink()
    for snapshot in path.glob("network-*.safetensors"):
        snapshot.unlink()
    data = data_of(path)
    assert data["notes"] == data["hints"] == []


def test_what_ggdr_clusters_writes_is_what_is_read(tmp_path):
    path = make_run(tmp_path / "run")
    folder = ClusterFolder(path / "clusters", "What G knows")
    folder.path.mkdir()
    folder.add_sheet("8x8.png", grid(1, 16), "8x8", "coarse")
    clusters = {8: Clusters(torch.zeros(2, 1), False, torch.arange(2))}
    view = NetworkView("net", [], np.zeros([0, 8, 8, 3], np.uint8), clusters)
    folder.add_numbers(view.numbers())
    folder.write_index()
    data = data_of(path)
    (cluster,) = data["clusters"]
    assert cluster["title"] == "What G knows" and cluster["command"].startswith("ggdr") and not data["notes"]
    assert [(sheet["title"], sheet["note"]) for sheet in cluster["sheets"]] == [("8x8", "coarse")]
    (row,) = cluster["numbers"]
    assert row["network"] == "net" and row["layer"] == "8x8" and row["clusters"] == 2
    about_d = [
        "prediction: mutual information",
        "prediction: cosine similarity",
        "D's own features: mutual information",
    ]
    assert list(row)[3:] == about_d


def test_a_large_animation_is_only_linked(tmp_path, monkeypatch):
    path = make_run(tmp_path / "run")
    add_clusters(path)
    monkeypatch.setattr(page_pictures, "MAX_ANIMATION", 10)
    (animation,) = data_of(path)["clusters"][0]["animations"]
    assert animation["image"] is None and animation["link"] == "clusters/over.webp" and animation["bytes"] > 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"animations": [{"file": "../../secret.webp", "title": "x"}]}, "same folder"),
        ({"sheets": [{"file": "/etc/passwd", "title": "x"}]}, "same folder"),
        ({"animations": [{"file": "x.html", "title": "x"}]}, "x.html"),
        ({"sheets": [{"file": "b8.png"}]}, "title"),
        ({"sheets": 3}, "ggdr clusters"),
    ],
)
def test_a_clusters_file_that_is_wrong_or_names_files_elsewhere_is_a_note(tmp_path, changes, message):
    path = make_run(tmp_path / "run")
    add_clusters(path, **changes)
    (tmp_path / "secret.webp").write_bytes(b"secret")
    data = data_of(path)
    assert data["clusters"] == [] and message in data["notes"][0] and "clusters.json" in data["notes"][0]
