# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr dataset SOURCE DEST`: convert images to the training format."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType

import click
import numpy as np

from ggdr.scripts.errors import CliError
from ggdr.scripts.options.progress import progress_bars
from ggdr.torch_utils.data.archives import Source, open_source, spread
from ggdr.torch_utils.data.convert import (
    FILTERS,
    SMALL_POLICIES,
    TRANSFORMS,
    Conversion,
    check_resolution,
    convert_batch,
)
from ggdr.torch_utils.data.image_files import IMAGE_SUFFIXES, DataError
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.data.workers import WorkerDied, cpu_count, map_in_order
from ggdr.torch_utils.data.writer import new_dataset

# A message to a worker: enough images that its cost does not count, few enough that memory stays small.
_BATCH_IMAGES = 256
_BATCH_BYTES = 4 * 2**20


def _power_of_two(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and (value < 8 or value & (value - 1)):
        raise click.BadParameter(f"{value} is not a power of two >= 8 (8, 16, 32, ...)")
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
    type=int,
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
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take N images, spread evenly over the source.  [default: all]",
)
@click.option("--labels/--no-labels", default=True, show_default=True, help="Keep the labels the source has.")
@click.option(
    "--compress",
    type=click.IntRange(0, 9),
    metavar="0..9",
    help="zlib level of the PNGs: 0 is largest and fastest.  [default: 0 up to 64x64 pixels, else 1]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that convert. The result does not depend on it.  [default: number of CPUs]",
)
@click.option("--overwrite", is_flag=True, help="Replace DEST if it exists.")
def main(
    source: str,
    dest: Path,
    resolution: int | None,
    transform: str,
    filter_: str | None,
    small: str | None,
    channels: str,
    max_images: int | None,
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
        raise click.BadParameter("center-crop-wide needs --resolution", param_hint="--transform")
    if source != "digits" and not Path(source).exists():
        where = f"; download it from {CIFAR}" if Path(source).name == "cifar-10-python.tar.gz" else ""
        raise click.BadParameter(f"{source}: no such file or folder{where}", param_hint="SOURCE")
    _check_destination(source, dest, overwrite)
    started = time.monotonic()
    try:
        opened = open_source(source)
        conversion = Conversion(
            resolution=resolution or opened.default_resolution,
            transform=transform,
            filter=filter_,
            channels=int(channels),
            small=small or opened.small,
            compress=compress,
        )
        indices = spread(opened.count, max_images)
        if conversion.resolution is None:
            conversion = replace(conversion, expected_size=_size_of_first(opened, indices[0], conversion))
        table = opened.labels if labels else None
        with (
            _sigterm_unwinds(),
            closing(_convert(opened, indices, conversion, workers or cpu_count())) as pngs,
            new_dataset(dest, overwrite=overwrite) as add,
        ):
            count = _write(_progress(pngs, len(indices)), indices, table, add)
            if not count:
                raise DataError(f"{source}: every image is smaller than --resolution {conversion.resolution}")
    except (DataError, WorkerDied) as error:
        raise CliError(f"{error}\n{dest} was not written.") from error
    except OSError as error:
        raise CliError(f"{dest}: cannot be written ({error.strerror or error})") from error
    _summarise(dest, count, len(indices), conversion, table, time.monotonic() - started)


# Conversion.


def _size_of_first(source: Source, index: int, conversion: Conversion) -> tuple[int, int]:
    """(width, height) of the first image after cropping, which all must share."""
    for where, raw in source.items([index]):
        pixels = conversion(raw, where)
        size = (pixels.shape[1], pixels.shape[0])
        try:
            check_resolution(size, where)
        except DataError as error:
            raise DataError(
                f"{error}; give --resolution to bring all images to one size, and --transform center-crop if some are "
                "not square"
            ) from error
    return size


def _batches(items: Iterable[tuple[str, bytes | np.ndarray]]) -> Iterator[list]:
    """Group items up to _BATCH_IMAGES or _BATCH_BYTES."""
    batch, size = [], 0
    for where, raw in items:
        batch.append((where, raw))
        size += len(raw) if isinstance(raw, bytes) else raw.nbytes
        if len(batch) == _BATCH_IMAGES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _convert(source: Source, indices: Sequence[int], conversion: Conversion, workers: int) -> Iterator[bytes | None]:
    """PNG files in the order of indices."""
    batches = _batches(source.items(indices))
    first = next(batches)
    convert = partial(convert_batch, conversion)
    if workers == 1 or len(first) == len(indices):
        converted = map(convert, chain([first], batches))
    else:
        converted = map_in_order(convert, chain([first], batches), workers)
    for pngs in converted:
        yield from pngs


def _write(
    pngs: Iterable[bytes | None],
    indices: Iterable[int],
    table: LabelTable | None,
    add: Callable[[str, bytes], None],
) -> int:
    """Write the images and dataset.json; returns the number of images."""
    entries = []
    for index, png in zip(indices, pngs, strict=True):
        if png is None:
            continue
        number = len(entries)
        name = f"{number // 1000:05d}/img{number:08d}.png"
        add(name, png)
        entries.append([name, table.values[index].tolist()] if table else name)
    meta: dict[str, object] = {"labels": entries if table else None}
    if table and table.classes:
        meta["classes"] = table.classes
    add("dataset.json", json.dumps(meta).encode())
    return len(entries)


# Destination.


def _check_destination(source: str, dest: Path, overwrite: bool) -> None:
    """Refuse a DEST that exists, or that --overwrite must not replace."""
    if source != "digits" and dest.exists() and Path(source).exists() and dest.samefile(source):
        raise click.BadParameter("is SOURCE itself", param_hint="DEST")
    if Path(source).is_dir() and Path(source).resolve() in dest.resolve().parents:
        raise click.BadParameter(f"{dest} lies inside SOURCE, and would be read with it next time", param_hint="DEST")
    if dest.suffix.lower() in (*IMAGE_SUFFIXES, ".tar", ".gz", ".tgz", ".npz"):
        raise click.BadParameter(f"{dest}: expected a name ending in .zip, or that of a folder", param_hint="DEST")
    if not (dest.exists() or dest.is_symlink()):
        return
    if not overwrite:
        raise click.BadParameter(f"{dest} exists; give --overwrite to replace it", param_hint="DEST")
    if dest.is_dir() == (dest.suffix.lower() == ".zip"):
        raise click.BadParameter(
            f"{dest} is a {'folder' if dest.is_dir() else 'file'} and would be replaced by the other kind; "
            "remove it first",
            param_hint="DEST",
        )
    if dest.is_dir():
        foreign = [p.name for p in dest.iterdir() if not re.fullmatch(r"\d{5}|dataset\.json", p.name)]
        if foreign:
            raise click.BadParameter(
                f"{dest} holds {foreign[0]}, so it is no dataset of ours; --overwrite does not delete it",
                param_hint="DEST",
            )


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Make SIGTERM an exception, so that the partial DEST goes away as it does on Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


# What the user sees.


def _progress(pngs: Iterator[bytes | None], total: int) -> Iterator[bytes | None]:
    """Pass pngs on, with a progress bar."""
    with progress_bars() as progress:
        for done, png in enumerate(pngs, 1):
            yield png
            if done % 64 == 0 or done == total:
                progress("images", done, total)


def _summarise(
    dest: Path, count: int, asked: int, conversion: Conversion, table: LabelTable | None, seconds: float
) -> None:
    side = conversion.resolution or conversion.expected_size[0]
    plural = "" if conversion.channels == 1 else "s"
    parts = [f"{dest}: {count} images, {side}x{side}, {conversion.channels} channel{plural}"]
    if table is not None:
        parts.append(f"{table.c_dim} classes" if table.is_onehot else f"labels of length {table.c_dim}")
    if count < asked:
        parts.append(f"{asked - count} smaller ones left out")
    files = [dest] if dest.is_file() else [path for path in dest.rglob("*") if path.is_file()]
    parts.append(f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
    click.echo(", ".join(parts) + f" ({seconds:.1f} s, {count / seconds:.0f} images/s)")
