# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The folder of a study: its definition, how far its runs are, and the lock that keeps a second start out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggdr.scripts.errors import EXIT_STOPPED, CliError
from ggdr.scripts.studies.definition import KEYS, Request, Study, Variant, combine, read_mapping
from ggdr.scripts.training.versions import installed_versions
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.process_lock import process_lock
from ggdr.torch_utils.runlog import STATS_FILE
from ggdr.torch_utils.untrusted.json_text import MAX_BYTES, parse_json
from ggdr.torch_utils.untrusted.regular_files import read_regular, read_tail
from ggdr.torch_utils.untrusted.text import printable


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: a variant and a seed."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Its folder in that of the study."""
        return f"{self.variant.name}/seed{self.seed}"


def runs_in_order(study: Study) -> list[StudyRun]:
    """Seeds outermost, so that the first runs that end can be compared as pairs."""
    return [StudyRun(variant, seed) for seed in study.seeds for variant in study.variants]


@dataclass
class StudyFolder:
    """Files of a study.

    Attributes:
        started:  ISO time of the first start.
        versions: of the first start.
        ended:    exit codes with which the training of each run last ended, by the run's name.
        without_sheets: folders of cluster sheets that are still to be made, by their names in the study.
    """

    path: Path
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    versions: dict[str, Any] = field(default_factory=installed_versions)
    ended: dict[str, int] = field(default_factory=dict)
    without_sheets: set[str] = field(default_factory=set)

    @property
    def file(self) -> Path:
        return self.path / "study.json"

    @property
    def page(self) -> Path:
        return self.path / "compare.html"

    @property
    def table(self) -> Path:
        return self.path / "compare.md"

    def run_folder(self, run: StudyRun) -> Path:
        return self.path / run.variant.name / f"seed{run.seed}"

    def log(self, run: StudyRun) -> Path:
        """What the run's processes print."""
        return self.path / run.variant.name / f"seed{run.seed}.log"

    def is_finished(self, run: StudyRun) -> bool:
        """Whether a run has come to its end: its process said so, and its folder is still there."""
        return self.ended.get(run.name) == 0 and (self.run_folder(run) / STATS_FILE).is_file()

    def has_failed(self, run: StudyRun) -> bool:
        """Whether its last process ended neither well nor by a signal to stop."""
        return self.ended.get(run.name, 0) not in (0, EXIT_STOPPED)

    def last_line(self, run: StudyRun) -> str:
        """The last line of what a run printed."""
        line = tail(self.log(run)).rpartition("\n")[2]
        return printable(line.strip(), 300) or "it printed nothing"

    def read(self) -> Study | None:
        """The stored study, None if there is none yet; notes its start, versions and ends.

        Raises:
            CliError: study.json is damaged.
        """
        try:
            content = parse_json(read_regular(self.file, MAX_BYTES))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CliError(f"{self.file}: not readable: {printable(error)}") from error
        if not isinstance(content, dict):
            raise CliError(f"{self.file}: not the definition of a study")
        stored: Request = read_mapping({k: v for k, v in content.items() if k in KEYS}, str(self.file), self.path)
        ended, versions, without_sheets = (content.get(key) for key in ("ended", "versions", "without_sheets"))
        self.started = printable(content.get("started"), 40)
        self.versions = dict(versions) if isinstance(versions, Mapping) else {}
        is_right = isinstance(ended, Mapping) and all(type(code) is int for code in ended.values())
        self.ended = dict(ended) if is_right else {}
        is_right = isinstance(without_sheets, list) and all(isinstance(name, str) for name in without_sheets)
        self.without_sheets = set(without_sheets) if is_right else set()
        return combine(None, stored)

    def write(self, study: Study) -> None:
        """study.json."""
        record = {**study.to_json(), "started": self.started, "versions": self.versions, "ended": self.ended}
        record["without_sheets"] = sorted(self.without_sheets)
        with atomic_write(self.file) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and holds it.

        Raises:
            CliError: another `ggdr compare` is at work in it.
            OSError:  it cannot be made or written to.
        """

        def refuse(holder: str) -> None:
            raise CliError(f"--outdir: another ggdr compare is at work in {self.path} (pid {holder})")

        self.path.mkdir(parents=True, exist_ok=True)
        with process_lock(self.path / ".lock", refuse):
            yield


def tail(path: Path) -> str:
    """The end of a text file without white space behind it; empty if it cannot be read."""
    try:
        return read_tail(path).rstrip()
    except OSError:
        return ""
