# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is left of a run that is killed, locked out, or loses its disk or terminal: the last good state."""

from __future__ import annotations

import errno
import signal
import time

import pytest

from ggdr.scripts.training import run as training_run
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils import process_lock
from ggdr.torch_utils.checkpoint import load_state
from ggdr.torch_utils.runlog import read_stats
from tests.conftest import TINY_RUN, python
from tests.scripts.test_train import assert_same_weights, ggdr_train, train


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_killed_run_goes_on_exactly(dataset_zip, tmp_path, number):
    args = ["--data", dataset_zip, *TINY_RUN, "--tick", 0.08, "--snap", 1, "--seed", 3]
    process = python("-m", "ggdr", "train", "--outdir", tmp_path / "run", *args, "--kimg", 1000)
    deadline = time.monotonic() + 120
    state = tmp_path / "run" / "training-state.pt"
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)  # into the next tick
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    nimg = load_state(state)["counters"]["nimg"]
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL and nimg % 80 == 0
    else:
        assert process.returncode == 130, output
        assert f"stopped by {number.name}" in output and "--resume latest" in output
    kimg = (nimg + 48) / 1000
    ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", kimg)
    ggdr_train("--outdir", tmp_path / "whole", *args, "--kimg", kimg)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    assert [x["nimg"] for x in read_stats(tmp_path / "run")] == [x["nimg"] for x in read_stats(tmp_path / "whole")]


def test_a_full_disk_while_saving_keeps_the_last_good_state(dataset_zip, tmp_path, monkeypatch):
    train(dataset_zip, tmp_path / "run", kimg=0.032)
    before = (tmp_path / "run" / "training-state.pt").read_bytes()

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ggdr.torch_utils.atomic_write.os.fsync", full_disk)
        ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.064, code=2)
    assert (tmp_path / "run" / "training-state.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*.partial"))
    ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.064)
    train(dataset_zip, tmp_path / "whole")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_nan_stops_the_run_and_names_phase_and_last_good_state(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", kimg=0.032)
    before = (tmp_path / "run" / "training-state.pt").read_bytes()
    output = ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 9, "--lr", 1e30, code=2)
    assert "of phase" in output and "training-state.pt" in output and "32 images" in output
    assert (tmp_path / "run" / "training-state.pt").read_bytes() == before
    assert output.endswith("If it happens again: a larger --gamma, a smaller --lr\n")


def test_a_second_process_is_kept_out_of_the_folder(dataset_zip, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        output = train(dataset_zip, tmp_path / "run", code=2)
    assert "being trained in by another process (pid" in output
    train(dataset_zip, tmp_path / "run", kimg=0.008)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_run_that_went_on_since_it_was_read_is_not_overwritten(dataset_zip, tmp_path, monkeypatch, is_new):
    run, prepare_ops = tmp_path / "run", training_run.prepare_ops
    if not is_new:
        train(dataset_zip, run, kimg=0.032)
    resume = [] if is_new else ["--resume", "latest"]

    def train_meanwhile(*args):
        monkeypatch.setattr(training_run, "prepare_ops", prepare_ops)
        train(dataset_zip, run, *resume)
        return prepare_ops(*args)

    monkeypatch.setattr(training_run, "prepare_ops", train_meanwhile)
    output = train(dataset_zip, run, *resume, kimg=0.048, code=2)
    assert f"another process trained in {run} meanwhile; start again" in " ".join(output.split())
    assert [line["nimg"] for line in read_stats(run)] == [32, 64]
    assert load_state(run / "training-state.pt")["counters"]["nimg"] == 64


def test_a_run_whose_folder_cannot_be_locked_says_so(dataset_zip, tmp_path, monkeypatch):
    def lock_descriptor(fd, blocking=True):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(process_lock, "lock_descriptor", lock_descriptor)
    train(dataset_zip, tmp_path / "run", kimg=0.008)
    assert f"{tmp_path / 'run'} cannot be locked" in (tmp_path / "run" / "log.txt").read_text()


def test_a_terminal_that_goes_away_does_not_stop_the_run(dataset_zip, tmp_path):
    args = ["--data", dataset_zip, "--outdir", tmp_path / "run", *TINY_RUN, "--kimg", 0.08, "--tick", 0.008]
    process = python("-m", "ggdr", "train", *args)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert read_stats(tmp_path / "run")[-1]["nimg"] == 80


def test_a_disk_that_fills_up_is_named_with_the_last_good_state(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", kimg=0.032)
    before = (tmp_path / "run" / "training-state.pt").read_bytes()
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from ggdr.scripts.train import main\n"
        f"main(['--outdir', r'{tmp_path}/run', '--resume', 'latest', '--kimg', '0.064'])"
    )
    process = python("-c", code)
    output = " ".join(process.communicate()[0].split())
    assert process.returncode == 2 and "Traceback" not in output
    assert "training-state.pt: File too large; the last good state is" in output
    assert (tmp_path / "run" / "training-state.pt").read_bytes() == before
