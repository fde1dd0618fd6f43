# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where progress is drawn in place, and processes that end with the one that started them."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from ggdr.torch_utils.terminal import can_redraw
from tests.conftest import python

KERNEL = {"TERM": "xterm-color", "GIT_PAGER": "cat", "CLICOLOR_FORCE": "1"}


@pytest.mark.parametrize(
    ("environment", "is_terminal", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "JPY_PARENT_PID": "7"}, True, False),
        (KERNEL, True, False),
        ({"TERM": "xterm-color"}, True, True),
    ],
)
def test_lines_are_drawn_over_on_terminals_but_below_no_cell_of_a_notebook(
    monkeypatch, environment, is_terminal, expected
):
    for name in (*KERNEL, "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    assert can_redraw(stream) == expected


def test_a_closed_or_missing_stream_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    assert not can_redraw(stream) and not can_redraw(None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_a_process_is_told_to_stop_when_the_one_that_started_it_is_killed():
    child = (
        "import time; from ggdr.torch_utils.parent_process import stop_with_parent; stop_with_parent(); "
        "print('ready', flush=True); time.sleep(60)"
    )
    parent = python(
        "-c",
        f"import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)",
    )
    assert parent.stdout.readline() == "ready\n"
    parent.send_signal(signal.SIGKILL)
    # The pipe ends when nobody holds its other end any more.
    assert parent.stdout.read() == ""
