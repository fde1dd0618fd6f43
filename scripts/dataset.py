# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr dataset SOURCE DEST`: convert images to the training format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click

from ggdr.scripts.errors import CliError, write_error_text
from ggdr.scripts.options.destination import (
    broken_notes,
    check_destination,
    convert_workers_option,
    max_images_option,
    overwrite_option,
    sigterm_unwinds,
    size_of,
    skip_broken_option,
)
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say
from ggdr.torch_utils.data.convert import FILTERS, SMALL_POLICIES, TRANSFORMS
from ggdr.torch_utils.data.convert_dataset import ConvertedDataset, convert_dataset
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.workers import WorkerDied


def _power_of_two(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """BadParameter for other sides of images."""
    if value is not None and (value < 8 or value & (value - 1)):
        raise click.BadParameter(f"expected a power of two from 8 (8, 16, 32, ...), got {value}")
    return value


CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"

EXAMPLES = """\b
Examples:
  ggdr dataset cifar-10-python.tar.gz datasets/cifar10.zip
  ggdr dataset photos/ datasets/photos256.zip --resolution 256 --transform center-crop
"""


@click.command(epilog=EXAMPLES)
@click.argument("source", metavar="SOURCE")
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--resolution",
    type=WholeNumber(),
    metavar="PIXELS",
    callback=_power_of_two,
    help="Side of the square images written, a power of two.  [default: the images' own size; 32 for digits]",
)
@click.option(
    "--transform",
    type=click.Choice(TRANSFORMS),
    default="none",
    show_default=True,
    help="How to make images square: not at all; cut out the centre; cut out the centre 4:3 wide, "
    "with black bars above and below.",
)
@click.option(
    "--filter",
    "filter_",
    type=click.Choice(list(FILTERS)),
    help="Resampling filter.  [default: box to shrink (as published FFHQ figures need), bicubic to enlarge]",
)
@click.option(
    "--small",
    type=click.Choice(SMALL_POLICIES),
    help="Images smaller than --resolution: stop, enlarge them, or leave them out.  "
    "[default: error; upscale for digits]",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    default="3",
    show_default=True,
    metavar="1|3|4",
    help="Grey, RGB or RGBA. Transparency is laid over white for 1 and 3.",
)
@max_images_option
@skip_broken_option
@click.option("--labels/--no-labels", default=True, show_default=True, help="Keep the labels the source has.")
@click.option(
    "--compress",
    type=WholeNumber(0, 9),
    metavar="0..9",
    help="zlib level of the PNGs: 0 is largest and fastest.  [default: 0 up to 64x64 pixels, else 1]",
)
@convert_workers_option
@overwrite_option
def main(
    source: str,
    dest: Path,
    resolution: int | None,
    transform: str,
    filter_: str | None,
    small: str | None,
    channels: str,
    max_images: int | None,
    skip_broken: bool,
    labels: bool,
    compress: int | None,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Convert SOURCE to a dataset for training, DEST: a zip if its name ends in .zip, else a folder.

    SOURCE is a folder of images (also in sub-folders, whose names become labels), a zip of the same, a
    dataset of ours, cifar-10-python.tar.gz, an MNIST images file (train-images-idx3-ubyte.gz, the labels file
    beside it), an LSUN lmdb folder, or the word digits (handwritten digits that scikit-learn brings along).

    DEST appears complete or not at all. docs/datasets.md describes the format and every conversion.
    """
    if transform == "center-crop-wide" and resolution is None:
        raise bad_parameter("center-crop-wide needs --resolution", "--transform")
    if source != "digits" and not Path(source).exists():
        where = f"; download it from {CIFAR}" if Path(source).name == "cifar-10-python.tar.gz" else ""
        raise bad_parameter(f"{source}: no such file or folder{where}", "SOURCE")
    check_destination(source, dest, overwrite=overwrite, ours=r"\d{5}|dataset\.json", kind="dataset")
    started = time.monotonic()
    try:
        with sigterm_unwinds(), progress_bars() as progress:
            converted = convert_dataset(
                source,
                dest,
                resolution=resolution,
                transform=transform,
                filter=filter_,
                channels=int(channels),
                small=small,
                compress=compress,
                max_images=max_images,
                use_labels=labels,
                skip_broken=skip_broken,
                num_workers=workers,
                overwrite=overwrite,
                progress=lambda done, total: progress("images", done, total),
            )
    except (DataError, WorkerDied) as error:
        raise CliError(f"{error}\n{dest} was not written.") from error
    except OSError as error:
        raise CliError(write_error_text(dest, error)) from error
    for note in _notes(converted):
        say(f"note: {note}", err=True)
    say(_summary(dest, converted, time.monotonic() - started))


def _summary(dest: Path, converted: ConvertedDataset, seconds: float) -> str:
    """What was written, in a line."""
    side, channels, count = converted.resolution, converted.channels, converted.num_images
    parts = [f"{dest}: {count} images, {side}x{side}, {channels} channel{'' if channels == 1 else 's'}"]
    if converted.num_small:
        parts.append(f"{converted.num_small} smaller ones left out")
    if converted.broken:
        parts.append(f"{len(converted.broken)} broken ones left out")
    parts.append(f"{size_of(dest) / 1e6:.1f} MB")
    speed = f" ({seconds:.1f} s, {count / seconds:.0f} images/s)"
    return ", ".join(parts) + speed + f"\n{_about_labels(converted)}"


def _about_labels(converted: ConvertedDataset) -> str:
    """Which labels the dataset has, or why it has none."""
    if converted.labels is not None:
        return converted.labels.describe()
    return f"no labels: {converted.label_note}" if converted.label_note else "no labels"


def _notes(converted: ConvertedDataset) -> Iterator[str]:
    """What of the source is not in the dataset, and how an unusual layout of folders was understood."""
    yield from broken_notes(converted.broken)
    if converted.labels is not None and converted.label_note:
        yield converted.label_note
    if converted.left_out:
        yield converted.left_out
