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
from typing import TypeVar

import numpy as np

from ggdr.torch_utils.data.archives import Source, open_source, spread
from ggdr.torch_utils.data.container import CLASSES_FILE, IMAGES, LABEL_MAPS
from ggdr.torch_utils.data.convert import Conversion, check_resolution, convert_batch, convert_or_skip
from ggdr.torch_utils.data.convert_labels import LabelConversion, LabelledPng, RawLabelled, written_classes
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_maps import IGNORED, LabelClasses
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.data.workers import cpu_count, map_in_order
from ggdr.torch_utils.data.writer import new_dataset

# A message to a worker: enough images that its cost does not count, few enough that memory stays small.
_BATCH_IMAGES = 256
_BATCH_BYTES = 4 * 2**20

Item = TypeVar("Item", bound=tuple)
R = TypeVar("R")
# PNGs, what was wrong with an image, or None for one that is too small.
Converted = bytes | LabelledPng | DataError | None


@dataclass(frozen=True)
class ConvertedDataset:
    """What was written.

    Attributes:
        num_images: images in the dataset.
        num_small:  images that were too small, and left out as asked.
        broken:     what was wrong with images that were left out as asked.
        resolution: side of all images, pixels.
        labels:     of the whole source; None if the dataset has none.
        label_note: why it has none, or what was made of unusual folders; may be empty.
        left_out:   which files of the source are not read as images, in half a line; may be empty.
        label_classes: what the values of the label maps mean; None if there are none.
        label_counts:  [256] int64, pixels of each value in the label maps.
    """

    num_images: int
    num_small: int
    broken: list[str]
    resolution: int
    channels: int
    labels: LabelTable | None
    label_note: str
    left_out: str
    label_classes: LabelClasses | None
    label_counts: np.ndarray


def convert_dataset(
    source: str | Source,
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
    split: str | None = None,
    num_classes: int | None = None,
    ignored: Sequence[int] | None = None,
    skip_broken: bool = False,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    label_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConvertedDataset:
    """Writes a dataset, which appears complete or not at all, also if this is interrupted by an exception.

    Args:
        source:      opened, or as in `open_source`.
        dest:        a zip if its name ends in .zip, else a folder.
        resolution, transform, filter, channels, small, compress: as in `Conversion`; None for `resolution` and `small`
            is what suits the source.
        max_images:  so many at most are taken, evenly spread over the source.
        use_labels:  keep the labels of images.
        split:       which images of a folder or zip; as in `FileSource`.
        num_classes, ignored: of label maps, as in `label_map_files.classes_of_maps`.
        num_workers: processes, on which the result does not depend; None: one a CPU.
        progress:    called with the number of images done, and of all.
        label_progress: the same of the label maps that are looked through for classes.

    Raises:
        DataError: the source is of no known kind or damaged, or its images cannot be converted as asked.
        ValueError: there are no `num_classes` values for classes.
        WorkerDied: a process of the converter ended.
        OSError: `dest` cannot be written.
    """
    opened = open_source(source, split) if isinstance(source, str) else source
    conversion = Conversion(
        resolution=resolution or opened.default_resolution,
        transform=transform,
        filter=filter,
        channels=channels,
        small=small or opened.small,
        compress=compress,
    )
    table = opened.labels if use_labels else None
    usable = _with_a_class(opened.count, table)
    indices = usable if max_images is None else [usable[i] for i in spread(len(usable), max_images)]
    if conversion.resolution is None:
        size = _size_of_first(opened, indices, conversion, skip_broken)
        conversion = replace(conversion, expected_size=size)
    classes = None
    if opened.has_label_maps:
        classes = opened.label_classes(num_classes, ignored, label_progress)
    elif num_classes is not None or ignored is not None:
        raise DataError(f"{source}: has no label maps, which classes and ignored values are of")
    broken: list[str] = []
    files = _Files(table, None if classes is None else written_classes(classes))
    with (
        closing(_convert(opened, indices, conversion, classes, skip_broken, num_workers or cpu_count())) as converted,
        new_dataset(dest, overwrite=overwrite) as add,
    ):
        sound = _without_broken(counted(converted, len(indices), progress), broken)
        num_images = files.write(sound, indices, add)
        if not num_images:
            why = f"; {broken[0]}" if broken else ""
            raise DataError(f"{source}: every image is smaller than --resolution {conversion.resolution}{why}")
    return ConvertedDataset(
        num_images,
        len(indices) - num_images - len(broken),
        broken,
        conversion.resolution or conversion.expected_size[0],
        channels,
        table,
        opened.label_note if use_labels else "--no-labels was given",
        opened.left_out,
        files.classes,
        files.label_counts,
    )


def _with_a_class(count: int, table: LabelTable | None) -> Sequence[int]:
    """The images but for those that have no class where others do."""
    if table is None or not table.is_onehot or table.values.min() >= 0:
        return range(count)
    return np.flatnonzero(table.values >= 0).tolist()


def _size_of_first(
    source: Source, indices: Sequence[int], conversion: Conversion, skip_broken: bool
) -> tuple[int, int]:
    """(width, height) of the first sound image after cropping, which all must share."""
    for where, raw in source.items(indices):
        pixels = convert_or_skip(conversion, raw, where, skip_broken=skip_broken)
        if isinstance(pixels, DataError):
            continue
        size = (pixels.shape[1], pixels.shape[0])
        try:
            check_resolution(size, where)
        except DataError as error:
            raise DataError(
                f"{error}; give --resolution to bring all images to one size, and --transform center-crop if some are "
                "not square"
            ) from error
        return size
    raise DataError("no image of the source can be read")


def in_batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Groups tuples whose last part is a raw image, up to _BATCH_IMAGES or _BATCH_BYTES: messages to a worker."""
    batch, size = [], 0
    for item in items:
        raw = item[-1]
        batch.append(item)
        size += raw.nbytes if isinstance(raw, np.ndarray) else len(raw) if isinstance(raw, bytes) else 0
        if len(batch) == _BATCH_IMAGES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _convert(
    source: Source,
    indices: Sequence[int],
    conversion: Conversion,
    classes: LabelClasses | None,
    skip_broken: bool,
    workers: int,
) -> Iterator[Converted]:
    """PNG files in the order of indices; with classes those of images and label maps."""
    convert: Callable
    if classes is None:
        batches = in_batches(source.items(indices))
        convert = partial(convert_batch, conversion, skip_broken=skip_broken)
    else:
        batches = in_batches(_labelled(source, indices))
        convert = partial(LabelConversion(conversion, classes), skip_broken=skip_broken)
    first = next(batches)
    if workers == 1 or len(first) == len(indices):
        converted = map(convert, chain([first], batches))
    else:
        converted = map_in_order(convert, chain([first], batches), workers)
    for pngs in converted:
        yield from pngs


def _labelled(source: Source, indices: Sequence[int]) -> Iterator[RawLabelled]:
    """The images of these numbers with their label maps."""
    for (where, image), (map_where, label_map) in zip(source.items(indices), source.label_maps(indices), strict=True):
        yield RawLabelled(where, map_where, label_map, image)


def _without_broken(pngs: Iterable[Converted], broken: list[str]) -> Iterator[bytes | LabelledPng | None]:
    """Passes pngs on, and collects the messages of those that cannot be had."""
    for png in pngs:
        if isinstance(png, DataError):
            broken.append(str(png))
        yield None if isinstance(png, DataError) else png


class _Files:
    """The files of a dataset.

    Args:
        table:   labels of the source's images, or None.
        classes: what the values of label maps mean, or None if there are none.

    Attributes:
        label_counts: as in `ConvertedDataset`.
    """

    def __init__(self, table: LabelTable | None, classes: LabelClasses | None) -> None:
        self.table, self.classes = table, classes
        self.label_counts = np.zeros(IGNORED + 1, np.int64)

    def write(
        self, pngs: Iterable[bytes | LabelledPng | None], indices: Iterable[int], add: Callable[[str, bytes], None]
    ) -> int:
        """Write images, label maps, dataset.json and classes.json; returns the number of images."""
        entries = []
        for index, png in zip(indices, pngs, strict=True):
            if png is None:
                continue
            number = len(entries)
            name = f"{number // 1000:05d}/img{number:08d}.png"
            if isinstance(png, LabelledPng):
                add(f"{LABEL_MAPS}{name}", png.label_map)
                self.label_counts += png.counts
                name, png = f"{IMAGES}{name}", png.image
            add(name, png)
            entries.append([name, self.table.values[index].tolist()] if self.table else name)
        meta: dict[str, object] = {"labels": entries if self.table else None}
        if self.table and self.table.classes:
            meta["classes"] = self.table.classes
        add("dataset.json", json.dumps(meta).encode())
        if self.classes is not None:
            add(CLASSES_FILE, json.dumps(self.classes.to_json()).encode())
        return len(entries)


def counted(converted: Iterable[R], total: int, progress: Callable[[int, int], None]) -> Iterator[R]:
    """Passes what is converted on, and tells how many."""
    for done, each in enumerate(converted, 1):
        yield each
        if done % 64 == 0 or done == total:
            progress(done, total)
