# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Consoles that keep what is written, for tests of what a user sees."""

from __future__ import annotations

import io
import re

from rich.console import Console

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


def terminal(width: int = 100) -> Console:
    return Console(force_terminal=True, width=width, height=30, file=io.StringIO(), _environ={"TERM": "xterm"})


def pipe() -> Console:
    return Console(force_terminal=False, width=40, file=io.StringIO(), _environ={})


def text_of(console: Console) -> str:
    return console.file.getvalue()


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
