# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pipes, devices and links where files are expected: nothing hangs, and nothing is written elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from ggdr.metrics.custom import custom_features
from ggdr.metrics.image_sets import ArrayImages, FileImages, is_statistics, load_statistics
from ggdr.scripts.cli import main as ggdr
from ggdr.scripts.measuring.results import append_results
from ggdr.scripts.reports.card_facts import read_facts
from ggdr.scripts.reports.panels import read_metrics
from ggdr.scripts.studies.definition import read_yaml
from ggdr.scripts.studies.study_folder import StudyFolder, tail
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.scripts.viewing.photographs import read_targets
from ggdr.stylegan2 import load_generator
from ggdr.stylegan2.latent.w_directions import load_directions
from ggdr.stylegan2.weights.nvidia_pickle import load_published
from ggdr.torch_utils.checkpoint import load_snapshot, load_state
from ggdr.torch_utils.data.archives import open_source
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.process_lock import is_locked, process_lock
from ggdr.torch_utils.runlog import RunLog, read_stats
from ggdr.torch_utils.untrusted.regular_files import (
    MAX_LINE,
    make_subfolder,
    open_no_link,
    read_lines,
    read_regular,
    read_tail,
)
from ggdr.torch_utils.untrusted.torch_files import read_tensor_file
from tests.hostile.test_runs import make_run
from tests.tiny import save_tiny, tiny_generator

KIND = "expected a file, got a pipe or device"
CPU = ["--device", "cpu", "--ops", "reference"]


class Hangs(BaseException):
    """So that no reader takes it for an error of its own."""


@contextmanager
def not_waiting(seconds: float = 120):
    """Ends what hangs."""

    def give_up(number: int, frame: object) -> None:
        raise Hangs

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# By what the file is called, what reads it.
READERS: dict[str, Callable[[Path], object]] = {
    "network.safetensors": load_snapshot,
    "generator.safetensors": load_generator,
    "directions.safetensors": load_directions,
    "training-state.pt": load_state,
    "weights.pth": read_tensor_file,
    "published.pkl": load_published,
    "training_options.json": lambda path: RunFolder(path.parent).read_options(),
    "study.json": lambda path: StudyFolder(path.parent).read(),
    "study.yaml": read_yaml,
    "data.zip": ImageDataset,
    "source.zip": lambda path: open_source(str(path)),
    "reals.zip": FileImages,
    "cifar.tar.gz": lambda path: open_source(str(path)),
    "t-images-idx3-ubyte": lambda path: open_source(str(path)),
    "images.npz": ArrayImages,
    "statistics.npz": load_statistics,
    "photograph.png": lambda path: read_targets([path], 16, 3),
    "detector.pt": lambda path: custom_features(str(path), "cpu"),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    with not_waiting(), pytest.raises(Exception, match=KIND):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with not_waiting(), pytest.raises(Exception, match=KIND):
        READERS[name](path)


def test_a_pipe_is_no_statistics(tmp_path):
    os.mkfifo(tmp_path / "s.npz")
    with not_waiting():
        assert not is_statistics(tmp_path / "s.npz")


def test_pipes_among_the_files_of_a_run_or_study_are_left_out_or_refused(tmp_path):
    run = make_run(tmp_path / "run")
    os.mkfifo(run / "metric-fid4k_full.jsonl")
    os.mkfifo(run / "seed0.log")
    with not_waiting():
        assert read_metrics(run) == [] and tail(run / "seed0.log") == ""
        (run / "stats.jsonl").unlink()
        os.mkfifo(run / "stats.jsonl")
        with pytest.raises(ValueError, match="expected a run folder"):
            read_stats(run)
        with pytest.raises(OSError, match=KIND):
            RunLog(run, total_nimg=1)
        os.mkfifo(run / ".lock")
        with pytest.raises(OSError, match=KIND), process_lock(run / ".lock", lambda holder: None):
            pass
        assert is_locked(run / ".lock") is None
        save_tiny(run / "network.safetensors", tiny_generator())
        assert read_facts(load_snapshot(run / "network.safetensors")).run is None


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--network", "PIPE", "--seeds", "0", "--outdir", "o", "--device", "cpu"],
        ["train", "--data", "PIPE", "--outdir", "o", "--device", "cpu"],
        ["dataset", "PIPE.zip", "o.zip"],
        ["compare", "PIPE", "--outdir", "o", "--dry-run"],
        ["import-weights", "PIPE", "o.safetensors"],
        ["metrics", "--fakes", "PIPE.npz", "--reals", "PIPE.npz", "--metrics", "fd_offline1k_full", *CPU],
    ],
    ids=lambda words: words[0],
)
def test_commands_say_that_a_pipe_is_no_file(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name in ("PIPE", "PIPE.zip", "PIPE.npz"):
        os.mkfifo(name)
    with not_waiting():
        result = CliRunner().invoke(ggdr, words)
    assert result.exit_code == 2 and KIND in " ".join(result.output.split()), result.output


def test_files_and_lines_have_bounds(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"1\n2\nhalf")
    assert read_regular(path, 8) == b"1\n2\nhalf" and list(read_lines(path)) == [b"1\n", b"2\n"]
    with pytest.raises(OSError, match="at most 7 bytes, got 8"):
        read_regular(path, 7)
    os.truncate(path, 2**40)  # holes take no room on the disk
    for read in (lambda path: list(read_lines(path)), lambda path: RunLog(path.parent, total_nimg=1)):
        (tmp_path / "log.txt").unlink(missing_ok=True)
        (tmp_path / "log.txt").symlink_to(path)
        with pytest.raises(OSError, match="at most|is a link"):
            read(path)
    assert len(read_tail(path)) == 2**16
    path.write_bytes(b"1\n" + b"x" * MAX_LINE + b"\n")
    with pytest.raises(OSError, match="has a line of more than"):
        list(read_lines(path))


def test_a_huge_log_without_lines_is_no_log(tmp_path):
    run = make_run(tmp_path / "run", **{"log.txt": "a\n"})
    os.truncate(run / "log.txt", 2**40)
    with not_waiting(), pytest.raises(OSError, match="no log"):
        RunLog(run, total_nimg=1)


# Links.


@pytest.mark.parametrize("name", [".lock", "log.txt", "stats.jsonl"])
def test_a_resumed_run_writes_through_no_link(tmp_path, dataset_zip, name):
    run = make_run(tmp_path / "run", **{"training_options.json": '{"command": {}}'})
    victim = tmp_path / "victim"
    victim.write_text("export A=1\nsecret=2")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    words = ["train", "--outdir", run, "--resume", "latest", "--data", dataset_zip, "--cfg", "demo", "--device", "cpu"]
    words += ["--channel-base", "64", "--channel-max", "8", "--batch", "8", "--kimg", "0.008", "--ops", "reference"]
    result = CliRunner().invoke(ggdr, list(map(str, words)))
    assert victim.read_text() == "export A=1\nsecret=2"
    assert result.exit_code == 2 and f"{run / name}: is a link" in "".join(result.output.splitlines()), result.output


def test_results_of_metrics_and_logs_of_studies_go_through_no_link(tmp_path):
    class Result:
        name = "fid4k_full"

        def to_json(self) -> dict:
            return {}

    (tmp_path / "victim").write_text("keep\n")
    (tmp_path / "metric-fid4k_full.jsonl").symlink_to("victim")
    with pytest.raises(OSError, match=r"metric-fid4k_full\.jsonl.*|is a link"):
        append_results(tmp_path, [Result()], {})
    (tmp_path / "dangling").symlink_to("new")
    for mode in ("ab", "a+", "wb"):
        with pytest.raises(OSError, match="is a link"):
            open_no_link(tmp_path / "dangling", mode)
    assert (tmp_path / "victim").read_text() == "keep\n" and not (tmp_path / "new").exists()
    with open_no_link(tmp_path / "own", "ab") as file:
        file.write(b"a")
    assert (tmp_path / "own").read_bytes() == b"a" and (tmp_path / "own").stat().st_mode & 0o111 == 0


def test_linked_subfolders_are_not_filled(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run = make_run(tmp_path / "run")
    save_tiny(run / "network-snapshot-000001.safetensors", tiny_generator())
    (run / "clusters").symlink_to(tmp_path / "elsewhere")
    result = CliRunner().invoke(ggdr, ["clusters", "--run", str(run), "--device", "cpu", "--ops", "reference"])
    assert result.exit_code == 2 and "is a link, through which nothing is written" in " ".join(result.output.split())
    (run / "maps").mkdir()
    (run / "maps" / "b8").symlink_to(tmp_path / "elsewhere")
    for name in ("clusters", "maps/b8", "maps/b8/c"):
        with pytest.raises(OSError, match="is a link"):
            make_subfolder(run, name)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert make_subfolder(run, "maps/b16") == run / "maps" / "b16" and (run / "maps" / "b16").is_dir()


def test_runs_of_a_study_are_not_trained_elsewhere(tmp_path, dataset_zip):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study").mkdir()
    words = ["compare", "--outdir", tmp_path / "study", "--seeds", "0", "--variant", "a=--no-ggdr"]
    words += ["--metrics", "fd_offline0.05k_full", "--", "--data", dataset_zip]
    for link in ("a", "a/seed0"):
        (tmp_path / "study" / link).symlink_to(tmp_path / "elsewhere")
        result = CliRunner().invoke(ggdr, list(map(str, words)))
        assert result.exit_code == 2 and "is a link" in " ".join(result.output.split()), result.output
        (tmp_path / "study" / link).unlink()
        (tmp_path / "study" / "a").mkdir(exist_ok=True)
    assert not list((tmp_path / "elsewhere").iterdir())
