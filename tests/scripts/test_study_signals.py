# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What Ctrl-C and other signals do to a study, what it says meanwhile, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
import torch

from ggdr.scripts.studies import run_progress
from ggdr.scripts.studies.study_folder import StudyFolder
from ggdr.torch_utils.checkpoint import save_state
from tests.study_cases import compare, definition, starts, use_toy_runs

SECONDS = 120  # for what takes one of them on a machine of its own


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path, heeds_interrupts):
    return use_toy_runs(monkeypatch, tmp_path)


@pytest.fixture
def study(tmp_path):
    return tmp_path / "study"


@pytest.fixture
def said(monkeypatch):
    """The lines that the study has printed so far."""
    lines = []
    monkeypatch.setattr(run_progress, "say", lambda line: lines.append(line))
    return lines


def interrupting(*steps):
    """A thread that takes steps: a condition is waited for, a signal is sent to this process, a path is made."""

    def act():
        for step in steps:
            if isinstance(step, signal.Signals):
                os.kill(os.getpid(), step)
            elif callable(step):
                deadline = time.monotonic() + SECONDS
                while not step() and time.monotonic() < deadline:
                    time.sleep(0.01)
            else:
                step.touch()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def num_trained(folder):
    """Runs whose processes heed signals by now."""
    return len(starts(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_as_it_is_and_the_study_goes_on_later(study, data, said, number):
    thread = interrupting(lambda: num_trained(study) == 2, number)
    output = compare(*definition(study, data, "--jobs", 2, options=("--gamma", 60)), code=130)
    thread.join()
    assert "stopping: 2 runs save first" in said and "failed" not in output.lower()
    assert [line for line in said if line.startswith("stopped none/seed0 after")]
    assert f"stopped by {number.name}, 4 runs are not complete; go on with: ggdr compare --outdir {study}" in output
    for name in ("none", "ggdr"):
        assert (study / name / "seed0.log").read_text().count(f"stopped by {number.name}\n") == 1
    assert signal.getsignal(number) == {signal.SIGINT: signal.default_int_handler}.get(number, signal.SIG_DFL)
    assert {start["run"] for start in starts(study)} == {"ggdr/seed0", "none/seed0"}


def test_a_second_signal_ends_no_run_that_saves(study, data, said, tmp_path):
    thread = interrupting(
        lambda: num_trained(study) == 2,
        signal.SIGINT,
        lambda: "stopping: 2 runs save first" in said,
        signal.SIGINT,
        lambda: any(line.startswith("still saving") for line in said),
        tmp_path / "may-end",
    )
    compare(*definition(study, data, "--jobs", 2, options=("--gamma", 60, "--batch", 4)), code=130)
    thread.join()
    assert "still saving: none/seed0, ggdr/seed0; the study ends when they have" in said
    assert said.count("stopping: 2 runs save first") == 1
    assert StudyFolder(study).read() is not None
    assert json.loads((study / "study.json").read_text())["ended"] == {"none/seed0": 130, "ggdr/seed0": 130}


def test_a_run_that_has_a_state_is_resumed_and_not_started(study, data, said):
    (study / "none" / "seed0").mkdir(parents=True)
    state = {"counters": {"nimg": 1500, "step": 2}, "task": {"w": torch.zeros(1)}}
    save_state(study / "none" / "seed0" / "training-state.pt", state)
    compare(*definition(study, data, seeds="0"))
    assert "resumed none/seed0 at kimg 1.5 (1 of 2)" in said and "started ggdr/seed0 (2 of 2)" in said
    assert not any("started none/seed0" in line for line in said)


def test_a_study_whose_runs_all_ended_is_not_stopped(study, data, said, monkeypatch):
    """The signal comes after the last run's end, before the study has noted it."""

    def last_line(folder, run):
        if run.name == "ggdr/seed0":
            os.kill(os.getpid(), signal.SIGINT)
        return ""

    monkeypatch.setattr(StudyFolder, "last_line", last_line)
    output = compare(*definition(study, data, seeds="0", options=("--snap", 1)), code=130)
    assert "stopped by SIGINT, 1 run is not complete; go on with" in output  # its cluster maps
    assert (
        "finished ggdr/seed0 after" in " ".join(said) and "2 of 2 runs finished" in (study / "compare.md").read_text()
    )
    output = compare("--outdir", study)
    assert "results:" in output and (study / "ggdr" / "seed0" / "clusters" / "clusters.json").exists()
    assert num_trained(study) == 2

    output = compare("--outdir", study, "--variant", "noaug=--aug noaug", "--no-clusters")
    monkeypatch.setattr(StudyFolder, "last_line", lambda folder, run: os.kill(os.getpid(), signal.SIGINT))
    output = compare("--outdir", study, "--variant", "more=--aug noaug", "--no-clusters")
    assert "stopped" not in output and "results:" in output


def test_cluster_maps_that_were_interrupted_come_at_the_next_start(study, data, said, tmp_path):
    (tmp_path / "slow").touch()
    log = study / "none" / "seed0.log"
    thread = interrupting(lambda: log.exists() and "$ ggdr clusters" in log.read_text(), signal.SIGTERM)
    output = compare(*definition(study, data, seeds="0", options=("--snap", 1)), code=130)
    thread.join()
    assert "finished none/seed0 after" in " ".join(said) and "stopping" in said
    assert "stopped by SIGTERM, 2 runs are not complete" in output
    (tmp_path / "slow").unlink()
    compare("--outdir", study)
    assert [start["run"] for start in starts(study)] == ["none/seed0", "ggdr/seed0"]  # none is trained twice
    assert len(list(study.glob("*/seed0/clusters/clusters.json"))) == 2
