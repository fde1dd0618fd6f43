# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a study says while its runs go on: one line each on a terminal, and a line at every start and end."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ggdr.scripts.errors import EXIT_STOPPED
from ggdr.scripts.studies.study_folder import StudyRun, tail
from ggdr.scripts.terminal import say
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.runlog import SPEED_KEY, STATS_FILE, format_time
from ggdr.torch_utils.terminal import can_redraw
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json

if TYPE_CHECKING:
    from rich.progress import TaskID

REFRESH_SECONDS = 1.0


class RunProgress:
    """Lines about runs; a context manager, which restores the terminal."""

    def __init__(self) -> None:
        self._bars = None
        self._tasks: dict[StudyRun, tuple[TaskID, Path]] = {}
        self._started: dict[StudyRun, float] = {}
        self._busy: set[StudyRun] = set()
        self._num_started, self._missing, self._refreshed = 0, 0, 0.0

    def __enter__(self) -> RunProgress:
        if can_redraw(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            look = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bars = Progress(*look, console=Console(stderr=True), transient=True, auto_refresh=False)
            self._bars.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, missing: int, total: int) -> None:
        """At the start of a study."""
        self._missing = missing
        self._say(f"{total - missing} of {total} runs are finished" + (f", {missing} to go" if missing else ""))

    def start(self, run: StudyRun, folder: Path) -> None:
        """A run's process was started."""
        self._num_started += 1
        self._started[run] = time.monotonic()
        self._say(f"started {run.name} ({self._num_started} of {self._missing})")
        if self._bars is not None:
            self._tasks[run] = self._bars.add_task(run.name, total=None, text="starting"), folder

    def note_busy(self, run: StudyRun) -> None:
        """A run has to wait, since another process trains in its folder."""
        if run not in self._busy:
            self._busy.add(run)
            self._say(f"waiting for {run.name}: another process trains in its folder")

    def end(self, run: StudyRun, code: int, last_line: str) -> None:
        """A run's process ended."""
        what = {0: "finished", EXIT_STOPPED: "stopped"}.get(code, f"FAILED with exit code {code}:")
        took = format_time(time.monotonic() - self._started[run])
        self._say(f"{what} {run.name} after {took}" + ("" if code in (0, EXIT_STOPPED) else f": {last_line}"))
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(run)[0])

    def refresh(self) -> None:
        """Draws the lines anew, once in a while."""
        now = time.monotonic()
        if self._bars is None or now - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = now
        for task, folder in self._tasks.values():
            kimg, total, left = how_far(folder)
            if total is not None:
                text = f"kimg {kimg:g}/{total:g}  left {'?' if left is None else format_time(left)}"
                self._bars.update(task, completed=kimg, total=total, text=text)
        self._bars.refresh()

    def _say(self, line: str) -> None:
        """One line that stays, above the bars; nothing where nobody listens any more, and runs go on."""
        with suppress(OSError):
            if self._bars is None:
                say(line)
            else:
                self._bars.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def how_far(folder: Path) -> tuple[float, float | None, float | None]:
    """kimg done, kimg to be done in all (None before the run has begun), and seconds left (None if unknown)."""
    total = None
    with suppress(SnapshotError, LookupError, TypeError):
        total = RunFolder(folder).read_options()["loop"]["total_nimg"] / 1000
    for text in reversed(tail(folder / STATS_FILE).splitlines()):
        with suppress(ValueError, LookupError, TypeError):
            line = parse_json(text)
            kimg, rate = line["nimg"] / 1000, line[SPEED_KEY]  # lines of metrics have no speed
            left = max(total - kimg, 0) * rate if total is not None and is_finite(rate) else None
            return kimg, total, left
    return 0.0, total, None
