# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr doctor`: what is installed, whether the compiled operations work, and what is missing."""

from __future__ import annotations

import json

import click

from ggdr.scripts.options.parameters import Device, choose_device
from ggdr.scripts.terminal import say

EXAMPLES = """\b
Examples:
  ggdr doctor
  ggdr doctor --device cuda --json
"""


@click.command(epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@click.option(
    "--device",
    type=Device(),
    default="auto",
    metavar="auto|cpu|cuda",
    help="Where to try the operations; auto: on the CPU, and on a GPU if there is one.",
)
@click.option("--build/--no-build", default=True, help="Build the compiled operations if they are not there yet.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def main(ctx: click.Context, device: str, build: bool, as_json: bool) -> None:
    """Examine this installation: versions, devices, compilers, compiled operations.

    Every compiled operation is compared with its reference in plain PyTorch, and timed against it, forward and
    backward. Exit code 0: all that can work here works, if perhaps with advice; 1: something is broken.
    """
    from ggdr.scripts.diagnosis.examine import examine

    chosen = choose_device(device)
    if device == "auto" and chosen.type == "cuda":
        devices = [choose_device("cpu"), chosen]
    else:
        devices = [chosen]
    report = examine(devices, build_missing=build)
    if as_json:
        say(json.dumps(report, indent=2))
    else:
        from rich.console import Console

        from ggdr.scripts.diagnosis.print_findings import print_findings

        print_findings(report, Console(highlight=False))
    if not report["ok"]:
        ctx.exit(1)
