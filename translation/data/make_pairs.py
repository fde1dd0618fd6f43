# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Ordinary images to a set of pairs, as `PairedImages` reads it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ggdr.torch_utils.data.archives import Raw, Source, open_source, spread
from ggdr.torch_utils.data.convert import Conversion, convert_or_skip, encode_png
from ggdr.torch_utils.data.convert_dataset import counted, in_batches
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.data.workers import cpu_count, map_in_order
from ggdr.torch_utils.data.writer import new_dataset
from ggdr.translation.data.pair_tasks import PairTask


class Pair(NamedTuple):
    """PNG files of A and B, and whether both show the same."""

    a: bytes
    b: bytes
    is_equal: bool


@dataclass(frozen=True)
class PairConversion:
    """What worker processes do.

    Attributes:
        task:        makes A of B.
        conversion:  makes B of a raw image.
        skip_broken: whether the error of an image that cannot be decoded stands for its pair.
    """

    task: PairTask
    conversion: Conversion
    skip_broken: bool

    def __call__(self, batch: Sequence[tuple[int, str, Raw]]) -> list[Pair | DataError]:
        """Pairs of [(number in the source, name, raw image), ...], in this order; raises DataError."""
        return [self._pair(number, where, raw) for number, where, raw in batch]

    def _pair(self, number: int, where: str, raw: Raw) -> Pair | DataError:
        b = convert_or_skip(self.conversion, raw, where, skip_broken=self.skip_broken)
        if isinstance(b, DataError):
            return b
        if b is None or min(b.shape[:2]) < self.task.min_side:
            raise DataError(self._too_small(raw, where))
        a = self.task(b, number)
        is_equal = np.array_equal(np.broadcast_to(a.reshape(*b.shape[:2], -1), b.shape), b)
        return Pair(encode_png(a), encode_png(b), is_equal)

    def _too_small(self, raw: Raw, where: str) -> str:
        """What to say of an image that --size or the task cannot use."""
        height, width = load_image(raw, where).size[::-1] if isinstance(raw, bytes) else raw.shape[:2]
        size, least = self.conversion.resolution, self.task.min_side
        if size is None or size < least:
            return f"{where}: is {width}x{height}, expected sides of {least} pixels or more for {self.task.name}"
        return f"{where}: is {width}x{height}, smaller than the {size}x{size} of --size, and images are not enlarged"


@dataclass
class MadePairs:
    """What was written.

    Attributes:
        num_train, num_test: pairs.
        num_equal: pairs whose images are the same: nothing can be learnt from them.
        broken:    what was wrong with images that were left out as asked.
        left_out:  which files of the source are not read as images, in half a line; may be empty.
    """

    num_train: int = 0
    num_test: int = 0
    num_equal: int = 0
    broken: list[str] = field(default_factory=list)
    left_out: str = ""


def make_pairs(
    source: str,
    dest: Path,
    task: PairTask,
    *,
    size: int | None = None,
    max_images: int | None = None,
    test: float = 0.0,
    skip_broken: bool = False,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MadePairs:
    """Writes trainA/ and trainB/, and testA/ and testB/ if asked for, with files of equal names.

    `dest` appears complete or not at all, also if this is interrupted by an exception. The same source and settings
    give the same bytes, whatever `num_workers` is.

    Args:
        source:      as in `open_source`.
        dest:        a zip if its name ends in .zip, else a folder.
        size:        side of the images in pixels, of which the centred square is taken; None: as they are.
        max_images:  so many at most are taken, evenly spread over the source.
        test:        part of the images, from 0 to below 1, evenly spread, that testA and testB are for.
        skip_broken: leave out images that cannot be decoded.
        num_workers: processes; None: one a CPU.
        progress:    called with the number of images done, and of all.

    Raises:
        DataError: the source is of no known kind or damaged, an image cannot be used, no image is left to train on, or
            A and B are equal in all pairs.
        WorkerDied: a worker process ended.
        OSError: `dest` cannot be written.
    """
    opened = open_source(source)
    indices = spread(opened.count, max_images)
    num_test = max(round(len(indices) * test), 1) if test else 0
    if num_test >= len(indices):
        raise DataError(f"{source}: {len(indices)} images, of which --test {test:g} leaves none to train on")
    size = size or opened.default_resolution
    conversion = Conversion(
        resolution=size,
        transform="none" if size is None else "center-crop",
        small="upscale" if opened.small == "upscale" else "skip",
    )
    convert = PairConversion(task, conversion, skip_broken)
    made, is_test = MadePairs(left_out=opened.left_out), set(spread(len(indices), num_test))
    with (
        closing(_convert(opened, indices, convert, num_workers or cpu_count())) as pairs,
        new_dataset(dest, overwrite=overwrite) as add,
    ):
        for i, pair in enumerate(counted(pairs, len(indices), progress)):
            if isinstance(pair, DataError):
                made.broken.append(str(pair))
                continue
            split = "test" if i in is_test else "train"
            for side, png in (("A", pair.a), ("B", pair.b)):
                add(f"{split}{side}/img{i:08d}.png", png)
            made.num_test += i in is_test
            made.num_train += i not in is_test
            made.num_equal += pair.is_equal
        if not made.num_train:
            raise DataError(f"{source}: no image is left to train on; {made.broken[0]}")
        if made.num_equal == made.num_train + made.num_test:
            raise DataError(f"{source}: {task.name} changes none of its images, so that there is nothing to learn")
    return made


def _convert(
    source: Source, indices: Sequence[int], convert: PairConversion, workers: int
) -> Iterator[Pair | DataError]:
    """Pairs in the order of indices."""
    items = ((i, where, raw) for i, (where, raw) in zip(indices, source.items(indices), strict=True))
    batches = in_batches(items)
    first = next(batches)
    is_little = workers == 1 or len(first) == len(indices)
    batches = chain([first], batches)
    for pairs in map(convert, batches) if is_little else map_in_order(convert, batches, workers):
        yield from pairs
