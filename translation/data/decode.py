# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files of images to arrays, in worker processes too. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.convert import to_channels
from ggdr.torch_utils.data.file_table import ListedFile
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.data.label_maps import LabelClasses, check_label_map
from ggdr.torch_utils.data.pair_folders import differing_sizes
from ggdr.translation.data.crops import CropConfig, Draw


class Item(NamedTuple):
    """A sample: one file that holds both images side by side, or two files; and the draw of A and that of B."""

    files: tuple[ListedFile, ...]
    draws: tuple[Draw, Draw]


@dataclass(frozen=True)
class Side:
    """What the images of A, or of B, are.

    Attributes:
        channels:  1 or 3. Label maps of one have the number of a class in each pixel.
        is_labels: whether they are label maps, whose pixels are picked and never interpolated.
        classes:   of label maps of one channel; None: their values are passed on as they are stored.
    """

    channels: int = 3
    is_labels: bool = False
    classes: LabelClasses | None = field(default=None, repr=False)  # no part of fingerprints

    @property
    def planes(self) -> int:
        """Channels that a network is given of them."""
        return self.channels if self.classes is None else self.classes.num

    @property
    def is_numbered(self) -> bool:
        """Whether they are label maps with the number of a class in each pixel."""
        return self.is_labels and self.channels == 1

    @property
    def kind(self) -> str:
        """What they are, for messages."""
        if self.is_numbered:
            return "label maps" if self.classes is None else f"label maps of {self.classes.num} classes"
        return f"images of {self.channels} channel{'s' if self.channels > 1 else ''}"


@dataclass(frozen=True)
class Decoder:
    """Decodes samples; what worker processes need of a dataset, and small to pickle.

    Attributes:
        container: where the files are.
        crop:      what becomes of an image.
        sides:     of A and of B.
        paired:    whether A and B show the same, and so must be of one size.
        is_swapped: whether the right one of two images side by side is A.
    """

    container: Container
    crop: CropConfig
    sides: tuple[Side, Side]
    paired: bool
    is_swapped: bool = False

    def __call__(self, items: Sequence[Item]) -> dict[str, np.ndarray]:
        """{"A": uint8 [n, C, size, size], "B": the same}; of label maps with classes these, see LabelClasses.numbers.

        Raises:
            DataError: a file cannot be decoded, or is not what is expected; it is named.
        """
        pairs = [self._decode(item) for item in items]
        return {name: np.stack([pair[i] for pair in pairs]) for i, name in enumerate("AB")}

    def _decode(self, item: Item) -> list[np.ndarray]:
        wheres = [self.container.where(file.name) for file in item.files]
        images = [load_image(self.container.read(f), where) for f, where in zip(item.files, wheres, strict=True)]
        if len(images) == 1:
            images, wheres = _halves(images[0], wheres[0]), wheres * 2
            images = images[::-1] if self.is_swapped else images
        elif self.paired and images[0].size != images[1].size:
            raise DataError(differing_sizes(wheres, [img.size for img in images]))
        parts = zip(images, item.draws, wheres, self.sides, strict=True)
        return [self._cropped(img, draw, where, side) for img, draw, where, side in parts]

    def _cropped(self, img: Image.Image, draw: Draw, where: str, side: Side) -> np.ndarray:
        pixels = self.crop.apply(_pixels(img, side, where), draw, where, nearest=side.is_labels)
        return pixels if side.classes is None else side.classes.numbers(pixels, where)


def check_halves(size: tuple[int, int], where: str) -> None:
    """Raises DataError for an image that cannot hold two side by side."""
    width, height = size
    if width % 2:
        raise DataError(f"{where}: is {width}x{height}; two images side by side have an even width together")


def _halves(img: Image.Image, where: str) -> list[Image.Image]:
    check_halves(img.size, where)
    width, height = img.size
    return [img.crop((left, 0, left + width // 2, height)) for left in (0, width // 2)]


def _pixels(img: Image.Image, side: Side, where: str) -> Image.Image:
    """The image with one or three channels; of label maps the classes as they are stored."""
    if side.is_labels and side.channels == 1:
        check_label_map(img.mode, where)
        return img
    return to_channels(img, side.channels, where)
