# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What all training commands do once their options are parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggdr.scripts.errors import EXIT_STOPPED, cli_errors, first_process_speaks
from ggdr.scripts.options.parameters import join_processes
from ggdr.scripts.terminal import say

if TYPE_CHECKING:
    from ggdr.scripts.training.plan import RunPlan


def run_command(
    ctx: click.Context,
    command: Mapping[str, Any],
    hosts: Sequence[str],
    *,
    gpu_note: Callable[[RunPlan], str] | None = None,
) -> None:
    """Trains, or prints the settings with --dry-run; ends the process where a signal stopped the run.

    Args:
        command:  the options by parameter name; "model", if there is one, becomes the host that is chosen.
        hosts:    those that the command trains: that of what is resumed if it is one of them, else the first.
        gpu_note: what to tell of a run on a GPU with --dry-run.

    Raises:
        click.ClickException: the run cannot start or go on.
    """
    with first_process_speaks(), cli_errors():
        from ggdr.scripts.training.plan import resolve_run
        from ggdr.scripts.training.resume import host_of_run
        from ggdr.scripts.training.run import start_as

        group = join_processes(command["device"], command["dist_timeout"])
        given = {name for name in command if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
        stored = host_of_run(command["outdir"], command["resume"])
        host = stored if stored in hosts else hosts[0]
        if "model" in command:
            command = {**command, "model": host}
        plan = resolve_run(host, command, given, group)
    if command["dry_run"]:
        if group.is_main:
            say(plan.settings_text())
            for note in plan.notes:
                say(note, err=True)
            if gpu_note is not None and group.device.type == "cuda":
                say(gpu_note(plan), err=True)
        group.leave()
        return
    with first_process_speaks(), cli_errors():
        finished = start_as(ctx.command, plan, group)
    exit_code = 0 if finished else EXIT_STOPPED
    group.leave(exit_code)
    ctx.exit(exit_code)
