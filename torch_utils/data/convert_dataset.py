# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A collection of images, of any kind that `archives` opens, to a dataset for training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ggdr.torch_utils.data.archives import Source, open_source, spread
from ggdr.torch_utils.data.convert import Conversion, check_resolution, convert_batch
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.data.workers import cpu_count, map_in_order
from ggdr.torch_utils.data.writer import new_dataset

# A message to a worker: enough images that its cost does not count, few enough that memory stays small.
_BATCH_IMAGES = 256
_BATCH_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ConvertedDataset:
    """What was written.

    Attributes:
        num_images:   images in the dataset.
        num_left_out: images that were too small, and left out as asked.
        resolution:   side of all images, pixels.
        labels:       of the whole source; None if the dataset has none.
    """

    num_images: int
    num_left_out: int
    resolution: int
    channels: int
    labels: LabelTable | None


def convert_dataset(
    source: str,
    dest: Path,
    *,
    resolution: int | None = None,
    transform: str = "none",
    filter: str | None = None,
    channels: int = 3,
    small: str | None = None,
    compress: int | None = None,
    max_images: int | None = None,
    use_labels: bool = True,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConvertedDataset:
    """Writes a dataset, which appears complete or not at all, also if this is interrupted by an exception.

    Args:
        source:      as in `open_source`.
        dest:        a zip if its name ends in .zip, else a folder.
        resolution, transform, filter, channels, small, compress: as in `Conversion`; None for `resolution` and `small`
            is what suits the source.
        max_images:  so many at most are taken, evenly spread over the source.
        num_workers: processes, on which the result does not depend; None: one a CPU.
        progress:    called with the number of images done, and of all.

    Raises:
        DataError: the source is of no known kind or damaged, or its images cannot be converted as asked.
        WorkerDied: a process of the converter ended.
        OSError: `dest` cannot be written.
    """
    opened = open_source(source)
    conversion = Conversion(
        resolution=resolution or opened.default_resolution,
        transform=transform,
        filter=filter,
        channels=channels,
        small=small or opened.small,
        compress=compress,
    )
    indices = spread(opened.count, max_images)
    if conversion.resolution is None:
        conversion = replace(conversion, expected_size=_size_of_first(opened, indices[0], conversion))
    table = opened.labels if use_labels else None
    with (
        closing(_convert(opened, indices, conversion, num_workers or cpu_count())) as pngs,
        new_dataset(dest, overwrite=overwrite) as add,
    ):
        num_images = _write(_counted(pngs, len(indices), progress), indices, table, add)
        if not num_images:
            raise DataError(f"{source}: every image is smaller than --resolution {conversion.resolution}")
    side = conversion.resolution or conversion.expected_size[0]
    return ConvertedDataset(num_images, len(indices) - num_images, side, channels, table)


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


def _counted(pngs: Iterator[bytes | None], total: int, progress: Callable[[int, int], None]) -> Iterator[bytes | None]:
    """Passes pngs on, and tells how many."""
    for done, png in enumerate(pngs, 1):
        yield png
        if done % 64 == 0 or done == total:
            progress(done, total)
