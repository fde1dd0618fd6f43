# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train`: StyleGAN2-ADA with GGDR, from a dataset to snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import KIMG, MAX_WORKERS, device_option, dist_timeout_option, ops_option
from ggdr.scripts.options.sections import SectionedCommand
from ggdr.scripts.options.training import (
    aug_option,
    augpipe_option,
    batch_gpu_or_auto_option,
    batch_option,
    cfg_option,
    channel_base_option,
    channel_max_option,
    deterministic_option,
    dry_run_option,
    gamma_option,
    lr_option,
    patience_option,
    precision_option,
    run_folder_option,
    seed_option,
    snap_option,
    tick_option,
)
from ggdr.scripts.training.launch import run_command
from ggdr.scripts.training.regularizers import regularizer_options, regularizer_parameters

if TYPE_CHECKING:
    from ggdr.scripts.training.plan import RunPlan

EXAMPLES = """\b
Examples:
  ggdr train --data ffhq256.zip --outdir runs/ffhq --cfg paper256 --mirror
  torchrun --nproc-per-node 8 --no-python ggdr train --data ffhq256.zip --outdir runs/ffhq --cfg paper256 --mirror
  ggdr train --outdir runs/ffhq --resume latest
"""


SECTIONS = {
    "Run": ("outdir", "data", "cfg", "kimg", "resume", "seed", "dry_run"),
    "Data": ("mirror", "cond", "subset", "workers"),
    "Regularisers": regularizer_parameters(),
    "Networks and optimisation": ("batch", "batch_gpu", "gamma", "lr", "channel_base", "channel_max", "freezed"),
    "Augmentation": ("aug", "p", "target", "augpipe"),
    "Reports and snapshots": ("tick", "snap", "metrics", "patience"),
    "Machine": ("device", "precision", "deterministic", "ops", "dist_timeout"),
}


@click.command(
    cls=SectionedCommand,
    sections=SECTIONS,
    epilog=EXAMPLES,
    context_settings={"show_default": True, "max_content_width": 110},
)
@run_folder_option
@click.option(
    "--data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Dataset, zip or folder, as `ggdr dataset` makes it. Required unless resuming.",
)
@cfg_option
@click.option(
    "--kimg",
    type=KIMG,
    metavar="KIMG",
    help="Length of training in thousands of real images shown to D.  [default: from --cfg]",
)
@batch_option
@batch_gpu_or_auto_option
@regularizer_options
@click.option("--mirror/--no-mirror", default=False, help="Add the x-flip of every image to the dataset.")
@click.option("--cond/--no-cond", default=False, help="Conditional model, on the dataset's labels.")
@click.option(
    "--subset",
    type=WholeNumber(min=1),
    metavar="N",
    help="Use N images, chosen by --seed.  [default: all]",
)
@gamma_option
@lr_option
@channel_base_option
@channel_max_option
@aug_option
@click.option("--p", type=FiniteFloat(0, 1), metavar="FLOAT", help="Probability of augmentation, with --aug fixed.")
@click.option(
    "--target",
    type=FiniteFloat(-1, 1, min_open=True, max_open=True),
    metavar="FLOAT",
    help="Mean sign of D(real) that ADA holds.  [default: 0.6]",
)
@augpipe_option
@click.option(
    "--resume",
    metavar="latest|PATH|NAME",
    help="latest: go on in --outdir, with its settings where none are given. A run folder or "
    "training-state.pt: go on from there in --outdir. A snapshot (.safetensors), or a name such as ffhq256: transfer "
    "learning, with the networks as they are there.",
)
@click.option(
    "--freezed",
    type=WholeNumber(min=0),
    default=0,
    metavar="N",
    help="Freeze the N highest-resolution layers of D (for transfer learning).",
)
@precision_option
@deterministic_option
@device_option
@ops_option
@dist_timeout_option
@tick_option
@click.option(
    "--metrics",
    metavar="LIST",
    help="Metrics of every snapshot, as fid50k_full,pr50k3_full or, without downloads, fd_lite5k_full; the "
    "snapshot best by the first one is kept as network-best.safetensors.  [default: none]",
)
@patience_option
@snap_option
@seed_option
@click.option(
    "--workers",
    type=WholeNumber(0, MAX_WORKERS),
    metavar="N",
    help="Processes that decode images.  [default: 0 if they fit in memory, else up to 4]",
)
@dry_run_option
@click.pass_context
def main(ctx: click.Context, **command: Any) -> None:
    """Train StyleGAN2-ADA with GGDR on a dataset.

    Ctrl-C and SIGTERM save the state first (exit code 130). After any end, even kill -9, `--resume latest` goes on
    from the last saved state. Several GPUs: start with torchrun, as below.
    """
    run_command(ctx, command, ["stylegan2"], gpu_note=_memory_note)


def _memory_note(plan: RunPlan) -> str:
    from ggdr.scripts.training.gpu_needs import gpu_memory_note

    return gpu_memory_note(plan.settings, plan.data)
