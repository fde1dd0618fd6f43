# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a step of `ggdr accept` is, where it runs, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, TIMED_OUT, SKIPPED, RUNNING = "passed", "failed", "timed out", "skipped", "running"
CPU_TIMES = 4  # bounds on a CPU over those on a GPU: machines without one are often slow, or busy
STATES = (PASSED, FAILED, TIMED_OUT, SKIPPED, RUNNING)


@dataclass(frozen=True)
class Step:
    """One thing to know of a machine.

    Attributes:
        name:      on the command line and in the file.
        proves:    what is known if it passes, in a few words.
        function:  "module:function", imported in the step's own process. It is called with a `Place` and the
                   `arguments`, and returns a `Finding`, or raises StepSkipped.
        expected:  seconds that it takes on a GPU, by estimate; it is not started with less time left.
        bound:     seconds on a GPU after which it is killed; on a CPU CPU_TIMES as many.
        arguments: of the function; JSON can hold them.
        devices:   kinds of devices that it is for.
        needs:     why it is for no other ones.
    """

    name: str
    proves: str
    function: str
    expected: float
    bound: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cuda", "cpu")
    needs: str = "needs a GPU"

    def bound_on(self, device: str) -> float:
        """Seconds after which it is killed on a kind of device."""
        return self.bound * (1 if device == "cuda" else CPU_TIMES)


@dataclass(frozen=True)
class Place:
    """Where a step runs.

    Attributes:
        device: "cuda" or "cpu"; on a CPU steps take their smallest settings.
        folder: the step's own, empty at first.
        shared: the folder of all steps, for what several of them use.
    """

    device: str
    folder: Path
    shared: Path

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Finding:
    """What a step found.

    Attributes:
        figure:  the one thing to know, for a cell of a table.
        details: all else; JSON can hold them.
        faults:  what is wrong; the step passed if there is nothing.
    """

    figure: str
    details: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[str] = ()


def result_of(state: str, reason: str, finding: Finding | None = None) -> dict[str, Any]:
    """What the file says of a step, but for `seconds` and `output`."""
    figure, details = ("", {}) if finding is None else (finding.figure, finding.details)
    return {"state": state, "reason": reason, "figure": figure, "details": details}


class StepSkipped(Exception):
    """A step cannot run here; the message says why."""


class StepFailed(Exception):
    """A step came to no finding; the message says why."""
