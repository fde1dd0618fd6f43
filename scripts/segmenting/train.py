# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr segmenter train`: a segmenter from images with label maps, or from a translator's results."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from ggdr.metrics.segmenter import FILE_NAME, Segmenter, SegmenterConfig, save_segmenter
from ggdr.metrics.segmenter_training import default_downs, flip_some, judge, new_network, train_segmenter
from ggdr.scripts.errors import CliError, cli_errors, write_error_text
from ggdr.scripts.options.destination import sigterm_unwinds
from ggdr.scripts.options.network import SNAPSHOT_FILE, make_folder
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import KIMG, bad_parameter, choose_device, device_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.training import seed_option
from ggdr.scripts.segmenting.data import (
    batches_in_order,
    data_option,
    open_translator,
    read_translations,
    split_numbers,
    training_batches,
)
from ggdr.scripts.segmenting.results import describe_values, values_of
from ggdr.scripts.terminal import say
from ggdr.scripts.training.determinism import deterministic_arithmetic
from ggdr.scripts.translating.options import prepare_translator_ops
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.downloads import sha256_of
from ggdr.torch_utils.untrusted.text import printable

EXAMPLES = """\b
Examples:
  ggdr segmenter train --data shapes.zip --outdir segmenters/shapes
  ggdr segmenter train --data shapes.zip --translator runs/layouts --outdir segmenters/layouts
"""


@click.command("train", epilog=EXAMPLES, context_settings={"show_default": True})
@data_option
@click.option(
    "--outdir",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for segmenter.safetensors, made if missing.",
)
@click.option(
    "--translator",
    metavar="FILE|RUN_DIR",
    type=SNAPSHOT_FILE,
    help="Train on what this network makes of the label maps, in place of the images. It is measured on images.",
)
@click.option("--kimg", type=KIMG, metavar="KIMG", default=45, help="Length of training in thousands of images.")
@click.option("--batch", type=WholeNumber(min=1), metavar="N", default=16, help="Images a step.")
@click.option(
    "--lr", type=FiniteFloat(min=0, min_open=True), metavar="FLOAT", default=3e-3, help="Adam's highest rate."
)
@click.option(
    "--width",
    type=WholeNumber(1, 1024),
    metavar="N",
    default=16,
    help="Feature maps at full size; twice as many at half of it, and so on.",
)
@seed_option
@device_option
@click.option("--overwrite", is_flag=True, help="Replace segmenter.safetensors if it exists.")
def train(**command: Any) -> None:
    """Train a small network that says of each pixel which class it is of.

    Every tenth image is held out, and measured at the end. The file appears complete or not at all; training that ends
    before its time, as by Ctrl-C, leaves none, and starts anew. The same options give the same file on one machine.
    """
    path = command["outdir"] / FILE_NAME
    if not command["overwrite"] and (path.exists() or path.is_symlink()):
        raise bad_parameter(f"{path} exists; give --overwrite to replace it", "--outdir")
    device = choose_device(command["device"])

    with cli_errors(), sigterm_unwinds(), deterministic_arithmetic(device):
        segmenter, about = _train_and_judge(command, device)
        try:
            save_segmenter(path, segmenter.function, segmenter.classes, about)
        except OSError as error:
            raise CliError(write_error_text(path, error)) from error
    learned = f"{about['num_images']} {'results of the translator' if command['translator'] else 'images'}"
    say(f"{path}: trained on {learned} in {about['seconds']:.0f} s; of {about['num_held_out']} held-out images:")
    say(describe_values(about["held_out"], segmenter.classes))


def _train_and_judge(command: dict[str, Any], device: torch.device) -> tuple[Segmenter, dict[str, Any]]:
    """The trained segmenter, and what its file says of it.

    Raises:
        DataError, OptionError: what there is to learn from cannot be used.
    """
    dataset = ImageDataset(command["data"], use_label_maps=True)
    numbers, held_out = split_numbers(dataset)
    read, translator = dataset.images_u8, None
    if command["translator"] is not None:
        translator = open_translator(command["translator"], dataset, device)
        prepare_translator_ops(None, device)
        read = read_translations(translator, dataset)
    make_folder(command["outdir"])
    say(f"{printable(dataset.path, 1000)}: {dataset.describe_label_maps()}", err=True)

    config = SegmenterConfig(
        dataset.num_channels, dataset.num_label_classes, command["width"], default_downs(dataset.resolution)
    )
    net = new_network(config, command["seed"]).to(device)
    batch, seed = command["batch"], command["seed"]
    steps = math.ceil(command["kimg"] * 1000 / batch)
    batches = flip_some(training_batches(dataset, numbers, batch, seed, device, read), seed)
    started = time.monotonic()
    with progress_bars() as progress:
        train_segmenter(net, batches, steps=steps, lr=command["lr"], progress=partial(progress, "steps"))
        seconds = time.monotonic() - started
        segmenter = Segmenter(
            net, name=FILE_NAME, digest="", classes=dataset.label_classes, channels=dataset.num_channels
        )
        real = batches_in_order(dataset, held_out, batch, device, partial(progress, "held-out images"))
        counts = judge(segmenter, real, config.classes)
    about = {
        "data": str(command["data"]),
        "fingerprint": dataset.fingerprint(),
        "resolution": dataset.resolution,
        **{name: command[name] for name in ("kimg", "batch", "lr", "seed")},
        "translator": None if translator is None else {"model": translator.model, **_file(command["translator"])},
        "num_images": len(numbers),
        "num_held_out": len(held_out),
        "held_out": values_of(counts),
        "seconds": seconds,
    }
    return segmenter, about


def _file(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": sha256_of(path)[:16]}
