# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The folder of one run: its settings, its state, and the lock that keeps a second process out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggdr.scripts.errors import CliError
from ggdr.scripts.training.snapshot_files import snapshots_in
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.process_lock import is_locked, process_lock
from ggdr.torch_utils.untrusted.json_text import MAX_BYTES, parse_json
from ggdr.torch_utils.untrusted.regular_files import read_regular
from ggdr.torch_utils.untrusted.text import error_text

OPTIONS_FILE = "training_options.json"
STATE_FILE = "training-state.pt"
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Paths and settings of a run."""

    path: Path

    @property
    def state_path(self) -> Path:
        return self.path / STATE_FILE

    def has_results(self) -> bool:
        """Whether something would be lost if another run started here; a start that failed leaves nothing."""
        return self.state_path.exists() or bool(snapshots_in(self.path))

    def version(self) -> tuple[Any, ...]:
        """Changes as soon as a process has trained in it: which file the state is, and whether there are results."""
        try:
            state = self.state_path.stat()
        except FileNotFoundError:
            return (self.has_results(),)
        return (True, state.st_ino, state.st_mtime_ns, state.st_size)

    @property
    def options_path(self) -> Path:
        return self.path / OPTIONS_FILE

    def has_options(self) -> bool:
        return self.options_path.is_file()

    def read_options(self) -> dict[str, Any]:
        """What `write_options` wrote; raises SnapshotError if it is missing or damaged."""
        path = self.options_path
        try:
            options = parse_json(read_regular(path, MAX_BYTES))
        except FileNotFoundError as error:
            raise SnapshotError(f"{path}: no such file; copy it from the folder that {STATE_FILE} is from") from error
        except (OSError, ValueError) as error:
            raise SnapshotError(f"{path}: not readable: {error_text(error)}") from error
        if not isinstance(options, dict) or not isinstance(options.get("command"), dict):
            raise SnapshotError(f"{path}: not the settings of a training run")
        history = options.get("history", [])
        texts = [options.get("host"), options.get("init_snapshot")]
        if not isinstance(history, list) or not all(isinstance(x, str | None) for x in (*history, *texts)):
            raise SnapshotError(f"{path}: host, init_snapshot or history is damaged there")
        return options

    def write_options(self, options: Mapping[str, Any], command: Mapping[str, Any], history: list[str]) -> None:
        """training_options.json: resolved settings, command line, where it resumed from, versions, hardware."""
        from ggdr.scripts.training.hardware import describe_hardware
        from ggdr.scripts.training.versions import installed_versions

        command = {name: str(value) if isinstance(value, Path) else value for name, value in command.items()}
        record = {**options, "command": command, "history": history, "versions": installed_versions()}
        record["hardware"] = describe_hardware()
        with atomic_write(self.options_path) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())

    def in_use(self) -> bool | None:
        """Whether a process trains in it now; None where the system cannot tell. Changes nothing."""
        return is_locked(self.path / LOCK_FILE)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Makes the folder and holds it; False on a file system without locks, where nobody is kept out.

        Raises:
            CliError: another process holds it.
            OSError: it cannot be made or written to.
        """

        def refuse(holder: str) -> None:
            raise CliError(f"--outdir: {self.path} is being trained in by another process (pid {holder})")

        self.path.mkdir(parents=True, exist_ok=True)
        with process_lock(self.path / LOCK_FILE, refuse) as is_held:
            for partial in self.path.glob(".*.partial"):  # of a process that was killed while it wrote
                partial.unlink()
            yield is_held
