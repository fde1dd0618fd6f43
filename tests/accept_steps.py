# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps of `ggdr accept` that end in every way, for tests; and a start of the command with some of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ggdr.scripts.accepting.result_file import Results
from ggdr.scripts.accepting.runner import StepRunner
from ggdr.scripts.accepting.step import Finding, Place, Step, StepFailed, StepSkipped


def passes(place: Place, *, figure: str = "fine") -> Finding:
    with open(place.shared / "calls", "a") as file:
        file.write(f"{place.folder.name}\n")
    print(f"in {Path.home()}/somewhere")
    return Finding(
        figure,
        {
            "device": place.device,
            "rate": float("inf"),
            "files": os.listdir(place.folder),
            "is_absolute": place.folder.is_absolute(),
        },
    )


def finds_faults(place: Place) -> Finding:
    return Finding("2 of 3", {"right": 2}, ["the third is wrong", "so is its sum"])


def fails(place: Place) -> Finding:
    raise StepFailed("no report came")


def raises(place: Place) -> Finding:
    print("before the error")
    raise RuntimeError("an illegal memory access\nwas encountered")


def skips(place: Place) -> Finding:
    raise StepSkipped("there is one GPU")


def crashes(place: Place) -> Finding:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def leaves(place: Place) -> Finding:
    """Ends without a word to the one that started it."""
    print("exit 3")
    sys.stdout.flush()
    os._exit(3)


def hangs(place: Place) -> Finding:
    """With a process that has a session of its own, as torchrun's have; its number is in `child`."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (place.shared / "child").write_text(str(child.pid))
    print("waiting", flush=True)
    time.sleep(600)
    raise AssertionError


def stub(function: str, name: str | None = None, **settings) -> Step:
    """A step that is one of these functions."""
    times = {"expected": 0.0, "bound": 60.0} | settings
    return Step(name or function, f"that it {function}", f"tests.accept_steps:{function}", **times)


def start(folder: str) -> None:
    """Runs a step that passes and one that hangs, with the file accept.json in a folder; in a process to be killed."""
    path = Path(folder)
    steps = [stub("passes"), stub("hangs"), stub("passes", "after")]
    StepRunner(Results("cpu", ["a processor"]), path / "accept.json", path / "work", 5).run(steps)
