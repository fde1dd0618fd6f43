# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr accept` says before and after: the plan of its steps, and the table of what they found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ggdr.scripts.accepting.result_file import Results
from ggdr.scripts.accepting.step import FAILED, PASSED, RUNNING, SKIPPED, TIMED_OUT, Step

COLORS = {PASSED: "green", SKIPPED: "yellow", FAILED: "red", TIMED_OUT: "red", RUNNING: "red"}
KINDS = {"cuda": "GPU", "cpu": "CPU"}


def print_plan(results: Results, steps: Sequence[Step], minutes: float, console: Console) -> None:
    """The steps in their order, with expected times and bounds; those that passed are not run again."""
    table = Table("step", "starts at", "about", "at most", "what it proves", box=None, padding=(0, 2, 0, 0))
    device, at = results.device, 0.0
    for step in steps:
        if results.passed(step.name):
            table.add_row(step.name, "", "", "", f"[{COLORS[PASSED]}]passed[/]: {escape(step.proves)}")
            continue
        proves = step.proves if device in step.devices else f"skipped on a {KINDS[device]}: {step.needs}"
        if device in step.devices and at + step.expected > 60 * minutes:
            proves = f"skipped, unless others take less: {step.proves}"
        table.add_row(
            step.name, f"{at:.0f} s", f"{step.expected:.0f} s", f"{step.bound_on(device):.0f} s", escape(proves)
        )
        at += step.expected if device in step.devices else 0
    console.print(table)
    estimate = {"cuda": "by estimate", "cpu": "by an estimate for GPUs, and longer on a CPU"}[device]
    console.print(
        f"\nAbout {at / 60:.0f} minutes, {estimate}; {minutes:g} are allowed. A step that no longer fits is "
        "skipped, one that takes longer than its bound is killed."
    )


def print_table(results: Results, steps: Sequence[Step], console: Console) -> None:
    """State, time and figure of each step, and for those that did not pass the reason."""
    table = Table("step", "state", "time", "figure", box=None, padding=(0, 2, 0, 0))
    for step in steps:
        result = results.steps.get(step.name)
        if result is None:
            table.add_row(step.name, "[yellow]not run[/]", "", "")
            continue
        parts = [escape(x) for x in (result["figure"], result["reason"]) if x]
        took = f"{result['seconds']:.1f} s" if result["seconds"] else ""
        state = f"[{COLORS[result['state']]}]{result['state']}[/]"
        table.add_row(step.name, state, took, "; ".join(parts))
    console.print(table)


def count_states(results: Results, steps: Sequence[Step]) -> dict[str, int]:
    """How many steps have each state; without those that did not run."""
    found = [results.steps[step.name]["state"] for step in steps if step.name in results.steps]
    return {state: found.count(state) for state in COLORS if state in found}


def all_skipped(results: Results, steps: Sequence[Step]) -> bool:
    """Whether nothing was tried."""
    return set(count_states(results, steps)) <= {SKIPPED}


def has_failed(results: Results, steps: Sequence[Step]) -> bool:
    """Whether a step failed, was killed at its bound, or ended with the command."""
    return any(count_states(results, steps).get(state) for state in (FAILED, TIMED_OUT, RUNNING))
