# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that take training steps: what a step computes."""

from __future__ import annotations

from typing import Any

import click

from ggdr.scripts.options.parameters import FiniteFloat
from ggdr.stylegan2.config import PRESET_NAMES

AUTO = "auto"  # of --batch-gpu: as the GPU's memory allows


class NumberOrAuto(click.IntRange):
    """A number in a range, or the word auto."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == AUTO else super().convert(value, param, ctx)


cfg_option = click.option("--cfg", type=click.Choice(PRESET_NAMES), default="auto", help="Preset of settings.")
batch_option = click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images an iteration, of all processes together.  [default: from --cfg]",
)
batch_gpu_option = click.option(
    "--batch-gpu",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images in one forward of one process; the rest is accumulated.  [default: all]",
)
batch_gpu_or_auto_option = click.option(
    "--batch-gpu",
    type=NumberOrAuto(min=1),
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
    type=click.IntRange(min=8),
    metavar="N",
    help="Feature maps at resolution r: min(channel base / r, channel max).  [default: from --cfg]",
)
channel_max_option = click.option(
    "--channel-max", type=click.IntRange(min=1), metavar="N", help="See --channel-base.  [default: from --cfg]"
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
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="Type of the four highest resolutions; auto: fp16 on a GPU, fp32 on a CPU.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 2), default=0, metavar="INT", help="Seed of all random numbers."
)
