# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a run shows of its progress, on a terminal and elsewhere."""

from __future__ import annotations

import io
import math
import re
import sys

import pytest
from rich.console import Console

from ggdr.torch_utils import runlog
from ggdr.torch_utils.runlog import RunLog, format_time
from tests.consoles import HIDE_CURSOR, SHOW_CURSOR, pipe, terminal, text_of, without_escapes


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
