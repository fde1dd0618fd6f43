# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What each regulariser costs: time of D's step and of an iteration here, memory of a GPU as it is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import torch

from ggdr.scripts.benches.report import resolution_option
from ggdr.scripts.benches.step_timing import measure_steps
from ggdr.scripts.benches.step_trace import trace_command
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import join_processes, prepare_ops
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
from ggdr.scripts.training.regularizers import NONE, REGULARIZERS, without_regularizers
from ggdr.torch_utils.timing.gpus import GPUS

NETWORK = "benchmarks.regularizer_costs:patches"
OF_THE_CPU = ("batch", "batch_gpu", "channel_base", "channel_max", "gamma")
COUNTED = {"cfg": "paper256", "resolution": "256", "aug": "noaug", "precision": "fp16"}


def patches(device: torch.device) -> torch.nn.Module:
    """A frozen network that costs next to nothing: 384 features of each patch of 8x8 pixels."""
    return torch.nn.Conv2d(3, 384, 8, 8).to(device)


def variants(command: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The command with each regulariser by itself, by its name; first without any."""
    plain = {**without_regularizers(command), "ggdr": None}
    network = {"features": {"features_network": NETWORK}}
    return {name: {**plain, "regularizer": (name,), **network.get(name, {})} for name in (NONE, *REGULARIZERS)}


@click.command(context_settings={"show_default": True})
@cfg_option
@batch_option
@batch_gpu_option
@gamma_option
@channel_base_option
@channel_max_option
@aug_option
@augpipe_option
@precision_option
@seed_option
@resolution_option
@click.option("--threads", type=WholeNumber(min=1), default=1, metavar="N", help="Threads on the CPU.")
@click.option("--iterations", type=WholeNumber(min=4), default=16, metavar="N", help="Iterations that are timed.")
@click.option("--timed/--no-timed", default=True, help="Time on this CPU.")
@click.option("--counted/--no-counted", default=True, help="Count for a GPU: cfg paper256 at 256x256, no augmentation.")
def main(threads: int, timed: bool, counted: bool, **command: Any) -> None:
    """Print tables: times on this CPU with these options, as of `ggdr bench train`, and what is counted for a GPU.

    Times are multiples of those without a regulariser: medians over iterations, turn by turn in one process; for a GPU
    (h100) the time of reading, writing and multiplying.
    """
    torch.set_num_threads(threads)
    command["p"] = 0.5
    if timed:
        group = join_processes("cpu")
        prepare_ops(None, group.device)
        each = variants(command)
        results = measure_steps(list(each.values()), group)
        _print_table(
            ("D's step", "iteration"),
            {
                name: (result["sec_per_kimg_by_piece"]["D"], result["sec_per_kimg"])
                for name, result in zip(each, results, strict=True)
            },
        )
    if counted:
        prepare_ops(None, torch.device("meta"))
        each = variants({**command, **dict.fromkeys(OF_THE_CPU), **COUNTED})
        traces = [trace_command(variant, GPUS["h100"]) for variant in each.values()]
        _print_table(
            ("D's step", "iteration", "GiB in D's step", "GiB at most"),
            {
                name: (
                    trace["by_piece"]["D"]["roofline_ms"],
                    trace["iteration"]["roofline_ms"],
                    trace["by_piece"]["D"]["peak_memory_gib"],
                    trace["peak_memory_gib"],
                )
                for name, trace in zip(each, traces, strict=True)
            },
        )


def _print_table(columns: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    """Times as multiples of the first row's, memory as it is."""
    click.echo(f"| regulariser | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    first = next(iter(rows.values()))
    for name, row in rows.items():
        cells = [
            f"{value:.1f}" if column.startswith("GiB") else f"{value / plain:.2f}"
            for column, value, plain in zip(columns, row, first, strict=True)
        ]
        click.echo(f"| `{name}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
