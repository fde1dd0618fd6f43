# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The datasets of image translation, and in what order their samples come.

What a sample is depends on seed and position alone, as in torch_utils.data.loader.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from ggdr.torch_utils.data.container import Container, digest, opened
from ggdr.torch_utils.data.dataset import random_state
from ggdr.torch_utils.data.file_table import FileTable, ListedFile, evenly_spread
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_maps import CLASS_MODES, LabelClasses
from ggdr.torch_utils.data.loader import batch_indices
from ggdr.torch_utils.data.pair_folders import differing_sizes
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.crops import MIDDLE, CropConfig, crop_draws
from ggdr.translation.data.decode import Decoder, Item, Side, check_halves
from ggdr.translation.data.folders import find_domains, find_pairs

DIRECTIONS = ("AtoB", "BtoA")
CHANNELS = (1, 3)
_NUM_CHECKED = 256  # files whose header is read on opening; the rest are checked when they are decoded
_DOMAINS = 2  # part of a seed, as crops.py has one
_BLOCK = 1024  # steps whose domains are drawn at once


class Job(NamedTuple):
    """A batch to be decoded, and the numbers of its two domains, if there are any."""

    items: list[Item]
    domains: tuple[int, int] | None = None


class TranslationDataset(Protocol):
    """What a run needs of a dataset.

    Attributes:
        container: that its files are in.
        sides:     what A and B are.
    """

    container: Container
    sides: tuple[Side, Side]

    def decoder(self, crop: CropConfig) -> Decoder:
        """Turns items into arrays."""

    def jobs(self, position: int, batch: int, seed: int) -> Iterator[Job]:
        """Batches of all processes from a position on, without end; position and batch count samples."""


class PairedImages:
    """Pairs: A is what G is given, B what it should make of it.

    See `folders.find_pairs` for what lies where.

    Args:
        path:       folder or zip, or a container, whose files are not listed anew.
        split:      "train", "val" or "test", where there are folders of these.
        direction:  "AtoB", or "BtoA", which swaps A and B.
        labels:     which of the folders' "A" and "B" (left and right, side by side) are label maps, beside those that
                    the folders' names tell.
        channels:   of images, 1 or 3. Label maps have 1 if their files have the number of a class in each pixel, and
                    3 if they are in colours.

    Attributes:
        sides:      what A and B are.
        num_images: number of pairs.
        left_out:   which files are not read as images, in half a line; may be empty.

    Raises:
        DataError:  there are no pairs; the message names what is missing or of another size.
        ValueError: an argument is not one of these.
    """

    def __init__(
        self,
        path: str | os.PathLike | Container,
        *,
        split: str = "train",
        direction: str = "AtoB",
        labels: Collection[str] = (),
        channels: int = 3,
    ) -> None:
        _check_channels(channels)
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
        if not set(labels) <= set("AB"):
            raise ValueError(f"labels must be of A and B, got {', '.join(labels)}")
        self.container = opened(path)
        self.path = str(self.container.path)
        self.pairs = find_pairs(self.container, split)
        self.left_out = self.container.left_out()
        self.num_images = len(self.pairs.a)
        self.is_swapped = direction == "BtoA"
        tables = dict(zip("AB", (self.pairs.a, self.pairs.b), strict=True))
        are_labels = {*labels, *self.pairs.labels}
        # Of a pair side by side, both have the mode of the file.
        self._folder_sides = [
            _side(self.container, table, channels, name in are_labels) for name, table in tables.items()
        ]
        self._check()

    @property
    def sides(self) -> tuple[Side, Side]:
        a, b = self._folder_sides
        return (b, a) if self.is_swapped else (a, b)

    def with_classes(self, classes: LabelClasses) -> PairedImages:
        """The same pairs, with these classes in the label maps that have their numbers."""
        changed = copy(self)
        changed._folder_sides = [
            replace(side, classes=classes) if side.is_numbered else side for side in self._folder_sides
        ]
        return changed

    def input_files(self) -> FileTable:
        """The files that hold A."""
        return self.pairs.b if self.is_swapped else self.pairs.a

    def __len__(self) -> int:
        return self.num_images

    def first_pair(self) -> tuple[str, str]:
        """Where A and B of the first pair come from: names of files, or halves of one."""
        pairs = self.pairs
        names = (pairs.a.names[0], pairs.b.names[pairs.partner[0]])
        if pairs.is_side_by_side:
            names = (f"the left half of {names[0]}", f"the right half of {names[1]}")
        return (names[1], names[0]) if self.is_swapped else names

    def _check(self) -> None:
        """Raises DataError where one of some pairs is not what it should be, by its header."""
        for i in evenly_spread(self.num_images, _NUM_CHECKED):
            files = self._files(i)
            sizes = [self.container.header(file, upright=True)[0] for file in files]
            wheres = [self.container.where(file.name) for file in files]
            if len(files) == 1:
                check_halves(sizes[0], wheres[0])
            elif sizes[0] != sizes[1]:
                raise DataError(differing_sizes(wheres, sizes))

    def _files(self, i: int) -> tuple[ListedFile, ...]:
        a = self.pairs.a[i]
        if self.pairs.is_side_by_side:
            return (a,)
        b = self.pairs.b[int(self.pairs.partner[i])]
        return (b, a) if self.is_swapped else (a, b)

    def decoder(self, crop: CropConfig) -> Decoder:
        """Turns items into arrays."""
        return Decoder(self.container, crop, self.sides, paired=True, is_swapped=self.is_swapped)

    def jobs(self, position: int, batch: int, seed: int) -> Iterator[Job]:
        """Batches from a position on, without end; both images of a pair get one draw."""
        while True:
            indices = batch_indices(position, batch, self.num_images, seed).tolist()
            draws = crop_draws(position, batch, seed)
            yield Job([Item(self._files(i), (draw, draw)) for i, draw in zip(indices, draws, strict=True)])
            position += batch

    def middles(self, indices: Sequence[int]) -> list[Item]:
        """The pairs of these numbers, with the crop in the middle and no flip."""
        return [Item(self._files(i), (MIDDLE, MIDDLE)) for i in indices]

    def fingerprint(self) -> str:
        """Hash (hex) of the images in use, their order and sides."""
        return _fingerprint(self.container, [self.pairs.a, self.pairs.b], f"{self.sides}{self.is_swapped}")


class UnpairedImages:
    """Two domains of images or more, of any numbers and sizes.

    See `folders.find_domains` for what lies where. In each iteration two domains are drawn, of which each has an
    order of its own: an epoch of a domain ends where its images do.

    Args:
        path:     folder or zip, or a container, whose files are not listed anew.
        split:    "train", "val" or "test", where there are folders of these.
        channels: of images, 1 or 3.
        always:   number of a domain that is one of the two in each iteration, as one that is added to others that are
                  trained; None: any two.

    Attributes:
        domains:    names and files.
        num_images: number of images of the largest domain: so many samples are an epoch.
        left_out:   which files are not read as images, in half a line; may be empty.

    Raises:
        DataError:  there are no two domains, or one is empty, or an image cannot be read; it is named.
        ValueError: an argument is not one of these.
    """

    def __init__(
        self, path: str | os.PathLike | Container, *, split: str = "train", channels: int = 3, always: int | None = None
    ) -> None:
        _check_channels(channels)
        self.container = opened(path)
        self.path = str(self.container.path)
        self.domains = find_domains(self.container, split)
        if always is not None and not 0 <= always < len(self.domains):
            raise ValueError(f"always must be a domain from 0 to {len(self.domains) - 1}, got {always}")
        self.always = always
        self.left_out = self.container.left_out()
        self.sides = (Side(channels), Side(channels))
        self.num_images = max(len(domain.files) for domain in self.domains)
        for domain in self.domains:
            for i in evenly_spread(len(domain.files), max(_NUM_CHECKED // len(self.domains), 1)):
                self.container.header(domain.files[i])

    def selected(self, names: Sequence[str], *, always: int | None = None) -> UnpairedImages:
        """These domains of it, in this order.

        Args:
            always: as for the dataset, by its number in `names`.

        Raises:
            DataError: it has no such domain.
        """
        by_name = {domain.name: domain for domain in self.domains}
        missing = [name for name in names if name not in by_name]
        if missing:
            lacking, found = (", ".join(printable(name, 100) for name in x) for x in (missing, self.names))
            raise DataError(f"{printable(self.path)}: holds no domain {lacking}; it has {found}")
        chosen = copy(self)
        chosen.domains, chosen.always = [by_name[name] for name in names], always
        chosen.num_images = max(len(domain.files) for domain in chosen.domains)
        return chosen

    @property
    def names(self) -> list[str]:
        """What the domains are called."""
        return [domain.name for domain in self.domains]

    def fewest(self, names: Collection[str]) -> int:
        """Images of the smallest of these domains, or of all if none is called so."""
        return min(len(x.files) for x in [x for x in self.domains if x.name in names] or self.domains)

    def __len__(self) -> int:
        return self.num_images

    def decoder(self, crop: CropConfig) -> Decoder:
        """Turns items into arrays."""
        return Decoder(self.container, crop, self.sides, paired=False)

    def jobs(self, position: int, batch: int, seed: int) -> Iterator[Job]:
        """Batches from a position on, without end; the domains of a batch are drawn for position / batch."""
        step = position // batch
        used = uses_before(step, len(self.domains), seed, self.always)
        while True:
            a, b = domain_pairs(step, 1, len(self.domains), seed, self.always)[0].tolist()
            parts = [self._part(domain, int(used[domain]) * batch, batch, seed) for domain in (a, b)]
            items = [
                Item((a_file, b_file), (a_draw, b_draw))
                for (a_file, a_draw), (b_file, b_draw) in zip(*parts, strict=True)
            ]
            yield Job(items, (a, b))
            used[[a, b]] += 1
            step += 1

    def _part(self, domain: int, position: int, n: int, seed: int) -> list[tuple[ListedFile, tuple]]:
        """Files and draws of one domain, from a position in its own stream on."""
        seed += domain << 32  # a stream of its own
        files = self.domains[domain].files
        indices = batch_indices(position, n, len(files), seed).tolist()
        return [(files[i], draw) for i, draw in zip(indices, crop_draws(position, n, seed), strict=True)]

    def middles(self, domains: tuple[int, int], indices: Sequence[int]) -> list[Item]:
        """The images of these numbers of two domains, cropped in the middle and not flipped; numbers start anew."""
        tables = [self.domains[domain].files for domain in domains]
        return [Item(tuple(table[i % len(table)] for table in tables), (MIDDLE, MIDDLE)) for i in indices]

    def fingerprint(self) -> str:
        """Hash (hex) of the images in use, by domains."""
        tables = [domain.files for domain in self.domains]
        return _fingerprint(self.container, tables, f"{self.names}{self.sides}")


def domain_pairs(step: int, num: int, num_domains: int, seed: int, always: int | None = None) -> np.ndarray:
    """The two different domains, in rising order, of steps step .. step + num - 1: int64 [num, 2].

    All pairs are equally probable, of those that have the domain `always`. What a step gets depends on seed and step
    alone.
    """
    if not num:
        return np.zeros((0, 2), np.int64)
    blocks = range(step // _BLOCK, (step + num - 1) // _BLOCK + 1)
    pairs = np.concatenate([_pair_block(block, num_domains, seed, always) for block in blocks])
    start = step % _BLOCK
    return pairs[start : start + num]


def _pair_block(block: int, num_domains: int, seed: int, always: int | None) -> np.ndarray:
    rng = random_state(seed, _DOMAINS, block)
    first = rng.randint(num_domains, size=_BLOCK, dtype=np.int64)
    if always is not None:
        first = np.full_like(first, always)
    second = (first + rng.randint(1, num_domains, size=_BLOCK, dtype=np.int64)) % num_domains
    return np.sort(np.stack([first, second], axis=1), axis=1)


def uses_before(step: int, num_domains: int, seed: int, always: int | None = None) -> np.ndarray:
    """How often each domain was drawn in the steps before this one: int64 [num_domains]."""
    used = np.zeros(num_domains, np.int64)
    for start in range(0, step, _BLOCK):
        pairs = domain_pairs(start, min(_BLOCK, step - start), num_domains, seed, always)
        used += np.bincount(pairs.flatten(), minlength=num_domains)
    return used


def _side(container: Container, files: FileTable, channels: int, is_labels: bool) -> Side:
    """What the files of one side are; label maps are as the first of them."""
    if not is_labels:
        return Side(channels)
    _, mode = container.header(files[0])
    return Side(1 if mode in CLASS_MODES else 3, is_labels=True)


def _fingerprint(container: Container, tables: Sequence[FileTable], settings: str) -> str:
    sha = hashlib.sha256(settings.encode("utf-8", "surrogateescape"))
    for table in tables:
        sha.update(digest(container, table).encode())
    return sha.hexdigest()


def _check_channels(channels: int) -> None:
    if channels not in CHANNELS:
        raise ValueError(f"channels must be one of {CHANNELS}, got {printable(channels)}")
