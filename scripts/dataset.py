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
from ggdr.scripts.options.label_maps import classes_option, ignore_label_option, parse_ignored
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say
from ggdr.torch_utils.data.archives import DRAWN
from ggdr.torch_utils.data.convert import FILTERS, SMALL_POLICIES, TRANSFORMS
from ggdr.torch_utils.data.convert_dataset import ConvertedDataset, convert_dataset
from ggdr.torch_utils.data.label_maps import describe_shares
from ggdr.torch_utils.data.shapes import NUM_IMAGES, RESOLUTION, ShapesSource
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
  ggdr dataset shapes datasets/shapes.zip --resolution 32
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
    help="Side of the square images written, a power of two.  [default: the images' own size; 32 for digits, 64 for "
    "shapes]",
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
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Take the images of this part, where all folders are such of parts.  [default: train of sets with label "
    "maps, all of others]",
)
@classes_option
@ignore_label_option
@click.option(
    "--images", type=WholeNumber(min=1), metavar="N", help=f"How many shapes to draw.  [default: {NUM_IMAGES:,}]"
)
@click.option("--seed", type=WholeNumber(min=0), metavar="N", help="Another seed draws other shapes.  [default: 0]")
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
    split: str | None,
    classes: int | None,
    ignore_label: str | None,
    images: int | None,
    seed: int | None,
    labels: bool,
    compress: int | None,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Convert SOURCE to a dataset for training, DEST: a zip if its name ends in .zip, else a folder.

    SOURCE is a folder of images (also in sub-folders, whose names become labels), a zip of the same, a
    dataset of ours, cifar-10-python.tar.gz, an MNIST images file (train-images-idx3-ubyte.gz, the labels file
    beside it), an LSUN lmdb folder, or the word digits (handwritten digits that scikit-learn brings along) or
    shapes (textured shapes with label maps, drawn here).

    Label maps come along from folders images/ and labels/, and those of Cityscapes, ADE20K, COCO-Stuff and CMP facades.

    DEST appears complete or not at all. docs/datasets.md describes the format and every conversion.
    """
    if transform == "center-crop-wide" and resolution is None:
        raise bad_parameter("center-crop-wide needs --resolution", "--transform")
    if source not in DRAWN and not Path(source).exists():
        where = f"; download it from {CIFAR}" if Path(source).name == "cifar-10-python.tar.gz" else ""
        raise bad_parameter(f"{source}: no such file or folder{where}", "SOURCE")
    ours = r"\d{5}|images|labels|(dataset|classes)\.json"
    check_destination(source, dest, overwrite=overwrite, ours=ours, kind="dataset")
    if split is not None and source in DRAWN:
        raise bad_parameter("is for folders and zips", "--split")
    drawn = _shapes(source, resolution, images, seed)
    ignored = None if ignore_label is None else parse_ignored(ignore_label)
    started = time.monotonic()
    try:
        with sigterm_unwinds(), progress_bars() as progress:
            converted = convert_dataset(
                drawn or source,
                dest,
                resolution=resolution,
                transform=transform,
                filter=filter_,
                channels=int(channels),
                small=small,
                compress=compress,
                max_images=max_images,
                use_labels=labels,
                split=split,
                num_classes=classes,
                ignored=ignored,
                skip_broken=skip_broken,
                num_workers=workers,
                overwrite=overwrite,
                progress=lambda done, total: progress("images", done, total),
                label_progress=lambda done, total: progress("label maps", done, total),
            )
    except (ValueError, WorkerDied) as error:
        raise CliError(f"{error}\n{dest} was not written.") from error
    except OSError as error:
        raise CliError(write_error_text(dest, error)) from error
    for note in _notes(converted):
        say(f"note: {note}", err=True)
    say(_summary(dest, converted, time.monotonic() - started))


def _shapes(source: str, resolution: int | None, images: int | None, seed: int | None) -> ShapesSource | None:
    """The shapes to draw, if SOURCE is the word; raises BadParameter for options that do not fit it."""
    if source != "shapes":
        for name, value in (("--images", images), ("--seed", seed)):
            if value is not None:
                raise bad_parameter("is for the shapes that are drawn here; --max-images takes some of a source", name)
        return None
    try:
        return ShapesSource(resolution or RESOLUTION, images or NUM_IMAGES, seed or 0)
    except ValueError as error:
        raise bad_parameter(str(error), "--resolution") from error


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
    lines = [", ".join(parts) + speed, _about_labels(converted)]
    if converted.label_classes is not None:
        lines.append(describe_shares(converted.label_classes, converted.label_counts))
    return "\n".join(lines)


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
