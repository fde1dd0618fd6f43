# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""log.txt, stats.jsonl, TensorBoard events, and messages on the terminal."""

from __future__ import annotations

import io
import json
import math
import re
import resource
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from ggdr.torch_utils import runlog
from ggdr.torch_utils.runlog import RunLog, read_stats
from tests.consoles import pipe, terminal, text_of


@pytest.fixture
def no_tensorboard(monkeypatch):
    """As if tensorboard were not installed: quick, and what most tests want."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def events_of(run_dir, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


# Messages.


def test_info_goes_to_the_file_with_the_time_and_to_the_output_as_it_is(tmp_path):
    console = pipe()
    msg = "loading [bold]x[/bold] :smile: " + "long " * 20
    with RunLog(tmp_path, total_nimg=1000, console=console) as log:
        log.info(msg)
        log.info("two\nlines")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[21:] for line in lines] == [msg.rstrip(), "two", "lines"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line[:19]) for line in lines)
    assert text_of(console) == msg + "\ntwo\nlines\n"


def test_log_file_is_appended_to(tmp_path):
    for msg in ("first", "second"):
        with RunLog(tmp_path / "run", total_nimg=1000, console=pipe()) as log:
            log.info(msg)
    assert [line[21:] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()] == [
        "first",
        "second",
    ]


def test_other_ranks_write_and_print_nothing(tmp_path):
    console = terminal()
    with RunLog(tmp_path / "run", total_nimg=1000, is_main=False, console=console) as log:
        log.truncate_after(0)
        log.info("hello")
        log.scalars(100, {"loss/D": 1.0})
        log.image("fakes", np.zeros([4, 4, 3], np.uint8), 100)
        log.progress(100, tick=1, D=1.0)
    assert not (tmp_path / "run").exists() and text_of(console) == ""


def test_without_a_folder_only_the_terminal_is_used():
    console = pipe()
    with RunLog(None, total_nimg=1000, console=console) as log:
        log.info("hello")
        log.truncate_after(0)
        log.scalars(100, {"loss/D": 1.0})
        log.progress(100, tick=1)
    assert text_of(console).startswith("hello\ntick 1")


# stats.jsonl.


def test_scalars_become_one_readable_line_each_at_once(tmp_path, no_tensorboard):
    log = RunLog(tmp_path, total_nimg=10_000, console=pipe())
    log.scalars(1500, {"loss/D": 1.25, "ada/p": np.float32(0.5)})
    log.scalars(3000, {"loss/D": 1.0})
    stats = read_stats(tmp_path)  # before the log is closed
    assert [(line["nimg"], line["kimg"], line["loss/D"]) for line in stats] == [
        (1500, 1.5, 1.25),
        (3000, 3.0, 1.0),
    ]
    assert stats[0]["ada/p"] == 0.5 and "ada/p" not in stats[1]
    assert stats[1]["time"] >= stats[0]["time"] > 1e9
    log.close()


def test_numbers_that_are_not_finite_are_null_in_valid_json(tmp_path, no_tensorboard):
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        log.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 2.0})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads((tmp_path / "stats.jsonl").read_text(), parse_constant=refuse)
    assert [line[key] for key in "abcd"] == [None, None, None, 2.0]


def test_reserved_names_are_refused(tmp_path):
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        with pytest.raises(ValueError, match="'time' is reserved"):
            log.scalars(1, {"time": 3.0})
    assert (tmp_path / "stats.jsonl").read_text() == ""


def test_resume_drops_lines_beyond_the_saved_state_and_goes_on(tmp_path, no_tensorboard):
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        for nimg in (1000, 2000, 3000, 4000):
            log.scalars(nimg, {"x": nimg})
    kept = (tmp_path / "stats.jsonl").read_bytes().splitlines(keepends=True)[:2]
    with open(tmp_path / "stats.jsonl", "ab") as file:
        file.write(b'{"nimg": 5000, "ki')  # killed while writing
    with RunLog(tmp_path, total_nimg=10_000, start_nimg=2000, console=pipe()) as log:
        log.truncate_after(2000)
        assert (tmp_path / "stats.jsonl").read_bytes() == b"".join(kept)
        log.scalars(2500, {"x": -1})
    assert [line["x"] for line in read_stats(tmp_path)] == [1000, 2000, -1]


def test_half_a_line_is_never_written_after(tmp_path, no_tensorboard):
    (tmp_path / "stats.jsonl").write_text('{"nimg": 1}\n{"nim')
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        log.scalars(2, {"x": 0.0})
    assert [line["nimg"] for line in read_stats(tmp_path)] == [1, 2]


def test_crash_while_truncating_keeps_the_file(tmp_path, no_tensorboard, monkeypatch):
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        for nimg in (1000, 2000):
            log.scalars(nimg, {"x": nimg})
    before = (tmp_path / "stats.jsonl").read_bytes()

    def crash(source, target):
        raise OSError(28, "No space left on device")

    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", crash)
            with pytest.raises(OSError, match="No space left"):
                log.truncate_after(1000)
    assert (tmp_path / "stats.jsonl").read_bytes() == before


def test_read_stats_leaves_out_half_a_last_line(tmp_path):
    (tmp_path / "stats.jsonl").write_text('{"nimg": 1, "x": null}\n{"nimg": 2, "x"')
    assert read_stats(tmp_path) == [{"nimg": 1, "x": None}]


@pytest.mark.parametrize("line", ['{"nimg": 2, "x"', "[1]", '{"kimg": 1}', "", "\x00\x00"])
def test_read_stats_names_file_and_line_of_what_is_no_record(tmp_path, line: str):
    (tmp_path / "stats.jsonl").write_text('{"nimg": 1}\n' + line + '\n{"nimg": 3}\n')
    with pytest.raises(ValueError, match=r"stats\.jsonl, line 2: expected a JSON object with 'nimg', got"):
        read_stats(tmp_path)


def test_read_stats_says_that_a_folder_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="expected a run folder with a stats.jsonl"):
        read_stats(tmp_path)


# A full disk.


def test_full_disk_names_the_file(tmp_path, no_tensorboard):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, room in (("log.txt", 10), ("stats.jsonl", 40)):
        with RunLog(tmp_path / name.replace(".", "-"), total_nimg=10_000, console=pipe()) as log:
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
                with pytest.raises(OSError, match=f"cannot be written.*{name}"):
                    log.info("x")
                    log.scalars(1, {"x": 1.0})
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_line_that_did_not_fit_is_taken_back(tmp_path, no_tensorboard):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        log.scalars(1, {"x": 1.0})
        whole = (tmp_path / "stats.jsonl").read_bytes()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))  # room for a part of the line
            with pytest.raises(OSError, match="stats.jsonl"):
                log.scalars(2, {"x": 2.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / "stats.jsonl").read_bytes() == whole
        log.scalars(3, {"x": 3.0})
    assert [line["nimg"] for line in read_stats(tmp_path)] == [1, 3]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_names_the_event_file_and_only_what_did_not_fit_is_lost(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        log.scalars(1, {"x": 1.0})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            with pytest.raises(OSError, match="events.out.tfevents"):
                log.image("noise", np.random.default_rng(0).integers(0, 256, [64, 64, 3], dtype=np.uint8), 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.scalars(3, {"x": 3.0})
    assert (3, 3.0) in events_of(tmp_path, "x")


def test_output_that_cannot_be_written_silences_the_terminal_and_nothing_else(tmp_path):
    class FullFile(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with RunLog(tmp_path, total_nimg=1, console=Console(file=FullFile())) as log:
        log.info("one")
        log.progress(1, tick=1)
        log.info("two")
    lines = [line[21:] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines[0] == "one" and lines[1].startswith("tick 1") and lines[2:] == ["two"]


def test_what_ended_the_run_is_not_hidden_by_a_log_that_cannot_be_closed(tmp_path, monkeypatch):
    def crash(self):
        raise OSError(28, "No space left on device")

    with pytest.raises(ZeroDivisionError):
        with RunLog(tmp_path, total_nimg=1, console=pipe()) as log:
            monkeypatch.setattr(runlog.RunLog, "close", crash)
            log.info(str(1 / 0))


# TensorBoard.


def test_tensorboard_gets_scalars_and_pictures_by_image_count(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    grid = np.zeros([4, 6, 4], np.uint8)
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        log.scalars(1500, {"loss/D": 1.25, "bad": math.nan})
        log.image("fakes", grid, 1500)
    assert events_of(tmp_path, "loss/D") == [(1500, 1.25)]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    image = events.Images("fakes")[0]
    assert (image.step, image.width, image.height) == (1500, 6, 4)


def test_resumed_run_purges_later_events(tmp_path, monkeypatch):
    with RunLog(tmp_path, total_nimg=10_000, console=pipe()) as log:
        for nimg in (1000, 2000, 3000):
            log.scalars(nimg, {"x": nimg})
    # TensorBoard reads files in the order of their names, which begin with the second.
    later = time.time() + 10
    monkeypatch.setattr(time, "time", lambda: later)
    with RunLog(tmp_path, total_nimg=10_000, start_nimg=2000, console=pipe()) as log:
        log.truncate_after(2000)
        log.scalars(4000, {"x": 4.0})
    assert events_of(tmp_path, "x") == [(1000, 1000.0), (2000, 2000.0), (4000, 4.0)]


def test_missing_tensorboard_is_said_once(tmp_path, no_tensorboard):
    console = pipe()
    with RunLog(tmp_path, total_nimg=10_000, console=console) as log:
        log.scalars(1, {"x": 1.0})
        log.scalars(2, {"x": 1.0})
        log.image("fakes", np.zeros([4, 4, 3], np.uint8), 2)
    assert text_of(console).count("tensorboard is not installed") == 1
    assert len(read_stats(tmp_path)) == 2
    assert not list(tmp_path.glob("events*"))
