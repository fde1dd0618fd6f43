# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Progress of the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ggdr.torch_utils.terminal import can_redraw

Progress = Callable[[str, int, int], None]  # what, done, total


@contextmanager
def progress_bars(shown: bool = True) -> Iterator[Progress]:
    """Yields `progress(what, done, total)`, which keeps a bar for each `what` on standard error.

    It does nothing where nothing can be drawn over on standard error, or `shown` is False.
    """
    if not (shown and can_redraw(sys.stderr)):
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    look = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield progress


@contextmanager
def busy_with(what: str) -> Iterator[None]:
    """Shows what takes its time inside, where nothing can be counted; nothing where it could not be drawn over."""
    if not can_redraw(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(what)):
        yield
