# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that take training steps: what a step computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import KIMG
from ggdr.stylegan2.config import PRESET_NAMES

AUTO = "auto"  # of --batch-gpu: as the GPU's memory allows
NO_METRICS = "none"  # of --metrics

cfg_option = click.option("--cfg", type=click.Choice(PRESET_NAMES), default="auto", help="Preset of settings.")
batch_option = click.option(
    "--batch",
    type=WholeNumber(min=1),
    metavar="N",
    help="Images an iteration, of all processes together.  [default: from --cfg]",
)
batch_gpu_option = click.option(
    "--batch-gpu",
    type=WholeNumber(min=1),
    metavar="N",
    help="Images in one forward of one process; the rest is accumulated.  [default: all]",
)
batch_gpu_or_auto_option = click.option(
    "--batch-gpu",
    type=WholeNumber(min=1, word=AUTO),
    metavar="N|auto",
    help="Images in one forward of one process; the rest is accumulated. auto: all, or a half, a quarter and so on of "
    "them that fits the GPU.  [default: all]",
)
gamma_option = click.option(
    "--gamma",
    type=FiniteFloat(min=0),
    metavar="FLOAT",
    help="Weight of R1; 0 turns it off.  [default: from --cfg]",
)
channel_base_option = click.option(
    "--channel-base",
    type=WholeNumber(min=8),
    metavar="N",
    help="Feature maps at resolution r: min(channel base / r, channel max).  [default: from --cfg]",
)
channel_max_option = click.option(
    "--channel-max", type=WholeNumber(min=1), metavar="N", help="See --channel-base.  [default: from --cfg]"
)
aug_option = click.option(
    "--aug", type=click.Choice(["ada", "fixed", "noaug"]), default="ada", help="Augmentation of D's images."
)
augpipe_option = click.option(
    "--augpipe",
    type=click.Choice(["blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]),
    default="bgc",
    help="Transforms of the augmentation.",
)


def precision_choice(what: str) -> Callable[[Any], Any]:
    """--precision of a command, `what` is what it decides the type of."""
    return click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        default="auto",
        help=f"Type of {what}; auto: fp16 on a GPU, fp32 on a CPU.",
    )


precision_option = precision_choice("the four highest resolutions")
seed_option = click.option(
    "--seed", type=WholeNumber(0, 2**32 - 2), default=0, metavar="INT", help="Seed of all random numbers."
)
run_folder_option = click.option(
    "--outdir",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder, one a run; made if missing.",
)
lr_option = click.option(
    "--lr",
    type=FiniteFloat(min=0, min_open=True),
    metavar="FLOAT",
    help="Adam's learning rate, of G and D.  [default: from --cfg]",
)
deterministic_option = click.option(
    "--deterministic/--no-deterministic",
    default=False,
    help="On a GPU: sums in a fixed order, where PyTorch has one; slower.",
)
tick_option = click.option(
    "--tick",
    type=KIMG,
    metavar="KIMG",
    help="Report every so many thousand images.  [default: from --cfg]",
)
snap_option = click.option(
    "--snap",
    type=WholeNumber(min=1),
    metavar="TICKS",
    help="Save samples, a snapshot and the state every so many ticks.  [default: from --cfg]",
)
patience_option = click.option(
    "--patience",
    type=WholeNumber(min=1),
    metavar="SNAPSHOTS",
    help="End training once no snapshot has been better by the first metric than the best one for so many of them."
    "  [default: never]",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the resolved settings as JSON, write nothing, and stop."
)
