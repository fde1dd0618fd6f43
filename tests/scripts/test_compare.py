# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr compare` as its users run it, with runs of `ggdr train`: killed, stopped and started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.evaluate import Job
from ggdr.metrics.image_sets import GeneratedImages
from ggdr.metrics.names import parse_metrics
from ggdr.metrics.resize import MODES
from ggdr.scripts.studies.estimate import snapshots_to_come
from ggdr.scripts.studies.metric_times import DetectorTimes, ImageTimes, evaluation_seconds, time_images
from ggdr.scripts.studies.results import read_results
from ggdr.scripts.studies.study_folder import StudyFolder
from ggdr.scripts.training import versions
from ggdr.torch_utils.checkpoint import load_state
from ggdr.torch_utils.loop import LoopConfig
from tests.conftest import ROOT, TINY_RUN, python
from tests.study_cases import compare, definition, table
from tests.toy_run import METRIC

OPTIONS = (*TINY_RUN, "--kimg", 0.08, "--tick", 0.016, "--snap", 2)
SECONDS = 240  # for what takes a few of them on a machine of its own


@pytest.fixture(autouse=True)
def one_thread_a_run(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dataset_zip):
    """A study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    process = python(
        "-m", "ggdr", "compare", *definition(folder, dataset_zip, "--jobs", 1, "--no-clusters", options=OPTIONS)
    )
    output = process.communicate(timeout=4 * SECONDS)[0]
    assert process.returncode == 0, output
    return folder


def children(pid: int) -> list[int]:
    """Processes that a process started, by Linux' account."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except FileNotFoundError:
        return []


def wait_for(condition, process: subprocess.Popen | None = None) -> None:
    """Until a condition holds, or fails with what the process printed."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        ended = process is not None and process.poll() is not None
        assert not ended and time.monotonic() < deadline, process and process.communicate()[0]
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc")
def test_a_study_killed_twice_gives_the_table_of_one_undisturbed(whole, dataset_zip, tmp_path):
    folder = tmp_path / "study"
    words = definition(folder, dataset_zip, "--jobs", 1, "--no-clusters", options=OPTIONS)

    # All processes at once, in the middle of the second run.
    process = python("-m", "ggdr", "compare", *words)
    wait_for((folder / "ggdr" / "seed0" / "training-state.pt").exists, process)
    (run,) = children(process.pid)
    for pid in (process.pid, run):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not is_alive(run))
    assert StudyFolder(folder).read() is not None and not (folder / "none" / "seed1").exists()

    # The study's alone, in the third: its run saves and ends by itself.
    process = python("-m", "ggdr", "compare", "--outdir", folder, "--jobs", 1, "--no-clusters")
    log = folder / "none" / "seed1" / "log.txt"
    wait_for(lambda: log.exists() and "tick 1" in log.read_text(), process)
    (run,) = children(process.pid)
    process.kill()
    wait_for(lambda: not is_alive(run))
    assert load_state(folder / "none" / "seed1" / "training-state.pt")["counters"]["nimg"] >= 16

    compare("--outdir", folder)
    assert table(folder) == table(whole)
    assert table(whole).count(METRIC) == 2 and "nan" not in table(whole)


def test_ctrl_c_lets_runs_save_and_says_how_to_go_on(dataset_zip, tmp_path):
    folder, options = tmp_path / "study", (*TINY_RUN, "--kimg", 1000, "--tick", 1000)
    process = python("-m", "ggdr", "compare", *definition(folder, dataset_zip, "--jobs", 2, options=options))
    runs = [folder / name / "seed0" for name in ("none", "ggdr")]
    wait_for(lambda: all((run / "fakes000000.png").exists() for run in runs), process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 130, output
    assert "stopping: 2 runs save first\n" in output
    assert f"stopped by SIGINT, 4 runs are not complete; go on with: ggdr compare --outdir {folder}" in output
    for run in runs:
        assert (run / "training-state.pt").exists()
        assert (folder / run.parent.name / "seed0.log").read_text().count("stopped by SIGINT at ") == 1


def test_a_run_with_options_that_cannot_be_is_named_and_the_others_are_compared(whole, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("seed*/*")}
    output = compare("--outdir", folder, "--variant", "odd=--batch 6", "--jobs", 1, code=1)
    assert "FAILED with exit code 2: odd/seed0" in output and "2 failed: odd/seed0, odd/seed1" in output
    assert "--batch" in StudyFolder(folder).path.joinpath("odd", "seed0.log").read_text()
    assert {path: path.stat().st_mtime_ns for path in written} == written
    lines = table(folder).splitlines()
    assert [line for line in lines if "odd" not in line] == table(whole).splitlines()


def test_a_metric_that_is_missing_is_computed_as_the_run_itself_would(whole, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    results = folder / "ggdr" / "seed1" / f"metric-{METRIC}.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    assert "measuring" in (folder / "ggdr" / "seed1" / "log.txt").read_text() and len(lines) == 3
    results.write_text("".join(lines[:-1]))
    output = compare("--outdir", folder, "--jobs", 1)
    assert f"measuring ggdr/seed1: {METRIC} at kimg 0.08" in output
    (again,) = map(json.loads, results.read_text().splitlines()[2:])
    last = json.loads(lines[-1])
    assert again["results"] == pytest.approx(last["results"]) and again["nimg"] == last["nimg"]
    assert again["choices"].keys() == last["choices"].keys() and table(folder) == table(whole)


def test_the_page_alone_can_be_written_anew(whole, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    (folder / "compare.md").unlink()
    (folder / "compare.html").unlink()
    assert "written: " in compare("--outdir", folder, "--page-only")
    assert table(folder) == table(whole)
    assert (folder / "compare.html").exists()
    study = StudyFolder(folder)
    data = read_results(study.read(), study)
    assert [run["state"] for variant in data["variants"] for run in variant["runs"]] == ["finished"] * 4
    assert data["machine"]["cores"] >= 1 and data["variants"][0]["seconds_per_kimg"] > 0


def test_dry_run_measures_and_writes_nothing(dataset_zip, tmp_path, monkeypatch):
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "cache"))
    folder, metrics = tmp_path / "study", "fd_offline2k_full,kd_offline1k_full,fid50k_full"
    options = (*TINY_RUN, "--kimg", 100, "--tick", 10, "--snap", 2, "--ops", "reference")
    output = compare(*definition(folder, dataset_zip, "--dry-run", "--jobs", 1, "--metrics", metrics, options=options))
    assert not folder.exists() and not (tmp_path / "cache" / "metrics").exists()
    found = re.findall(r"(none|ggdr) +([\d.]+) +100 +2 +([\d.]+) +10 +([\d.]+)", output)
    assert [name for name, *_ in found] == ["none", "ggdr"]
    for _, rate, hours, _ in found:
        assert float(hours) == pytest.approx(float(rate) * 200 / 3600, abs=0.02)
    total = float(
        re.search(r"all together: at least ([\d.]+) hours \(.*\), one at a time timed: 8 training", output)[1]
    )
    assert total == pytest.approx(sum(float(hours) for line in found for hours in line[2:]), abs=0.05)
    assert "64 images of each and their features (offline), scaled to the numbers that metrics take; " in output
    assert "for those of all reals, once not timed: the start of processes, pictures, snapshots" in output
    assert "cluster maps, the distances between features not in it: fid50k_full: detector inception: its" in output


def test_the_time_of_metrics_is_that_of_their_images():
    detectors = DetectorTimes({"offline": 0.5, "lite": 2.0}, missing={"inception": "no weights"})
    images = ImageTimes(0.25, {"ppl2_wend": 3.0})

    def seconds(names):
        return evaluation_seconds(parse_metrics(names), detectors, images)

    assert seconds("fd_offline2k_full,kd_offline1k_full") == 2000 * 0.75  # the same images, by one detector
    assert seconds("fd_offline1k_full,fd_lite2k_full") == 2000 * 2.75
    translator, pairs = ImageTimes(0.25, directions=2, num=300), DetectorTimes({"pairs": 0.5})
    assert evaluation_seconds(parse_metrics("psnr,mae0.1k"), pairs, translator) == 2 * 300 * 0.75
    assert seconds("fid50k_full") == 0 and seconds("ppl2_wend,fd_offline1k_full") == 50_000 * 3 + 750


def test_paths_and_images_are_timed_in_part(monkeypatch):
    asked = []

    def measure_paths(spec, numbers, distance):
        asked.append((spec.name, len(numbers), distance))

    files = DetectorFiles(MODES["stylegan"], torch.device("cpu"))
    images = GeneratedImages(lambda numbers: asked.append(len(numbers)) or torch.zeros(len(numbers), 3, 8, 8))
    jobs = {"": Job(files, fakes=images, measure_paths=measure_paths)}
    monkeypatch.setattr(DetectorFiles, "get", lambda self, name: name)
    specs = parse_metrics("fd_offline5k_full,ppl2_wend")
    times = time_images(specs, jobs, DetectorTimes())
    assert asked == [8, 64, ("ppl2_wend", 1, "lpips"), ("ppl2_wend", 4, "lpips")]
    assert times.an_image > 0 and times.a_path["ppl2_wend"] > 0
    assert time_images(specs, jobs, DetectorTimes(missing={"lpips": "no weights"})).a_path == {}


@pytest.mark.parametrize(
    "total, nimg, expected",
    [
        (100, 0, 5),
        (100, 20, 4),
        (100, 39, 4),
        (100, 100, 0),
        (96, 0, 5),
        (99, 0, 5),
        (110, 0, 6),
        (20, 0, 1),
        (8, 0, 1),
    ],
)
def test_snapshots_to_come_are_those_that_the_loop_makes(total, nimg, expected):
    loop = LoopConfig(total, batch=4, batch_gpu=4, tick_nimg=10, snap_ticks=2)
    every, end, at, made = 20, -(-total // 4) * 4, nimg, 0
    while at < total:  # as `train` counts
        at += 4
        made += at >= total or at // every > (at - 4) // every
    assert snapshots_to_come(loop, nimg) == expected
    if nimg % 4 == 0:
        assert made == expected and (nimg >= total or at == end)


def test_dry_run_names_a_variant_that_cannot_be(dataset_zip, tmp_path):
    words = definition(tmp_path / "s", dataset_zip, "--dry-run", "--variant", "odd=--ggdr-res 32", options=TINY_RUN)
    assert "variant odd: " in compare(*words, code=2)


def test_dry_run_counts_what_is_left(whole):
    output = compare("--outdir", whole, "--dry-run", "--seeds", "2", "--jobs", "2")
    assert re.search(r"none +[\d.]+ +0.08 +1 +[\d.]+ +3 ", output) and "2 at a time" in output


# What runs record of the code that they ran.


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init")
    (tmp_path / "file").write_text("a")
    (tmp_path / "inner").mkdir()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "First")
    return tmp_path.resolve()


def test_the_commit_of_a_checkout_is_read(checkout):
    commit = versions.read_commit(checkout)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (checkout / "untracked").touch()
    assert versions.read_commit(checkout) == commit
    (checkout / "file").write_text("b")
    assert versions.read_commit(checkout) == f"{commit} with changes"


def test_the_commit_of_a_project_around_the_package_is_not_its_own(checkout):
    assert versions.read_commit(checkout / "inner") is None


def test_reading_the_commit_runs_nothing_of_the_repository(checkout):
    script = checkout / "hook"
    script.write_text(f"#!/bin/sh\ntouch {checkout}/ran\n")
    script.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(script))
    git(checkout, "config", "core.hooksPath", str(checkout))
    assert versions.read_commit(checkout) is not None and not (checkout / "ran").exists()


def test_without_git_there_is_no_commit(checkout, no_compiler):
    assert versions.read_commit(checkout) is None


def test_a_run_records_version_and_commit(whole):
    recorded = json.loads((whole / "none" / "seed0" / "training_options.json").read_text())["versions"]
    assert recorded == versions.installed_versions() and set(recorded) >= {"ggdr", "python", "torch", "numpy"}
