# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics that are added to a study later, of snapshots that are there already; and what is shown meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ggdr.scripts.studies.definition import Variant
from ggdr.scripts.studies.run_progress import RunProgress, is_measuring
from ggdr.scripts.studies.study_folder import StudyRun
from tests.study_cases import compare, definition, starts, table, use_toy_runs
from tests.toy_run import METRIC, write_snapshot

OTHER, THIRD = "kd_offline0.05k_full", "mind_offline0.05k_full"


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path, heeds_interrupts):
    return use_toy_runs(monkeypatch, tmp_path)


@pytest.fixture
def study(tmp_path, data):
    """Of two runs with two snapshots each, which are finished."""
    compare(*definition(tmp_path / "study", data, seeds="0", options=("--snap", 1)))
    return tmp_path / "study"


def measured(folder):
    return [(x["run"], x["nimg"], x["metrics"]) for x in starts(folder, "measured.jsonl")]


ALL = [(f"{name}/seed0", nimg, [OTHER]) for name in ("none", "ggdr") for nimg in (64, 32)]


def test_an_added_metric_is_computed_of_all_snapshots(study, data):
    assert measured(study) == []
    before = len(starts(study))
    output = compare("--outdir", study, "--metrics", OTHER)
    assert "2 of 2 runs are finished, 2 to be measured" in output
    assert f"measuring none/seed0: {OTHER} at kimg 0.064" in output
    assert measured(study) == ALL and len(starts(study)) == before  # nothing is trained
    argv = starts(study, "measured.jsonl")[0]["argv"]
    assert argv[:2] == ["metrics", "--network"] and argv[argv.index("--data") + 1] == str(data)
    assert argv[argv.index("--device") + 1] == "auto"
    assert OTHER in table(study) and METRIC in table(study)
    compare("--outdir", study)
    assert measured(study) == ALL


def test_only_what_is_missing_is_computed_and_only_of_snapshots_that_are_there(study):
    (study / "none" / "seed0" / "network-snapshot-000032.safetensors").unlink()
    (study / "ggdr" / "seed0" / "network-snapshot-000016.safetensors").write_bytes(b"damaged")
    compare("--outdir", study, "--metrics", OTHER)
    compare("--outdir", study, "--metrics", f"{METRIC},{THIRD}")
    expected = [("none/seed0", 64), ("ggdr/seed0", 64), ("ggdr/seed0", 32)]
    assert measured(study) == [(*one, [name]) for name in (OTHER, THIRD) for one in expected]


def test_a_run_that_is_not_finished_is_trained_first(study):
    for path in (study / "ggdr" / "seed0").glob("stats.jsonl"):
        path.unlink()
    write_snapshot(study / "ggdr" / "seed0" / "network-snapshot-000016.safetensors", 16)
    output = compare("--outdir", study)
    assert output.index("finished ggdr/seed0") < output.index(f"measuring ggdr/seed0: {METRIC} at kimg 0.016")
    assert measured(study) == [("ggdr/seed0", 16, [METRIC])]


def test_a_study_that_is_stopped_while_it_measures_goes_on_there(study, tmp_path):
    (tmp_path / "slow").touch()

    def stop():
        while len(measured(study)) < 1:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    output = compare("--outdir", study, "--metrics", OTHER, code=130)
    thread.join()
    assert "stopped by SIGINT, 2 runs are not complete" in output and "NOT measured" not in output
    assert "2 of 2 runs finished" in (study / "compare.md").read_text()
    (tmp_path / "slow").unlink()
    compare("--outdir", study)
    assert measured(study) == [ALL[0], *ALL]


def test_a_snapshot_that_cannot_be_measured_is_named_and_tried_again(study, tmp_path):
    (tmp_path / "no-metrics").touch()
    output = compare("--outdir", study, "--metrics", OTHER, code=1)
    assert f"NOT measured ggdr/seed0: {OTHER} at kimg 0.032: Error: no metrics" in output
    assert "2 not measured: none/seed0, ggdr/seed0; their logs are beside their folders" in output
    assert measured(study) == ALL and "2 of 2 runs finished" in (study / "compare.md").read_text()
    (tmp_path / "no-metrics").unlink()
    compare("--outdir", study)
    assert measured(study) == ALL + ALL


def test_runs_are_measured_side_by_side(study, tmp_path):
    (tmp_path / "slow").touch()

    def go_on():
        deadline = time.monotonic() + 50
        while len(measured(study)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=go_on)
    thread.start()
    compare("--outdir", study, "--metrics", OTHER, "--jobs", 2, code=130)
    thread.join()
    assert sorted(measured(study)) == sorted([ALL[0], ALL[2]])


def test_a_run_computes_metrics_as_long_as_its_log_ends_with_that(tmp_path):
    log = tmp_path / "log.txt"
    assert not is_measuring(tmp_path)
    log.write_text("2026-01-01 00:00:00  tick 1  kimg 1.0\n")
    assert not is_measuring(tmp_path)
    line = f"2026-01-01 00:00:01  measuring {METRIC} at kimg 1"
    with open(log, "a") as file:
        file.write(f"{line}\n")
    assert is_measuring(tmp_path) and not is_measuring(tmp_path, line)  # of a process that was killed
    with open(log, "a") as file:
        file.write(f"2026-01-01 00:00:02  {METRIC} 3 in 1.0 s\n")
    assert not is_measuring(tmp_path)


def test_the_line_of_a_run_says_that_it_measures(tmp_path, study):
    folder, shown = study / "none" / "seed0", []

    class Bars:
        def add_task(self, name, total, text):
            shown.append(text)

        def update(self, task, completed, total, text):
            shown.append(text)

        def refresh(self):
            pass

    class Console:
        def print(self, line, **look):
            pass

    bars = Bars()
    bars.console = Console()
    progress = RunProgress()
    progress._bars = bars
    run = StudyRun(Variant("none", {}), 0)
    progress.begin(1, 1, 0)
    progress.train(run, folder)
    for line in ("tick 2", f"measuring {METRIC} at kimg 0.064", f"{METRIC} 3 in 1.0 s"):
        with open(folder / "log.txt", "a") as file:
            file.write(f"2026-01-01 00:00:00  {line}\n")
        progress._refreshed = -1e9
        progress.refresh()
    kimg = "kimg 0.064/0.064  left 0s"
    assert shown == ["starting", kimg, f"{kimg}  measuring", kimg]
    progress.measure(run, f"{OTHER} at kimg 0.064")
    assert shown[-1] == f"measuring {OTHER} at kimg 0.064"
