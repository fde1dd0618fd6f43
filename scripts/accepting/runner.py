# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Runs steps one after the other, and writes the file after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ggdr.scripts.accepting.result_file import Results, write_results
from ggdr.scripts.accepting.step import RUNNING, SKIPPED, Step, result_of
from ggdr.scripts.accepting.step_process import run_step


class StepRunner:
    """Runs what is missing.

    Args:
        results: what is known; steps that passed are left out.
        path:    of its file.
        work:    folder of the steps' own files and outputs.
        minutes: for all steps together.
        say:     told of all that happens, in lines.
    """

    def __init__(
        self, results: Results, path: Path, work: Path, minutes: float, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.results, self.path, self.work, self.say = results, path, work, say
        self.end = time.monotonic() + 60 * minutes

    def run(self, steps: Sequence[Step], is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Runs steps in their order, whatever comes of each; whether it came to the last one.

        A step that is for another kind of device is skipped, and so is one that would take longer than is left; one
        that takes longer than its bound, or than is left, is killed.
        """
        todo = [step for step in steps if not self.results.passed(step.name)]
        for i, step in enumerate(todo):
            where = f"[{i + 1}/{len(todo)}] {step.name}"
            left = self.end - time.monotonic()
            if self.results.device not in step.devices:
                self._note(step, _without_running(SKIPPED, step.needs))
            elif left < step.expected:
                reason = f"takes about {step.expected:.0f} s, and {max(left, 0):.0f} s are left"
                self._note(step, _without_running(SKIPPED, reason))
            else:
                seconds = min(step.bound_on(self.results.device), left)
                self.say(f"{where}: {step.proves} (about {step.expected:.0f} s, at most {seconds:.0f} s)")
                self._note(step, _without_running(RUNNING, "was running when `ggdr accept` ended"))
                result = run_step(step, self.results.device, self.work, seconds, is_stopped)
                if result is None:
                    del self.results.steps[step.name]
                    write_results(self.path, self.results)
                    return False
                self._note(step, result)
            if is_stopped():
                return i + 1 == len(todo)
            self.say(f"{where}: {describe(self.results.steps[step.name])}")
        return True

    def _note(self, step: Step, result: dict[str, Any]) -> None:
        commit = self.results.about.get("versions", {}).get("commit")
        self.results.steps[step.name] = {"proves": step.proves, **result, "commit": commit}
        write_results(self.path, self.results)


def describe(result: dict[str, Any]) -> str:
    """State, figure and reason of a result, in one line."""
    parts = [x for x in (result["figure"], result["reason"]) if x]
    took = f" in {result['seconds']:.1f} s" if result["seconds"] else ""
    return f"{result['state']}{took}" + (f": {'; '.join(parts)}" if parts else "")


def _without_running(state: str, reason: str) -> dict[str, Any]:
    return {**result_of(state, reason), "seconds": 0, "output": []}
