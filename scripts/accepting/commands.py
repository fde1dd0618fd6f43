# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Programs that steps run, in processes that end with the step; what they print goes to the step's output too."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ggdr
from ggdr.scripts.accepting.step import StepFailed
from ggdr.scripts.terminal import say
from ggdr.torch_utils.child_python import module_command
from ggdr.torch_utils.parent_process import stop_with_parent


def ggdr_command(*words: object) -> list[str]:
    """What starts `ggdr WORDS`."""
    return [*module_command("ggdr"), *map(str, words)]


@dataclass
class Program:
    """A process that was started, and the file that it prints into."""

    process: subprocess.Popen
    printed: IO[bytes]

    def finish(self) -> tuple[int, str]:
        """Waits for it; its exit code and all that it printed."""
        code = self.process.wait()
        self.printed.seek(0)
        output = self.printed.read().decode(errors="replace")
        self.printed.close()
        say(output.removesuffix("\n"))
        return code, output


def start(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Program:
    """Starts a program."""
    say(f"$ {shlex.join(command)}")
    printed = tempfile.TemporaryFile()  # a pipe that nobody reads would make it wait
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=subprocess.STDOUT,
        preexec_fn=stop_with_parent if sys.platform.startswith("linux") else None,
    )
    return Program(process, printed)


def run(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Starts a program and waits for it; its exit code and all that it printed."""
    return start(command, cwd=cwd, env=env).finish()


def output_of_ggdr(*words: object) -> str:
    """What `ggdr WORDS` prints; raises StepFailed where it fails."""
    return checked(f"ggdr {words[0]}", *run(ggdr_command(*words)))


def checked(name: str, code: int, output: str) -> str:
    """The output; raises StepFailed, with the last line of it, where the exit code is not 0."""
    if code != 0:
        last = (output.strip().splitlines() or ["it printed nothing"])[-1]
        raise StepFailed(f"{name} ended with exit code {code}: {last}")
    return output


def last_json(output: str) -> dict[str, Any]:
    """The object that the last line of an output is."""
    return json.loads(output.strip().splitlines()[-1])


def repository() -> Path | None:
    """The folder of the project's sources with its tests; None where the package alone is installed."""
    root = Path(ggdr.__file__).resolve().parents[1]
    return root if (root / "tests" / "golden_cases.py").is_file() else None
