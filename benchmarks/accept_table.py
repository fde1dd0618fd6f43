# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Fills the table of docs/performance.md from files of `ggdr accept`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.accepting.result_file import ResultFileError, Results, read_results
from ggdr.scripts.accepting.step import STATES
from ggdr.scripts.accepting.steps import STEPS
from ggdr.torch_utils.atomic_write import atomic_write

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "benchmarks" / "accepted"  # files that the page is filled from
BEGIN, END = "<!-- filled by benchmarks/accept_table.py -->", "<!-- end -->"
NOTHING = "No GPU has been measured yet: there is no file of `ggdr accept` from one."
VARIANTS = ("plain", "ggdr", "ada", "ggdr_ada")
SPEED_HEAD = "| GPU | `--cfg` | pixels | batch | no GGDR | GGDR | no GGDR, ADA | GGDR, ADA | counted | times it | GiB |"
STEPS_HEAD = "| GPU | date | torch, driver | commit | passed | not passed |"


def read_gpu_results(path: Path) -> Results:
    """A file's content.

    Raises:
        click.UsageError: it is no file of `ggdr accept`, or one of a CPU.
    """
    try:
        found = read_results(path)
    except ResultFileError as error:
        raise click.UsageError(str(error)) from error
    if found.device != "cuda":
        raise click.UsageError(f"{path}: is about a CPU ({', '.join(found.cards)}), expected a GPU")
    return found


def tables(results: Sequence[Results]) -> str:
    """Markdown of all files, in the order of their cards' names."""
    if not results:
        return NOTHING
    results = sorted(results, key=lambda x: (x.cards, str(x.about.get("started"))))
    speed = [row for x in results for row in speed_rows(x)]
    lines = [STEPS_HEAD, "| --- " * 6 + "|", *map(steps_row, results)]
    if speed:
        lines += ["", SPEED_HEAD, "| --- " * 11 + "|", *speed]
    return "\n".join(lines)


def steps_row(x: Results) -> str:
    """Where it ran, and which steps did not pass."""
    versions = x.about.get("versions", {})
    driver = x.steps.get("doctor", {}).get("details", {}).get("versions", {}).get("driver")
    by_state = {state: [name for name, result in x.steps.items() if result["state"] == state] for state in STATES}
    passed = by_state.pop("passed")
    rest = "; ".join(f"{state}: {', '.join(names)}" for state, names in by_state.items() if names)
    count = f"{len(x.cards)} x " if len(x.cards) > 1 else ""
    cells = [
        f"{count}{x.cards[0]}",
        str(x.about.get("started", ""))[:10],
        f"{versions.get('torch')}, {driver or 'unknown'}",
        str(versions.get("commit", versions.get("ggdr")))[:12],
        f"{len(passed)} of {len(x.steps)}",
        rest,
    ]
    return f"| {' | '.join(cells)} |"


def speed_rows(x: Results) -> list[str]:
    """Seconds for 1000 images of each preset, what is counted for the card, and the memory."""
    rows = []
    memory = x.steps.get("memory", {}).get("details", {}).get("presets", {})
    for step in STEPS:
        details = x.steps.get(step.name, {}).get("details")
        if step.name.startswith("speed-") and details:
            rows.append(_speed_row(x.cards[0], details, memory))
    return rows


def _speed_row(card: str, details: dict[str, Any], memory: dict[str, Any]) -> str:
    variants = details["variants"]
    last = variants["ggdr_ada"]
    counted = times = gib = ""
    if "counted" in last:
        counted = f"{last['counted']:.3g}" + ("" if details["is_this_card"] else f" ({details['compared_with']})")
        times = f"{last['sec_per_kimg'] / last['counted']:.2f}"
    if (found := memory.get(f"{last['cfg']} {last['resolution']}")) is not None:
        gib = f"{found['measured_gib']:.1f}" + (f" ({found['counted_gib']:.1f})" if "counted_gib" in found else "")
    cells = [card, f"`{last['cfg']}`", last["resolution"], last["batch"]]
    cells += [f"{variants[name]['sec_per_kimg']:.3g}" for name in VARIANTS]
    cells += [counted, times, gib]
    return f"| {' | '.join(map(str, cells))} |"


def filled(page: str, table: str) -> str:
    """A page with the table between its markers; click.UsageError where it has none."""
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise click.UsageError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n{table}\n\n{end}{after}"


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.json...")
@click.option("--page", default=PAGE, type=click.Path(exists=True, path_type=Path), help="docs/performance.md")
def main(files: tuple[Path, ...], page: Path) -> None:
    """Fills the table of docs/performance.md from files of `ggdr accept`, those in benchmarks/accepted/ by default.

    \b
    Example:
      cp ggdr-accept.json benchmarks/accepted/h100.json
      python -m benchmarks.accept_table
    """
    table = tables([read_gpu_results(path) for path in files or sorted(KEPT.glob("*.json"))])
    content = filled(page.read_text(), table)
    with atomic_write(page) as file:
        file.write(content.encode())
    click.echo(table)


if __name__ == "__main__":
    main()
