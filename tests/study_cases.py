# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the tests of `ggdr compare` share."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from ggdr.scripts.studies import machine_shares, runner
from tests.conftest import ROOT
from tests.toy_run import METRIC

SIDE_BY_SIDE = 4  # processors, as far as a study of toy runs knows


def use_toy_runs(monkeypatch, tmp_path: Path) -> Path:
    """Runs in milliseconds, on a machine of some processors and no GPU; returns the path of their dataset."""
    monkeypatch.setattr(runner, "CHILD", "tests.toy_run")
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(machine_shares, "cpu_count", lambda: SIDE_BY_SIDE)
    monkeypatch.setattr(machine_shares, "find_gpus", lambda device: [])
    monkeypatch.setattr(machine_shares, "_memory_gib", lambda: 1.0)  # enough for one run, where --jobs is not given
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "data.zip").touch()
    return tmp_path / "data.zip"


def compare(*args: object, code: int = 0) -> str:
    """Runs `ggdr compare` in this process; returns what it printed, in one line."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["compare", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def definition(folder: Path, data: Path, *more: object, seeds: str = "0-1", options: tuple = ()) -> list[object]:
    """The words of a study without and with GGDR."""
    variants = ["--variant", "none=--no-ggdr", "--variant", "ggdr=--ggdr"]
    study = ["--outdir", folder, "--seeds", seeds, *variants, "--metrics", METRIC]
    return [*study, *more, "--", "--data", data, *options]


def table(folder: Path) -> str:
    """The part of compare.md that does not depend on time: metrics and their differences."""
    text = (folder / "compare.md").read_text()
    return text[text.index("## Metrics") : text.index("## To get as far")]


def starts(folder: Path, file: str = "starts.jsonl") -> list[dict]:
    """What toy runs noted of their starts, or in another file."""
    path = folder / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
