# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate train`: a model of image translation with GGDR, from images to snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ggdr.scripts.options.label_maps import classes_option, ignore_label_option
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import (
    KIMG,
    MAX_WORKERS,
    bad_parameter,
    device_option,
    dist_timeout_option,
    ops_option,
)
from ggdr.scripts.options.sections import SectionedCommand
from ggdr.scripts.options.segmenter import segmenter_option
from ggdr.scripts.options.training import (
    batch_option,
    deterministic_option,
    dry_run_option,
    lr_option,
    patience_option,
    precision_choice,
    run_folder_option,
    seed_option,
    snap_option,
    tick_option,
)
from ggdr.scripts.options.translation import (
    COMBOGAN_BLOCKS,
    GENERATORS,
    MODELS,
    WEIGHT,
    CycleWeight,
    DomainNames,
    Epochs,
    NamedChoice,
)
from ggdr.scripts.training.launch import run_command
from ggdr.scripts.training.regularizers import regularizer_options, regularizer_parameters
from ggdr.scripts.training.snapshot_files import network_of_run
from ggdr.translation.config_base import GAN_LOSSES, NORMS, NetworkConfig
from ggdr.translation.data.crops import FITS, MAX_ENLARGE, MAX_SIZE
from ggdr.translation.presets import PRESETS

LIMITS = NetworkConfig.limits

EXAMPLES = """\b
Examples:
  ggdr translate train --data facades --outdir runs/facades --direction BtoA
  ggdr translate train --data grey_to_colour --outdir runs/colour --cfg cpu
  ggdr translate train --model cyclegan --data horse2zebra --outdir runs/zebras
  ggdr translate train --model combogan --data seasons --outdir runs/seasons
  ggdr translate train --add-domain fog --resume runs/seasons --data weather --outdir runs/fog
  ggdr translate train --outdir runs/facades --resume latest
"""

SECTIONS = {
    "Run": ("model", "outdir", "data", "cfg", "kimg", "epochs", "resume", "add_domain", "seed", "dry_run"),
    "Data": ("domains", "crop", "fit", "enlarge", "mirror", "img_channels", "workers"),
    "Regularisers": regularizer_parameters(),
    "Networks": ("generator", "channels", "downs", "blocks", "norm", "dropout", "d_layers", *COMBOGAN_BLOCKS),
    "Optimisation": ("batch", "lr", "gan_loss", "gan_weight"),
    "pix2pix, OASIS and CC-FPSE": ("direction", "classes", "ignore_label"),
    "pix2pix": ("l1_weight",),
    "CycleGAN and ComboGAN": ("cycle_weight", "identity_weight", "pool_size"),
    "ComboGAN": ("latent_weight", "forward_weight"),
    "OASIS": ("labelmix_weight",),
    "CC-FPSE": ("feature_weight",),
    "Reports and snapshots": ("tick", "snap", "metrics", "metrics_data", "segmenter", "patience"),
    "Machine": ("device", "precision", "deterministic", "ops", "dist_timeout"),
}


@click.command(
    "train",
    cls=SectionedCommand,
    sections=SECTIONS,
    epilog=EXAMPLES,
    context_settings={"show_default": True, "max_content_width": 110},
)
@click.option(
    "--model",
    type=NamedChoice(MODELS),
    default=MODELS[0],
    help="What is trained: pix2pix learns from pairs, cyclegan from two domains of images that are no pairs, "
    "combogan from any number of domains, oasis and cc-fpse from label maps and their images. A run or "
    "snapshot to resume from says it.",
)
@run_folder_option
@click.option(
    "--data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Zip or folder. pix2pix: pairs of images, side by side in each file, or in two folders with equal names. "
    "cyclegan: two folders, such as trainA and trainB; combogan: a folder or class for each domain; oasis and "
    "cc-fpse: label maps and images of equal names in the folders labels and images. Required unless resuming.",
)
@click.option(
    "--direction",
    type=NamedChoice(["AtoB", "BtoA"]),
    help="Which of a pair G is given. A is trainA, or the label map, or else the left half of a file or the first of "
    "two folders by name.  [default: AtoB]",
)
@click.option(
    "--domains",
    type=DomainNames(),
    metavar="NAME,NAME...",
    help="cyclegan, combogan: domains of --data to train on, in this order.  [default: all, as they come]",
)
@click.option(
    "--cfg",
    type=NamedChoice(list(PRESETS[MODELS[0]])),
    default="paper",
    help="Preset of settings: as published, for 256x256 pixels on a GPU; or for 32x32 on a CPU, in minutes.",
)
@click.option(
    "--kimg",
    type=KIMG,
    metavar="KIMG",
    help="Length of training in thousands of pairs, or of images of each of two domains, half of it with a falling "
    "learning rate.  [default: from --cfg]",
)
@click.option(
    "--epochs",
    type=Epochs(),
    metavar="N+N",
    help="Length of training in passes over the pairs, or over the largest domain: with a constant learning rate, and "
    "with one that falls to 0.  [default: from --cfg]",
)
@batch_option
@regularizer_options
@click.option(
    "--crop",
    type=WholeNumber(1, MAX_SIZE),
    metavar="PIXELS",
    help="Side of the squares that are trained on.  [default: from --cfg]",
)
@click.option(
    "--fit",
    type=click.Choice(FITS),
    default="stretch",
    help="How images are resized before the crop: to a square; by their shorter side; or not.",
)
@click.option(
    "--enlarge",
    type=FiniteFloat(1, MAX_ENLARGE),
    default=1.12,
    metavar="FLOAT",
    help="They are resized to this multiple of the crop.",
)
@click.option("--mirror/--no-mirror", default=True, help="Mirror every other pair or image.")
@click.option("--img-channels", type=click.Choice(["1", "3"]), default="3", help="Channels of the images.")
@classes_option
@ignore_label_option
@click.option(
    "--generator",
    type=NamedChoice(GENERATORS),
    help="Kind of generator.  [default: unet for pix2pix, resnet for cyclegan]",
)
@click.option(
    "--channels",
    type=WholeNumber(*LIMITS["channels"]),
    metavar="N",
    help="Feature maps of the first layers of G and D.  [default: from --cfg]",
)
@click.option(
    "--downs",
    type=WholeNumber(*LIMITS["downs"]),
    metavar="N",
    help="How often a U-Net halves the image.  [default: as often as the crop allows, 5 to 8]",
)
@click.option(
    "--blocks",
    type=WholeNumber(*LIMITS["blocks"]),
    metavar="N",
    help="Residual blocks of a ResNet.  [default: 9 from 256 pixels up, else 6]",
)
@click.option(
    "--encoder-blocks",
    type=WholeNumber(*LIMITS["encoder_blocks"]),
    metavar="N",
    help="combogan: residual blocks of each encoder.  [default: 4 from 256 pixels up, else 3]",
)
@click.option(
    "--decoder-blocks",
    type=WholeNumber(*LIMITS["decoder_blocks"]),
    metavar="N",
    help="combogan: residual blocks of each decoder.  [default: 5 from 256 pixels up, else 3]",
)
@click.option(
    "--shared-encoder-blocks",
    type=WholeNumber(*LIMITS["shared_encoder_blocks"]),
    metavar="N",
    help="combogan: residual blocks behind the encoders that all domains share.  [default: 0]",
)
@click.option(
    "--shared-decoder-blocks",
    type=WholeNumber(*LIMITS["shared_decoder_blocks"]),
    metavar="N",
    help="combogan: residual blocks before the decoders that all domains share.  [default: 0]",
)
@click.option("--norm", type=click.Choice(NORMS), help="Norms of G and D.  [default: from --cfg]")
@click.option(
    "--dropout/--no-dropout",
    default=None,
    help="Noise of G, in the layers that have it.  [default: dropout for pix2pix, none for cyclegan]",
)
@click.option(
    "--d-layers",
    type=WholeNumber(*LIMITS["layers"]),
    metavar="N",
    help="How often D halves the image; 3: it judges patches of 70x70 pixels.  [default: 3; 4 for combogan; for oasis "
    "and cc-fpse as often as the crop allows, 6 and 5 at most]",
)
@lr_option
@click.option(
    "--gan-loss",
    type=NamedChoice(GAN_LOSSES),
    help="Adversarial loss.  [default: cross_entropy for pix2pix, least_squares for the others]",
)
@click.option(
    "--gan-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight of the adversarial losses of G; 0: G learns from its other losses alone.  [default: 1]",
)
@click.option(
    "--l1-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight of the L1 distance from the target.  [default: 100]",
)
@click.option(
    "--cycle-weight",
    type=CycleWeight(),
    metavar="FLOAT|FLOAT,FLOAT",
    help="Weight of the distance of an image from what comes back of it; of two, that of images of A is the first; "
    "combogan has one.  [default: 10]",
)
@click.option(
    "--identity-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight of the distance of an image from what the generator that should make such images makes of it; "
    "combogan: from what its own decoder makes of its code.  [default: 5 for cyclegan, 0 for combogan]",
)
@click.option(
    "--latent-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight, at the end of training, of the distance of a fake's code from the image's; it grows from 0."
    "  [default: 0]",
)
@click.option(
    "--forward-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight of the coarse distance of a fake from the image.  [default: 0]",
)
@click.option(
    "--labelmix-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight of the squared difference of what D says of an image that is mixed of classes of a real and a fake "
    "one, and the mixture of what it says of these.  [default: 10; of preset cpu 1]",
)
@click.option(
    "--feature-weight",
    type=WEIGHT,
    metavar="FLOAT",
    help="Weight of the L1 distance of D's features of a result from those of the target.  [default: 10]",
)
@click.option(
    "--pool-size",
    type=WholeNumber(0),
    metavar="N",
    help="Older fakes of which D is shown one every other time.  [default: 50]",
)
@click.option(
    "--resume",
    metavar="latest|PATH",
    help="latest: go on in --outdir, with its settings where none are given. A run folder or training-state.pt: go on "
    "from there in --outdir. A snapshot (.safetensors): transfer learning, with the networks as they are there.",
)
@click.option(
    "--add-domain",
    metavar="NAME",
    help="combogan: give the network of --resume, a snapshot or run, this domain of --data, and train it alone, with "
    "the others as they are.",
)
@device_option
@precision_choice("the convolutions")
@deterministic_option
@ops_option
@dist_timeout_option
@tick_option
@snap_option
@click.option(
    "--metrics",
    metavar="LIST",
    show_default="kd_offline0.2k_full,psnr0.2k,ssim0.2k, or of as many pairs as there are",
    help="Metrics of every snapshot, as psnr,ssim,mae,lpips of pairs, fd_lite0.5k_full, colourfulness; the snapshot "
    "best by the first one is kept as network-best.safetensors. none: no metrics.",
)
@click.option(
    "--metrics-data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Pairs to measure on, in the layouts of --data: its test split if there is one, else val, else all.  "
    "[default: --data]",
)
@segmenter_option("For --metrics miou, pixel_accuracy, class_accuracy")
@patience_option
@seed_option
@click.option(
    "--workers",
    type=WholeNumber(0, MAX_WORKERS),
    metavar="N",
    help="Processes that decode images.  [default: from --cfg: up to 4, or 0]",
)
@dry_run_option
@click.pass_context
def train(ctx: click.Context, **command: Any) -> None:
    """Train pix2pix on pairs of images, CycleGAN on two domains, ComboGAN on several, OASIS and CC-FPSE on label maps.

    All have GGDR. Ctrl-C and SIGTERM save the state first (exit code 130). After any end, even kill -9, `--resume
    latest` goes on from the last saved state. Several GPUs: start with torchrun, with a --batch that they can share.
    """
    if command["add_domain"] is not None:
        command["resume"] = _snapshot_to_extend(command["resume"])
    is_given = ctx.get_parameter_source("model") is not ParameterSource.DEFAULT
    # The first is that of a run that goes on with nothing.
    hosts = MODELS if command["add_domain"] is None else ("combogan", *MODELS)
    run_command(ctx, command, [command["model"]] if is_given else hosts)


def _snapshot_to_extend(resume: str | None) -> str | None:
    """What --resume means beside --add-domain: of a run folder, the snapshot that is best, else the last one.

    Raises:
        BadParameter: there is none, or it is a state, which goes on with the domains that it has.
    """
    if resume in (None, "latest"):
        return resume
    path = Path(resume)
    if path.suffix == ".pt":
        raise bad_parameter(f"{path}: with --add-domain expected a snapshot or a run folder, got a state", "--resume")
    if not path.is_dir():
        return resume
    found = network_of_run(path)
    if found is None:
        raise bad_parameter(f"{path}: a folder that holds no snapshot to add a domain to", "--resume")
    return str(found)
