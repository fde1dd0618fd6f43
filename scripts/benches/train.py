# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench train`: how long an iteration of `ggdr train` takes, and how much of the machine it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from ggdr.scripts.benches.gpu_option import trace_option
from ggdr.scripts.benches.report import json_option, resolution_option, show
from ggdr.scripts.errors import cli_errors
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import (
    bad_parameter,
    device_option,
    join_processes,
    ops_option,
    prepare_ops,
)
from ggdr.scripts.options.training import (
    aug_option,
    augpipe_option,
    batch_gpu_option,
    batch_option,
    cfg_option,
    channel_base_option,
    channel_max_option,
    gamma_option,
    precision_option,
    seed_option,
)
from ggdr.scripts.training.regularizers import chosen_regularizers, regularizer_options, without_regularizers

EXAMPLES = """\b
Examples:
  ggdr bench train --cfg cpu --channel-base 4096 --channel-max 128
  ggdr bench train --cfg paper256 --resolution 256 --precision bf16 --table --json
  ggdr bench train --resolution 256 --trace h100
"""

OF_THE_CLOCK = ("device", "threads", "iterations", "table")  # options that --trace has no use for


@click.command("train", epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@cfg_option
@batch_option
@batch_gpu_option
@regularizer_options
@gamma_option
@channel_base_option
@channel_max_option
@aug_option
@augpipe_option
@precision_option
@device_option
@ops_option
@seed_option
@resolution_option
@click.option(
    "--p",
    type=FiniteFloat(0, 1),
    default=0.5,
    metavar="FLOAT",
    help="Probability of augmentation; with --aug ada where it starts, so that every transform is at work.",
)
@click.option("--threads", type=WholeNumber(min=1), metavar="N", help="Threads on a CPU.  [default: one a core]")
@click.option("--iterations", type=WholeNumber(min=4), default=16, metavar="N", help="Iterations that are timed.")
@click.option(
    "--table", is_flag=True, help="With and without regularisers, with and without augmentation, turn by turn."
)
@trace_option
@json_option
@click.pass_context
def train(ctx: click.Context, **command: Any) -> None:
    """Time the training step, on drawn images.

    Runs what `ggdr train` runs: loader, phases, moving average, ADA and the check for NaN; not reports and snapshots.
    Times are medians over iterations. A phase that --cfg runs less often than every 4 iterations runs every 4 here,
    and counts for its share. FLOPs are those of convolutions and matrix products, and the fraction of the peak is
    their rate over the whole step against that of a 3x3 convolution of the same type, measured in the same run.
    """
    if command["trace"] is not None:
        _trace(ctx, command)
        return

    import torch

    from ggdr.scripts.benches.step_report import report_pieces, report_table, table_json
    from ggdr.scripts.benches.step_timing import measure_steps

    commands = [command]
    if command["table"]:
        commands = _four_commands(command)
    else:
        _check_p(ctx, command)
    if command["threads"] is not None:
        torch.set_num_threads(command["threads"])
    with cli_errors():
        group = join_processes(command["device"])
        prepare_ops(command["ops"], group.device)
        results = measure_steps(commands, group)
    if group.is_main and command["table"]:
        show(report_table(results), table_json(results), command["as_json"])
    elif group.is_main:
        show(report_pieces(results[0]), results[0], command["as_json"])
    group.leave()


def _trace(ctx: click.Context, command: Mapping[str, Any]) -> None:
    """Counts what an iteration asks of a GPU; raises BadParameter for an option that has no part in that."""
    for name in OF_THE_CLOCK:
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise bad_parameter("is for timing; leave it out with --trace", f"--{name}")
    _check_p(ctx, command)

    import torch

    from ggdr.scripts.benches.step_trace import trace_command
    from ggdr.scripts.benches.trace_report import report_trace

    with cli_errors():
        prepare_ops(command["ops"], torch.device("meta"))
        result = trace_command(command, command["trace"])
    show(report_trace(result), result, command["as_json"])


def _check_p(ctx: click.Context, command: Mapping[str, Any]) -> None:
    """Refuses a probability of no augmentation."""
    if command["aug"] == "noaug" and ctx.get_parameter_source("p") is not ParameterSource.DEFAULT:
        raise bad_parameter("needs --aug ada or fixed, got --aug noaug", "--p")


def _four_commands(command: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of --table, row by row: augmentation off and on, and in each row GGDR off and on."""
    if command["aug"] == "noaug":
        raise bad_parameter("--table needs an augmentation to compare with, got noaug", "--aug")
    with cli_errors():
        names = chosen_regularizers(command)
    if not names:
        raise bad_parameter("--table times both with and without regularisers", "--no-ggdr")
    rows = [{**command, "aug": aug} for aug in ("noaug", command["aug"])]
    return [cell for row in rows for cell in (without_regularizers(row), row)]
