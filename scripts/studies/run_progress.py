# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a study says while its runs go on: one line each on a terminal, and a line at every start and end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ggdr.scripts.errors import EXIT_STOPPED
from ggdr.scripts.measuring.snapshot_metrics import MEASURING
from ggdr.scripts.studies.study_folder import StudyRun, tail
from ggdr.scripts.terminal import say
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.checkpoint import SnapshotError, load_state
from ggdr.torch_utils.runlog import LOG_FILE, SPEED_KEY, STATS_FILE, format_time
from ggdr.torch_utils.terminal import can_redraw
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json

if TYPE_CHECKING:
    from rich.progress import TaskID

REFRESH_SECONDS = 1.0


class RunProgress:
    """Lines about runs; a context manager, which restores the terminal."""

    def __init__(self) -> None:
        self._bars = None
        self._tasks: dict[StudyRun, tuple[TaskID, Path | None]] = {}
        self._old_lines: dict[StudyRun, str] = {}  # the last ones of their logs before they were started
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

    def begin(self, missing: int, total: int, unmeasured: int) -> None:
        """At the start of a study; `unmeasured` finished runs have snapshots without all metrics."""
        self._missing = missing
        to_go = f", {missing} to go" if missing else ""
        measure = f", {unmeasured} to be measured" if unmeasured else ""
        self._say(f"{total - missing} of {total} runs are finished{to_go}{measure}")

    def train(self, run: StudyRun, folder: Path) -> None:
        """A run's training is about to be started."""
        self._num_started += 1
        kimg = _resumed_kimg(folder)
        how = f"started {run.name}" if kimg is None else f"resumed {run.name} at kimg {kimg:g}"
        self._say(f"{how} ({self._num_started} of {self._missing})")
        self._old_lines[run] = _last_log_line(folder)
        self._begin_line(run, folder, "starting")

    def measure(self, run: StudyRun, what: str) -> None:
        """Metrics of one of a run's snapshots are about to be computed."""
        self._say(f"measuring {run.name}: {what}")
        self._begin_line(run, None, f"measuring {what}")

    def make_maps(self, run: StudyRun) -> None:
        """A run's cluster maps are about to be made."""
        self._begin_line(run, None, "cluster maps")

    def note_busy(self, run: StudyRun) -> None:
        """A run has to wait, since another process trains in its folder."""
        if run not in self._busy:
            self._busy.add(run)
            self._say(f"waiting for {run.name}: another process trains in its folder")

    def stopping(self, saving: Sequence[StudyRun], *, again: bool) -> None:
        """A signal asked to stop, the first one or one `again`, and some runs save before they end."""
        if again and saving:
            names = ", ".join(run.name for run in saving)
            self._say(f"still saving: {names}; the study ends when {'it has' if len(saving) == 1 else 'they have'}")
        elif not again:
            count = "1 run saves" if len(saving) == 1 else f"{len(saving)} runs save"
            self._say(f"stopping: {count} first" if saving else "stopping")

    def trained(self, run: StudyRun, code: int, last_line: str) -> None:
        """A run's training ended."""
        what = {0: "finished", EXIT_STOPPED: "stopped"}.get(code, f"FAILED with exit code {code}:")
        took = format_time(time.monotonic() - self._started[run])
        self._say(f"{what} {run.name} after {took}" + ("" if code in (0, EXIT_STOPPED) else f": {last_line}"))

    def not_measured(self, run: StudyRun, what: str, last_line: str) -> None:
        """Metrics of a snapshot could not be computed."""
        self._say(f"NOT measured {run.name}: {what}: {last_line}")

    def end(self, run: StudyRun) -> None:
        """A run's process is gone, and so is its line on a terminal."""
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(run)[0])

    def refresh(self) -> None:
        """Draws the lines anew, once in a while."""
        now = time.monotonic()
        if self._bars is None or now - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = now
        for run, (task, folder) in self._tasks.items():
            if folder is None:
                continue
            kimg, total, left = how_far(folder)
            if total is not None:
                text = f"kimg {kimg:g}/{total:g}  left {'?' if left is None else format_time(left)}"
                if is_measuring(folder, self._old_lines[run]):
                    text += f"  {MEASURING}"
                self._bars.update(task, completed=kimg, total=total, text=text)
        self._bars.refresh()

    def _begin_line(self, run: StudyRun, folder: Path | None, text: str) -> None:
        """A line of its own on a terminal, which tells of the training in a folder if there is one."""
        self._started[run] = time.monotonic()
        if self._bars is not None:
            self._tasks[run] = self._bars.add_task(run.name, total=None, text=text), folder

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


def is_measuring(folder: Path, old_line: str = "") -> bool:
    """Whether the run in a folder computes metrics, as the last line of its log tells.

    Args:
        old_line: of the log before the run was started, of which a process that was killed is the author.
    """
    line = _last_log_line(folder)
    return line != old_line and line.partition("  ")[2].startswith(f"{MEASURING} ")


def _last_log_line(folder: Path) -> str:
    return tail(folder / LOG_FILE).rpartition("\n")[2]


def _resumed_kimg(folder: Path) -> float | None:
    """Where a run goes on from; None if it has no state yet, or one that is damaged, of which the run itself tells."""
    try:
        nimg = load_state(RunFolder(folder).state_path)["counters"]["nimg"]
    except (SnapshotError, LookupError, TypeError):
        return None
    return nimg / 1000 if is_finite(nimg) else None
