# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr accept`: what works on this machine and how fast, in one file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.errors import EXIT_STOPPED, CliError, cli_errors, write_error_text
from ggdr.scripts.options.numbers import FiniteFloat
from ggdr.scripts.options.parameters import choose_device
from ggdr.scripts.terminal import say

if TYPE_CHECKING:
    from ggdr.scripts.accepting.result_file import Results
    from ggdr.scripts.accepting.step import Step

EXIT_FAILED = 1
MINUTES = 25.0

EXAMPLES = """\b
Examples:
  ggdr accept --dry-run
  ggdr accept --out h100.json
  ggdr accept --device cpu --steps doctor,golden --out cpu.json
"""


@click.command(epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@click.option(
    "--out",
    metavar="FILE.json",
    default="ggdr-accept.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file, written after each step. With one that is there the command goes on: with steps that are missing, "
    "failed or were skipped.",
)
@click.option(
    "--minutes",
    type=FiniteFloat(min=0, min_open=True, max=60 * 24),
    default=MINUTES,
    metavar="MINUTES",
    help="For all steps; those that no longer fit are skipped.",
)
@click.option("--steps", "names", metavar="LIST", help="Names with commas, as --dry-run lists them.  [default: all]")
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    help="cpu runs the steps that make sense there, with the smallest settings.",
)
@click.option("--again", is_flag=True, help="Repeat also the steps that passed.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="List the steps with their order, bounds and expected times, and what has passed; run none.",
)
def main(out: Path, minutes: float, names: str | None, device: str, again: bool, dry_run: bool) -> None:
    """Find out what works on this machine, and how fast, and write it into one file.

    Each step runs in a process of its own, is killed at its bound, and leaves the others going if it fails. Needs no
    network. The steps' whole outputs are in a folder beside the file, FILE-work. docs/gpu.md explains the steps, and
    how to send the file. Exit code 0: no step failed.
    """
    with cli_errors():
        from rich.console import Console

        from ggdr.scripts.accepting.steps import STEPS, choose_steps
        from ggdr.scripts.accepting.summary import all_skipped, has_failed, print_plan, print_table

        console = Console(highlight=False)
        steps = choose_steps(names, STEPS)
        if dry_run:
            print_plan(_known_results(out, device, steps if again else []), steps, minutes, console)
            return
        choose_device(device)
        work = out.with_name(f"{out.stem}-work")
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CliError(f"--out: {write_error_text(out, OSError(error.errno, error.strerror))}") from error
        with _alone(work, out):
            results = _known_results(out, device, steps if again else [])
            finished = _run(results, steps, out, work, minutes)
        print_table(results, steps, console)
        say(f"\nwritten: {out}; outputs of the steps: {work}")
        if finished and all_skipped(results, steps):
            say("nothing was tried: all steps were skipped")
    if not finished:
        say("stopped; the same command goes on")
        raise click.exceptions.Exit(EXIT_STOPPED)
    if has_failed(results, steps):
        raise click.exceptions.Exit(EXIT_FAILED)


@contextmanager
def _alone(work: Path, out: Path) -> Iterator[None]:
    """Keeps a second start with the same file out."""
    from ggdr.torch_utils.process_lock import process_lock

    def on_busy(holder: str) -> None:
        raise CliError(f"--out: process {holder} writes {out}; wait for it, or give another file")

    with process_lock(work / "lock", on_busy):
        yield


def _known_results(out: Path, device: str, forgotten: Sequence[Step]) -> Results:
    """What the file holds but for some steps, or nothing yet; CliError if it is of another machine."""
    from ggdr.scripts.accepting.cards import list_cards
    from ggdr.scripts.accepting.result_file import ResultFileError, Results, read_results

    cards = list_cards(device)
    try:
        found = read_results(out)
    except FileNotFoundError:
        return Results(device, cards)
    except ResultFileError as error:
        raise CliError(f"--out: {error}; give another file") from error
    if (found.device, found.cards) != (device, cards):
        theirs, ours = (f"{of} ({', '.join(names)})" for of, names in ((found.device, found.cards), (device, cards)))
        raise CliError(f"--out: {out} is about {theirs}, this is {ours}; give another file")
    for step in forgotten:
        found.steps.pop(step.name, None)
    return found


def _run(results: Results, steps: Sequence[Step], out: Path, work: Path, minutes: float) -> bool:
    """Runs steps; whether it came to the last one before a signal."""
    from ggdr.scripts.accepting.runner import StepRunner
    from ggdr.scripts.training.versions import installed_versions
    from ggdr.torch_utils.stop_signals import stop_signals

    results.about = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "minutes": minutes,
        "versions": installed_versions(),
    }
    with stop_signals() as stop:
        return StepRunner(results, out, work, minutes, say).run(steps, stop.is_set)
