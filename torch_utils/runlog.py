# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a run says about itself: log.txt, stats.jsonl, TensorBoard events, and the terminal."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ggdr.torch_utils.appended_file import AppendedFile
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.event_file import EventFile
from ggdr.torch_utils.terminal import can_redraw
from ggdr.torch_utils.timing.memory import memory_gib
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json
from ggdr.torch_utils.untrusted.regular_files import read_lines
from ggdr.torch_utils.untrusted.text import printable, visible

REFRESH_SECONDS = 0.5  # least time between two drawings of the progress bar
STATS_FILE = "stats.jsonl"  # in a run folder
LOG_FILE = "log.txt"
RESERVED_KEYS = ("nimg", "kimg", "time")
SPEED_KEY = "time/sec_per_kimg"  # under which loops report their speed, which is without snapshots and metrics


class _Console(Console):
    """A console that leaves it to RunLog what a broken pipe means; rich would end the program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class RunLog:
    """Log of one run; on any rank but the main one every method does nothing.

    Args:
        run_dir:    folder of log.txt, stats.jsonl and TensorBoard events, made if missing; None: only print.
        total_nimg: length of the run in images.
        tick_nimg:  length of a tick in images, after which kimg are shown with enough digits to differ; None: unknown.
        start_nimg: images trained before this process; on resume call `truncate_after(start_nimg)` too.
        is_main:    False on every rank but 0.
        console:    where to print; None is standard output.

    Raises:
        OSError: here and in every method: a file is a link, or cannot be written, e.g. since the disk is full. Names
            the file. A line that did not fit is taken back, so that the file stays readable.

    Used as a context manager, it closes the files and restores the terminal, also after an exception.
    """

    def __init__(
        self,
        run_dir: Path | None,
        *,
        total_nimg: int,
        tick_nimg: int | None = None,
        start_nimg: int = 0,
        is_main: bool = True,
        console: Console | None = None,
    ) -> None:
        self._is_main = is_main
        self._run_dir = run_dir if is_main else None
        self._total_nimg = total_nimg
        self._digits = kimg_digits(min(total_nimg, tick_nimg or total_nimg))
        # Plain lines where a bar cannot be drawn in place, whatever rich takes the output for.
        self._console = console or _Console(force_terminal=can_redraw(sys.stdout), force_jupyter=False)
        self._has_bar = self._console.is_terminal and not self._console.is_dumb_terminal
        self._prints = is_main
        self._live: Live | None = None
        self._log: AppendedFile | None = None
        self._stats: AppendedFile | None = None
        self._events: EventFile | None = None
        self._events_wanted = self._run_dir is not None
        self._purge_step = start_nimg + 1 if start_nimg > 0 else None

        # Clock: of the whole run, and of the last tick.
        self._start_time = self._tick_time = time.monotonic()
        self._start_nimg = self._tick_nimg = start_nimg
        self._sec_per_kimg = math.nan
        self._drawn_at = -math.inf

        if self._run_dir is not None:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            self._log = AppendedFile.of_lines(self._run_dir / LOG_FILE)
            self._stats = AppendedFile.of_lines(self._run_dir / STATS_FILE)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # What ended the run matters more than a log that cannot be closed.
        with contextlib.suppress(*(() if exc is None else (OSError,))):
            self.close()

    def close(self) -> None:
        """Stop the progress bar, restore the terminal, close the files; more than once is harmless."""
        try:
            if self._live is not None:
                with self._output():
                    self._live.stop()
        finally:
            self._live = None
            for file in (self._log, self._stats):
                if file is not None:
                    file.close()
            events, self._events, self._events_wanted = self._events, None, False
            if events is not None:
                events.close()

    def truncate_after(self, nimg: int) -> None:
        """Drop what an earlier process logged beyond the state that it saved.

        Lines of stats.jsonl with more than `nimg` images go, and so does a half-written last line;
        TensorBoard is told to drop its events beyond `nimg`. log.txt keeps everything.

        Raises:
            ValueError: stats.jsonl holds a line that is no JSON object with `nimg`.
        """
        if self._run_dir is None:
            return
        self._purge_step = nimg + 1
        path = self._run_dir / STATS_FILE
        kept = [line for line, record in _stats_lines(path) if record["nimg"] <= nimg]
        assert self._stats is not None
        self._stats.close()
        with atomic_write(path) as file:
            file.write(b"".join(kept))
        self._stats = AppendedFile.of_lines(path)

    def info(self, msg: str) -> None:
        """Write a message to log.txt (each line with date and time) and to the terminal, control characters escaped."""
        if self._is_main:
            msg = visible(msg)
            self._write_log(msg)
            self._print(msg)

    def scalars(self, nimg: int, values: Mapping[str, float]) -> None:
        """Append one line to stats.jsonl: nimg, kimg, time (Unix time, seconds) and `values`.

        Numbers that are not finite become null, since JSON has none of them. TensorBoard gets the same, with
        `nimg` as its step.

        Raises:
            ValueError: a name in `values` is nimg, kimg or time.
        """
        for key in RESERVED_KEYS:
            if key in values:
                raise ValueError(f"scalar name {key!r} is reserved; got {sorted(values)}")
        if self._stats is None:
            return
        numbers = {key: float(value) for key, value in values.items()}
        record = {"nimg": nimg, "kimg": nimg / 1000, "time": round(time.time(), 3)}
        record |= {key: number if math.isfinite(number) else None for key, number in numbers.items()}
        self._stats.append_line(json.dumps(record, allow_nan=False))
        events = self._event_file()
        if events is not None:
            for key, number in numbers.items():
                events.scalar(key, number, nimg)

    def image(self, name: str, grid: np.ndarray, nimg: int) -> None:
        """Show a picture in TensorBoard; `grid` is [H, W, C] uint8, C = 1, 3 or 4."""
        events = self._event_file()
        if events is not None:
            events.image(name, grid, nimg)

    def progress(
        self,
        nimg: int,
        *,
        tick: float | None = None,
        sec_per_kimg: float | None = None,
        **fields: float | None,
    ) -> None:
        """Move the progress bar; with `tick` also write a status line.

        On a terminal, though not below a notebook's cell, the bar shows kimg done and to do, sec/kimg, the time left,
        memory and `fields`; it is drawn twice a second at most, so calling this every step costs nothing. The
        status line goes to log.txt and to standard output, above the bar if there is one:
        `tick 3  kimg 12.0  time 5m 02s  sec/tick 100.1  sec/kimg 25.10  cpumem 1.2G  gpumem 0.0G  D 1.350`

        Args:
            nimg:         images so far.
            tick:         number of the tick that ends here, with a fraction where only a part of it is over; None
                          between ticks.
            sec_per_kimg: the tick's, if the caller has a better clock; None: wall time from tick to tick.
            fields:       shown under their names, in this order (augment, D, G, ggdr); None leaves one out.
        """
        if not self._is_main:
            return
        now = time.monotonic()
        shown = {name: float(value) for name, value in fields.items() if value is not None}
        if tick is not None:
            sec_per_tick = now - self._tick_time
            if sec_per_kimg is None and nimg > self._tick_nimg:
                sec_per_kimg = sec_per_tick * 1000 / (nimg - self._tick_nimg)
            self._sec_per_kimg = self._sec_per_kimg if sec_per_kimg is None else sec_per_kimg
            self._tick_time, self._tick_nimg = now, nimg
            kimg = f"{nimg / 1000:.{self._digits}f}"
            line = status_line(tick, kimg, now - self._start_time, sec_per_tick, self._sec_per_kimg, shown)
            self._write_log(line)
            self._print(line)
        if self._has_bar and self._prints and (tick is not None or now - self._drawn_at >= REFRESH_SECONDS):
            self._drawn_at = now
            self._draw(nimg, shown)

    def _draw(self, nimg: int, fields: Mapping[str, float]) -> None:
        """Draw the two lines of the progress bar."""
        rate = self._sec_per_kimg
        if not math.isfinite(rate) and nimg > self._start_nimg:  # the first tick is not over yet
            rate = (time.monotonic() - self._start_time) * 1000 / (nimg - self._start_nimg)
        left = (self._total_nimg - nimg) / 1000 * rate
        total = max(self._total_nimg, 1)
        done = min(nimg / total, 1.0)
        bar = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None, None, None):
            bar.add_column(ratio=ratio, no_wrap=True)
        bar.add_row(
            Text(f"kimg {nimg / 1000:.{self._digits}f}/{self._total_nimg / 1000:.{self._digits}f}", style="bold"),
            ProgressBar(total=total, completed=min(nimg, total)),
            Text(f"{done:4.0%}", style="cyan"),
            Text(f"sec/kimg {format_rate(rate)}"),
            Text(f"left {format_time(max(left, 0))}", style="green"),
        )
        parts = [*memory_fields().items(), *((name, f"{value:.3f}") for name, value in fields.items())]
        status = Text(no_wrap=True, overflow="ellipsis")
        for name, value in parts:
            status.append(f"{name} ", style="dim").append(f"{value}  ")
        with self._output():
            if self._live is None:
                # No refresh thread: `progress` is called often enough.
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(Group(bar, status), refresh=True)

    def _write_log(self, msg: str) -> None:
        """Append to log.txt, each line with the time."""
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            lines = (f"{stamp}  {line}".rstrip() for line in (msg.splitlines() or [""]))
            self._log.append_line("\n".join(lines))

    def _print(self, msg: str) -> None:
        """Print as it is: no markup, no wrapping at the width of a pipe; above the bar where there is one."""
        if not self._prints:
            return
        with self._output():
            self._console.print(msg, markup=False, highlight=False, emoji=False, soft_wrap=True)
            if not self._has_bar:
                self._console.file.flush()

    def _event_file(self) -> EventFile | None:
        """TensorBoard's file, made on first use; None where there is none."""
        if self._events_wanted and self._events is None:
            try:
                self._events = EventFile(self._run_dir, self._purge_step)
            except ImportError:
                self._events_wanted = False
                self.info("tensorboard is not installed: no event files (stats.jsonl has the same numbers)")
        return self._events

    @contextlib.contextmanager
    def _output(self) -> Iterator[None]:
        """Print inside. If that fails (Ctrl-C ended the `tee` behind us, say), the rest of the run is silent."""
        try:
            yield
        except OSError:
            self._prints, self._live = False, None
            with contextlib.suppress(OSError):  # what is still buffered must not fail later, at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._console.file.fileno())


def read_stats(run_dir: str | Path) -> list[dict]:
    """Read a run's stats.jsonl, one dict a line; a last line that is only half written is left out.

    Raises:
        ValueError: the run has no stats.jsonl, or a line is no JSON object with a number `nimg`.
        OSError:    it cannot be read, or is larger than 64 MiB.
    """
    path = Path(run_dir) / STATS_FILE
    if not path.is_file():
        raise ValueError(f"{run_dir}: expected a run folder with a stats.jsonl, found none")
    return [record for _, record in _stats_lines(path)]


def status_line(
    tick: float,
    kimg: str,
    seconds: float,
    sec_per_tick: float,
    sec_per_kimg: float,
    fields: Mapping[str, float],
) -> str:
    """One line on a tick: counters, time since the start, speed, memory and `fields`."""
    parts = {
        "tick": f"{tick:<5g}",
        "kimg": f"{kimg:<8s}",
        "time": f"{format_time(seconds):<11s}",
        "sec/tick": f"{sec_per_tick:<7.1f}",
        "sec/kimg": f"{format_rate(sec_per_kimg):<7s}",
        **{name: f"{value:<6s}" for name, value in memory_fields().items()},
        **{name: f"{value:<7.3f}" for name, value in fields.items()},
    }
    return " ".join(f"{name} {value}" for name, value in parts.items()).rstrip()


def kimg_digits(nimg: int) -> int:
    """Decimals of kimg, 1 to 3, that show a step of so many images to a tenth of it.

    >>> kimg_digits(4000), kimg_digits(500), kimg_digits(64)
    (1, 2, 3)
    """
    return 1 if nimg >= 1000 else 2 if nimg >= 100 else 3


def format_time(seconds: float) -> str:
    """`41s`, `5m 02s`, `1h 05m 02s`, `2d 01h 05m`; `?` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, secs = divmod(round(seconds), 60)
    hours, mins = divmod(minutes, 60)
    days, hrs = divmod(hours, 24)
    if days:
        return f"{days}d {hrs:02d}h {mins:02d}m"
    if hours:
        return f"{hours}h {mins:02d}m {secs:02d}s"
    return f"{minutes}m {secs:02d}s" if minutes else f"{secs}s"


def format_rate(sec_per_kimg: float) -> str:
    """Seconds per thousand images, two decimals; `?` if not finite."""
    return f"{sec_per_kimg:.2f}" if math.isfinite(sec_per_kimg) else "?"


def memory_fields() -> dict[str, str]:
    """This process's memory: resident now, and the peak of tensors on the GPU (0 without one)."""
    found = memory_gib()
    return {"cpumem": f"{found['memory/cpu_gib']:.1f}G", "gpumem": f"{found.get('memory/gpu_gib', 0):.1f}G"}


def _stats_lines(path: Path) -> Iterator[tuple[bytes, dict]]:
    """Each line's bytes and what it says; a last line without its end is left out."""
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = parse_json(line)
            valid = isinstance(record, dict) and is_finite(record.get("nimg"))
        except ValueError:
            valid = False
        if not valid:
            text = line.decode(errors="replace").rstrip()
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise ValueError(f"{path}, line {number}: expected a JSON object with 'nimg', got {printable(shown)!r}")
        yield line, record
