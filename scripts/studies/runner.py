# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The processes of a study: so many runs side by side, each resumed where it stopped, all stopped by one signal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ggdr.scripts.errors import EXIT_STOPPED
from ggdr.scripts.studies.definition import Study
from ggdr.scripts.studies.machine_shares import share_environment
from ggdr.scripts.studies.run_progress import RunProgress
from ggdr.scripts.studies.steps import Step, next_step, sheets_to_make
from ggdr.scripts.studies.study_folder import StudyFolder, StudyRun, runs_in_order
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.child_python import module_command
from ggdr.torch_utils.untrusted.regular_files import make_subfolder, open_no_link, refuse_link

CHILD = "ggdr.scripts.studies.child_process"
POLL_SECONDS = 0.1


@dataclass
class Outcome:
    """How a start of a study ended.

    Attributes:
        failed:     runs whose training failed.
        unmeasured: runs of which a snapshot could not be measured.
        signal:     that asked to stop.
        left:       runs of which something is left to do since then.
    """

    failed: list[StudyRun] = field(default_factory=list)
    unmeasured: list[StudyRun] = field(default_factory=list)
    signal: signal.Signals | None = None
    left: list[StudyRun] = field(default_factory=list)


@dataclass(frozen=True)
class Process:
    """What goes on of a run."""

    run: StudyRun
    step: Step
    handle: subprocess.Popen


class StudyRunner:
    """Runs what is missing of a study.

    Args:
        jobs:     runs side by side.
        gpus:     names of those that runs share, as in CUDA_VISIBLE_DEVICES; none: runs are not told which to take.
        clusters: make cluster maps of each run's last snapshot when it has come to its end.
        on_end:   called after each run that is complete but the last one.
        progress: told of all that happens.
    """

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        jobs: int,
        gpus: list[str],
        *,
        clusters: bool,
        on_end: Callable[[], None],
        progress: RunProgress,
    ) -> None:
        self.study, self.folder, self.jobs, self.gpus = study, folder, jobs, gpus
        self.clusters, self.on_end, self.progress = clusters, on_end, progress
        self._active: dict[int, Process] = {}  # by slot
        self._waiting: list[StudyRun] = []
        self._tried: set[Path] = set()  # snapshots that were measured, or could not be
        self._signals = self._answered = 0
        self._saving: list[StudyRun] = []  # those that trained when the first signal came
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Does what is left of all runs; those that fail leave the others going.

        The first SIGINT, SIGTERM or SIGHUP is passed on, and then all runs are waited for, which save first.

        Raises:
            OSError: a process or a file of the study cannot be made.
        """
        runs = runs_in_order(self.study)
        steps = {run: step for run in runs if (step := self._next_step(run)) is not None}
        self._waiting = list(steps)
        missing = sum(step.trains for step in steps.values())
        unmeasured = sum(step.measures is not None for step in steps.values())
        self.progress.begin(missing, len(runs), unmeasured)
        with self._heeding_signals():
            try:
                while self._active or (self._waiting and self._outcome.signal is None):
                    self._start_some()
                    time.sleep(POLL_SECONDS)
                    self._answer_signals()
                    self.progress.refresh()
                    self._collect()
            finally:
                # After an error of this process none of its runs stays behind; a second signal would not let them save.
                if self._outcome.signal is None:
                    self._stop_all(signal.SIGTERM)
                for process in self._active.values():
                    process.handle.wait()
        if self._outcome.signal is not None:
            self._outcome.left = [
                run for run in runs if run not in self._outcome.failed and self._next_step(run) is not None
            ]
        return self._outcome

    def _next_step(self, run: StudyRun) -> Step | None:
        return next_step(self.study, self.folder, run, clusters=self.clusters, left_out=self._tried)

    def _start_some(self) -> None:
        """Fills free slots with the first runs whose folders nobody trains in."""
        free = [slot for slot in range(self.jobs) if slot not in self._active]
        for run in list(self._waiting):
            if not free or self._outcome.signal is not None:
                return
            if RunFolder(self.folder.run_folder(run)).in_use():
                self.progress.note_busy(run)
                continue
            self._waiting.remove(run)
            step = self._next_step(run)
            if step is not None:  # nobody else has done it meanwhile
                self._start(run, step, free.pop(0))

    def _start(self, run: StudyRun, step: Step, slot: int) -> None:
        """Tells of a step and starts its process."""
        folder = self.folder.run_folder(run)
        make_subfolder(self.folder.path, run.variant.name)
        refuse_link(folder)
        if step.trains:
            self.folder.ended.pop(run.name, None)
            self.progress.train(run, folder)
        elif step.measures is not None:
            self.progress.measure(run, str(step.measures))
        else:
            self.progress.make_maps(run)
        self._active[slot] = Process(run, step, self._open(run, slot, step.words))
        if self._outcome.signal is not None:  # it came while the process was being started
            _send(self._active[slot], self._outcome.signal)

    def _open(self, run: StudyRun, slot: int, words: list[str]) -> subprocess.Popen:
        """`ggdr WORDS` in a session of its own, so that Ctrl-C reaches it through this process alone; it prints to the
        run's log."""
        with open_no_link(self.folder.log(run), "ab") as output:
            output.write(f"$ {shlex.join(['ggdr', *words])}\n".encode())
            output.flush()
            return subprocess.Popen(
                [*module_command(CHILD), str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=share_environment(self.jobs, slot, self.gpus),
                start_new_session=True,
            )

    def _collect(self) -> None:
        """Takes note of processes that ended, and goes on with what is next of their runs."""
        for slot, process in list(self._active.items()):
            code = process.handle.poll()
            if code is None:
                continue
            del self._active[slot]
            self._note_end(process, code)
            self.progress.end(process.run)
            if self._outcome.signal is not None:
                continue
            step = self._next_step(process.run)
            if step is not None and not step.trains:  # one that failed is trained again by the next start
                self._start(process.run, step, slot)
            elif self._active or self._waiting:
                self.on_end()

    def _note_end(self, process: Process, code: int) -> None:
        """What came of a process."""
        run, step, is_stopping = process.run, process.step, self._outcome.signal is not None
        if step.trains:
            if code != 0 and is_stopping:
                code = EXIT_STOPPED  # also where it had not come so far that it could save
            self.folder.ended[run.name] = code
            if code == 0 and self.clusters:
                self.folder.without_sheets.update(sheets_to_make(self.study, run))
            if code != 0 and not is_stopping:
                self._outcome.failed.append(run)
            self.progress.trained(run, code, self.folder.last_line(run))
        elif code != 0 and is_stopping:
            return  # it is left to the next start
        elif step.measures is not None:
            self._tried.add(step.measures.snapshot)
            if code != 0:
                self.progress.not_measured(run, str(step.measures), self.folder.last_line(run))
            if code != 0 and run not in self._outcome.unmeasured:
                self._outcome.unmeasured.append(run)
        else:
            self.folder.without_sheets.discard(step.fills)  # also of networks that need a class; the log says why
        self.folder.write(self.study)

    def _answer_signals(self) -> None:
        """Says what is waited for; here, since a handler may come in the middle of another line."""
        if self._answered < self._signals:
            again = self._answered > 0
            self.progress.stopping(self._training() if again else self._saving, again=again)
            self._answered = self._signals

    def _training(self) -> list[StudyRun]:
        return [x.run for x in self._active.values() if x.step.trains and x.handle.poll() is None]

    def _stop_all(self, number: signal.Signals) -> None:
        for process in self._active.values():
            _send(process, number)

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Passes the first signal on. One that is ignored, as SIGHUP under nohup, stays so."""
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        previous: Mapping[int, object] = {number: signal.getsignal(number) for number in numbers}

        def handle(number: int, frame: object) -> None:
            self._signals += 1
            if self._outcome.signal is None:
                self._outcome.signal, self._saving = signal.Signals(number), self._training()
                self._stop_all(self._outcome.signal)

        for number, handler in previous.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _send(process: Process, number: signal.Signals) -> None:
    """A signal to a process, which tells in its log which one it was; on Windows there is one alone."""
    process.handle.send_signal(number if os.name == "posix" else signal.SIGTERM)
