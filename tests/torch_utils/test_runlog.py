# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""log.txt, stats.jsonl, TensorBoard events, and the terminal."""

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
from ggdr.torch_utils.runlog import RunLog, format_time, read_stats

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


@pytest.fixture
def no_tensorboard(monkeypatch):
    """As if tensorboard were not installed: quick, and what most tests want."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def terminal(width: int = 100) -> Console:
    return Console(force_terminal=True, width=width, height=30, file=io.StringIO(), _environ={"TERM": "xterm"})


def pipe() -> Console:
    return Console(force_terminal=False, width=40, file=io.StringIO(), _environ={})


def text_of(console: Console) -> str:
    return console.file.getvalue()


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


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


# Progress.


def test_without_a_terminal_each_tick_is_one_plain_line(tmp_path):
    console = pipe()
    with RunLog(tmp_path, total_nimg=25_000, console=console) as log:
        log.progress(11_000, D=9.0)  # between ticks: nothing
        log.progress(12_000, tick=3, sec_per_kimg=25.1, augment=0.012, D=1.35, G=None, ggdr=0.41)
    fields = re.split(r" {2,}", text_of(console).strip())
    names = [field.split(" ")[0] for field in fields]
    assert names == [
        "tick",
        "kimg",
        "time",
        "sec/tick",
        "sec/kimg",
        "cpumem",
        "gpumem",
        "augment",
        "D",
        "ggdr",
    ]
    assert {"tick 3", "kimg 12.0", "sec/kimg 25.10", "augment 0.012", "D 1.350", "ggdr 0.410"} <= set(fields)
    assert text_of(console).count("\n") == 1 and "\x1b" not in text_of(console)
    assert (tmp_path / "log.txt").read_text()[21:] == text_of(console)


@pytest.mark.parametrize(
    ("tick_nimg", "total_nimg", "shown"),
    [
        (4000, 25_000, "12.0"),
        (500, 25_000, "12.00"),
        (64, 25_000, "12.000"),
        (4000, 12_000, "12.0"),
        (None, 64, "12.000"),
    ],
)
def test_kimg_have_as_many_digits_as_a_tick_needs(tick_nimg, total_nimg, shown):
    lines, drawn = pipe(), terminal(width=80)
    for console in (lines, drawn):
        with RunLog(None, total_nimg=total_nimg, tick_nimg=tick_nimg, console=console) as log:
            log.progress(12_000, tick=3)
    assert f"kimg {shown} " in text_of(lines)
    assert f"kimg {shown}/{total_nimg / 1000:.{len(shown) - 3}f}  " in without_escapes(text_of(drawn))


def test_seconds_per_kimg_count_from_tick_to_tick(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runlog.time, "monotonic", lambda: now[0])
    console = pipe()
    with RunLog(None, total_nimg=25_000, start_nimg=5000, console=console) as log:
        for nimg, seconds in ((5000, 1), (7000, 60), (8000, 5)):
            now[0] += seconds
            log.progress(nimg, tick=0)
    lines = [re.sub(" +", " ", line) for line in text_of(console).splitlines()]
    assert "sec/tick 1.0 sec/kimg ? " in lines[0]
    assert "time 1m 01s sec/tick 60.0 sec/kimg 30.00 " in lines[1]
    assert "time 1m 06s sec/tick 5.0 sec/kimg 5.00 " in lines[2]


def test_terminal_bar_shows_counts_time_left_memory_and_losses(tmp_path):
    console = terminal(width=80)
    with RunLog(tmp_path, total_nimg=25_000, console=console) as log:
        log.progress(20_000, tick=3, sec_per_kimg=60.0, augment=0.012, D=1.35, G=0.82, ggdr=0.41)
        shown = without_escapes(text_of(console))
        assert HIDE_CURSOR in text_of(console)
    for part in (
        "kimg 20.0/25.0",
        "80%",
        "sec/kimg 60.00",
        "left 5m 00s",
        "augment 0.012",
        "D 1.350",
        "ggdr 0.410",
    ):
        assert part in shown
    assert re.search(r"cpumem \d+\.\dG  gpumem \d+\.\dG", shown)
    tick_lines = [line for line in shown.splitlines() if "sec/tick" in line]
    assert len(tick_lines) == 1 and tick_lines[0].strip() in (tmp_path / "log.txt").read_text()
    assert max(len(line) for line in shown.splitlines() if line not in tick_lines) <= 80


def test_messages_appear_above_the_bar():
    console = terminal()
    with RunLog(None, total_nimg=25_000, console=console) as log:
        log.progress(1000, tick=0)
        log.info("snapshot saved")
    shown = without_escapes(text_of(console))
    assert shown.index("snapshot saved") < shown.rindex("kimg 1.0/25.0")


def test_bar_is_not_drawn_at_every_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runlog.time, "monotonic", lambda: now[0])
    console = terminal()
    with RunLog(None, total_nimg=25_000, console=console) as log:
        for step in range(1, 101):
            now[0] += 0.1
            log.progress(step)
        drawn = text_of(console).count("sec/kimg")
    assert 15 <= drawn <= 25  # ten seconds, twice a second


def test_terminal_is_restored_after_an_exception():
    console = terminal()
    with pytest.raises(KeyboardInterrupt):
        with RunLog(None, total_nimg=25_000, console=console) as log:
            stdout, stderr = sys.stdout, sys.stderr
            log.progress(1000, tick=0)
            raise KeyboardInterrupt
    assert sys.stdout is stdout and sys.stderr is stderr
    text = text_of(console)
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_dumb_terminal_gets_plain_lines():
    console = Console(force_terminal=True, width=100, file=io.StringIO(), _environ={"TERM": "dumb"})
    with RunLog(None, total_nimg=25_000, console=console) as log:
        log.progress(1000, tick=0)
    assert text_of(console).startswith("tick 0") and HIDE_CURSOR not in text_of(console)


@pytest.mark.parametrize("environment", [{"FORCE_COLOR": "1"}, {"JPY_PARENT_PID": "7", "TERM": "xterm-color"}])
def test_output_that_cannot_be_drawn_over_gets_plain_lines(monkeypatch, environment):
    stdout = io.StringIO()
    stdout.isatty = lambda: "JPY_PARENT_PID" in environment  # a cell's command has a terminal, a pipe has none
    monkeypatch.setattr(sys, "stdout", stdout)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with RunLog(None, total_nimg=25_000) as log:
        log.progress(500)
        log.progress(1000, tick=0)
    assert stdout.getvalue().startswith("tick 0") and stdout.getvalue().count("\n") == 1
    assert "\x1b" not in stdout.getvalue()


def test_closing_twice_is_harmless(tmp_path):
    log = RunLog(tmp_path, total_nimg=1, console=terminal())
    log.progress(1, tick=0)
    log.close()
    log.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.6, "1m 00s"),
        (302, "5m 02s"),
        (3902, "1h 05m 02s"),
        (176_710, "2d 01h 05m"),
        (math.nan, "?"),
    ],
)
def test_durations_read_well(seconds: float, text: str):
    assert format_time(seconds) == text
