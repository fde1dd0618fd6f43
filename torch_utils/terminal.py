# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Whether progress can be drawn in place."""

from __future__ import annotations

import os
from typing import TextIO


def can_redraw(stream: TextIO) -> bool:
    """Whether lines of a stream can be drawn over: on a terminal that knows how, and not below a notebook's cell.

    A command that a cell starts with ! has a terminal, too, but the cell shows each drawing below the one before.
    """
    try:
        is_terminal = stream.isatty()
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False
    return is_terminal and os.environ.get("TERM") not in ("dumb", "unknown") and not _is_below_notebook()


def _is_below_notebook() -> bool:
    """Whether a kernel of Jupyter is this process or started it; some front ends tell by one of its settings alone."""
    kernel = {"TERM": "xterm-color", "GIT_PAGER": "cat", "CLICOLOR_FORCE": "1"}
    return "JPY_PARENT_PID" in os.environ or kernel.items() <= os.environ.items()
