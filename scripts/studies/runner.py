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

from ggdr.scripts.errors import EXIT_STOPPED
from ggdr.scripts.studies.definition import Study
from ggdr.scripts.studies.machine_shares import share_environment
from ggdr.scripts.studies.run_progress import RunProgress
from ggdr.scripts.studies.study_folder import StudyFolder, StudyRun, runs_in_order
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.scripts.training.snapshot_files import snapshots_in
from ggdr.torch_utils.child_python import module_command
from ggdr.torch_utils.untrusted.regular_files import make_subfolder, open_no_link, refuse_link

CHILD = "ggdr.scripts.studies.child_process"
CLUSTERED = ("train",)  # commands whose snapshots `ggdr clusters` reads
POLL_SECONDS = 0.1


@dataclass
class Outcome:
    """How a start of a study ended."""

    failed: list[StudyRun] = field(default_factory=list)
    signal: str | None = None  # that stopped it


class StudyRunner:
    """Runs what is missing of a study.

    Args:
        jobs:     runs side by side.
        gpus:     names of those that runs share, as in CUDA_VISIBLE_DEVICES; none: runs are not told which to take.
        clusters: make cluster maps of each run's last snapshot when it has come to its end.
        on_end:   called after each run that ended but the last one.
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
        self._active: dict[int, tuple[StudyRun, subprocess.Popen]] = {}  # by slot
        self._trained: set[StudyRun] = set()  # those whose process now makes cluster maps
        self._waiting: list[StudyRun] = []
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Starts and waits for all runs that are not finished; those that fail leave the others going.

        SIGINT, SIGTERM and SIGHUP are passed on once, and then all runs are waited for, which save first.

        Raises:
            OSError: a process or a file of the study cannot be made.
        """
        self._waiting = [run for run in runs_in_order(self.study) if not self.folder.is_finished(run)]
        self.progress.begin(len(self._waiting), len(runs_in_order(self.study)))
        with self._heeding_signals():
            try:
                while self._active or (self._waiting and self._outcome.signal is None):
                    self._start_some()
                    time.sleep(POLL_SECONDS)
                    self.progress.refresh()
                    self._collect()
            finally:
                # After an error of this process none of its runs stays behind; a second signal would not let them save.
                if self._outcome.signal is None:
                    self._stop_all()
                for _, process in self._active.values():
                    process.wait()
        return self._outcome

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
            self._start(run, free.pop(0))

    def _start(self, run: StudyRun, slot: int) -> None:
        """Starts a run's process in a session of its own, so that Ctrl-C reaches it through this process alone."""
        words = self.study.words(run.variant, run.seed, self.folder.run_folder(run))
        make_subfolder(self.folder.path, run.variant.name)
        refuse_link(self.folder.run_folder(run))
        self._start_process(run, slot, [*words, "--resume", "latest"])
        self.folder.ended.pop(run.name, None)
        self.progress.start(run, self.folder.run_folder(run))

    def _start_process(self, run: StudyRun, slot: int, words: list[str]) -> None:
        """`ggdr WORDS`, whose output goes to the run's log."""
        with open_no_link(self.folder.log(run), "ab") as output:
            output.write(f"$ {shlex.join(['ggdr', *words])}\n".encode())
            output.flush()
            process = subprocess.Popen(
                [*module_command(CHILD), str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=share_environment(self.jobs, slot, self.gpus),
                start_new_session=True,
            )
        self._active[slot] = run, process
        if self._outcome.signal is not None:  # it came while the process was being started
            process.terminate()

    def _collect(self) -> None:
        """Takes note of runs that ended."""
        for slot, (run, process) in list(self._active.items()):
            code = process.poll()
            if code is None:
                continue
            del self._active[slot]
            if code != 0 and self._outcome.signal is not None:
                code = EXIT_STOPPED  # also where it had not come so far that it could save
            elif run in self._trained:
                code = 0  # also without maps, as of networks that need a class; the log says why
            elif code == 0 and (words := self._cluster_words(run)):
                self._trained.add(run)
                self._start_process(run, slot, words)
                continue
            self.folder.ended[run.name] = code
            self.folder.write(self.study)
            if code != 0 and self._outcome.signal is None:
                self._outcome.failed.append(run)
            self.progress.end(run, code, self.folder.last_line(run))
            if self._active or self._waiting:
                self.on_end()

    def _cluster_words(self, run: StudyRun) -> list[str]:
        """The command that makes cluster maps of a run's last snapshot; empty if it is not to be run."""
        folder = self.folder.run_folder(run)
        snapshots = snapshots_in(folder)
        if not (self.clusters and self.study.command in CLUSTERED and snapshots) or self._outcome.signal is not None:
            return []
        return ["clusters", "--network", str(snapshots[-1]), "--outdir", str(folder / "clusters")]

    def _stop_all(self) -> None:
        for _, process in self._active.values():
            process.terminate()

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Passes the first signal on. One that is ignored, as SIGHUP under nohup, stays so."""
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        previous: Mapping[int, object] = {number: signal.getsignal(number) for number in numbers}

        def handle(number: int, frame: object) -> None:
            if self._outcome.signal is None:
                self._outcome.signal = signal.Signals(number).name
                self._stop_all()

        for number, handler in previous.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
