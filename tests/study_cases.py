# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the tests of `ggdr compare` share."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tests.toy_run import METRIC


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


def starts(folder: Path) -> list[dict]:
    """What toy runs noted of their starts."""
    path = folder / "starts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
