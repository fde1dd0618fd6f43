# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr segmenter train`: a segmenter from images with label maps, or from a translator's results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.errors import CliError, cli_errors, write_error_text
from ggdr.scripts.options.destination import sigterm_unwinds
from ggdr.scripts.options.network import SNAPSHOT_FILE, make_folder
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import KIMG, bad_parameter, choose_device, device_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.training import seed_option
from ggdr.scripts.segmenting.options import data_option
from ggdr.scripts.terminal import say

MAX_WIDTH = 1024

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
@click.option("--kimg", type=KIMG, metavar="KIMG", default=120, help="Length of training in thousands of images.")
@click.option("--batch", type=WholeNumber(min=1), metavar="N", default=32, help="Images a step.")
@click.option(
    "--lr", type=FiniteFloat(min=0, min_open=True), metavar="FLOAT", default=3e-3, help="Adam's learning rate."
)
@click.option(
    "--width",
    type=WholeNumber(1, MAX_WIDTH),
    metavar="N",
    default=16,
    help="Feature maps at the images' size; twice as many at half of it, and so on.",
)
@seed_option
@device_option
@click.option("--overwrite", is_flag=True, help="Replace segmenter.safetensors if it exists.")
def train(outdir: Path, device: str, overwrite: bool, **settings: Any) -> None:
    """Train a small network that says of each pixel which class it is of.

    Every tenth image is held out, and measured at the end. The file appears complete or not at all: training takes
    minutes, and what ends before its time, as by Ctrl-C, starts anew. The same options give the same weights on the
    same machine.
    """
    chosen = choose_device(device)

    from ggdr.metrics.segmenter import FILE_NAME, save_segmenter
    from ggdr.scripts.segmenting.learn import learn, open_lesson
    from ggdr.scripts.segmenting.results import describe_values

    path = outdir / FILE_NAME
    if not overwrite and (path.exists() or path.is_symlink()):
        raise bad_parameter(f"{path} exists; give --overwrite to replace it", "--outdir")
    with cli_errors(), sigterm_unwinds():
        lesson = open_lesson(settings["data"], settings["translator"], chosen)
        make_folder(outdir)
        say(lesson.about, err=True)
        started = time.monotonic()
        with progress_bars() as progress:
            network, about = learn(lesson, settings, progress)
        seconds = time.monotonic() - started
        try:
            save_segmenter(path, network, lesson.dataset.label_classes, about)
        except OSError as error:
            raise CliError(write_error_text(path, error)) from error
    say(f"{path}: trained on {lesson.learned_from} in {seconds:.0f} s")
    say(f"on {len(lesson.held_out)} held-out images:")
    say(describe_values(about["held_out"], lesson.dataset.label_classes))
