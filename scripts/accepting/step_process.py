# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Runs one step in a process group of its own, for at most so many seconds, and leaves nothing of it behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ggdr.scripts.accepting.step import FAILED, TIMED_OUT, Step, result_of
from ggdr.torch_utils.child_python import module_command

CHILD = "ggdr.scripts.accepting.child"
MARK = "GGDR_ACCEPT_STEP"  # in the environment of all processes of a step
POLL_SECONDS = 0.05
LAST_LINES, LAST_CHARACTERS = 30, 4000  # of a step's output, that are kept in the file


def run_step(
    step: Step, device: str, work: Path, seconds: float, is_stopped: Callable[[], bool]
) -> dict[str, Any] | None:
    """The result of a step, with `seconds` and `output`; None where it was told to stop.

    Its whole output is in WORK/NAME.log, its files in WORK/NAME, which goes when it has passed.

    Args:
        seconds: after which all of its processes are killed.
    """
    work = work.absolute()  # steps run programs in other folders
    folder, shared, log = work / step.name, work / "shared", work / f"{step.name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    for new in (folder, shared):
        new.mkdir(parents=True, exist_ok=True)
    request, answer = work / f"{step.name}.request.json", work / f"{step.name}.result.json"
    place = {"device": device, "folder": str(folder), "shared": str(shared)}
    request.write_text(json.dumps({"function": step.function, "arguments": dict(step.arguments), **place}))
    answer.unlink(missing_ok=True)
    mark, start = uuid.uuid4().hex, time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*module_command(CHILD), str(os.getpid()), str(request), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, MARK: mark, "PYTHONFAULTHANDLER": "1"},
            start_new_session=True,
        )
    try:
        while process.poll() is None and time.monotonic() - start < seconds and not is_stopped():
            time.sleep(POLL_SECONDS)
        is_late = process.poll() is None
    finally:
        _kill_all(process, mark)
    took = time.monotonic() - start
    if is_late and is_stopped():
        return None
    if is_late:
        result = result_of(TIMED_OUT, f"killed after {took:.0f} s")
    else:
        result = _read_answer(answer, process.returncode)
    request.unlink()
    answer.unlink(missing_ok=True)
    if result["state"] not in (FAILED, TIMED_OUT):
        shutil.rmtree(folder, ignore_errors=True)
    return {**result, "seconds": round(took, 1), "output": last_lines(log)}


def _read_answer(answer: Path, code: int) -> dict[str, Any]:
    """What the step's process wrote, or how it ended without."""
    with suppress(FileNotFoundError):
        return json.loads(answer.read_bytes())
    if code < 0:
        with suppress(ValueError):
            return result_of(FAILED, f"its process was ended by {signal.Signals(-code).name}")
    return result_of(FAILED, f"its process ended with exit code {code}")


def last_lines(log: Path) -> list[str]:
    """Of a step's output, without the name of the user's home folder."""
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - LAST_CHARACTERS, 0))
        text = file.read().decode(errors="replace")
    with suppress(RuntimeError):  # no home folder
        text = text.replace(f"{Path.home()}{os.sep}", f"~{os.sep}")
    lines = (line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line][-LAST_LINES:]


def _kill_all(process: subprocess.Popen, mark: str) -> None:
    """Ends a step's processes: its group, and on Linux also those that made a group of their own, as torchrun's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not sys.platform.startswith("linux"):
        return
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # ended meanwhile, or another user's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
