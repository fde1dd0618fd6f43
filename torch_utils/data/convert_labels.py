# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images with label maps to PNGs of both: the same crop, and label maps picked where images are interpolated.

Needs no torch: this is what the converter's worker processes run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.convert import Conversion, decode, encode_png, or_skip
from ggdr.torch_utils.data.file_source import Raw
from ggdr.torch_utils.data.image_files import DataError, UnreadableImage
from ggdr.torch_utils.data.label_maps import IGNORED, LabelClasses, class_colors, hex_colors
from ggdr.torch_utils.data.pair_folders import differing_sizes


class RawLabelled(NamedTuple):
    """An image and its label map, of one size, and what messages call them."""

    where: str
    map_where: str
    label_map: Raw
    image: Raw


class LabelledPng(NamedTuple):
    """PNG files of an image and of its label map, and how many pixels each class and IGNORED have there."""

    image: bytes
    label_map: bytes
    counts: np.ndarray  # [256] int64


def written_classes(classes: LabelClasses) -> LabelClasses:
    """What the values of written label maps mean: 0, 1, ... without gaps, and IGNORED; each class with a colour."""
    colors = hex_colors(class_colors(classes)[: classes.num])
    return replace(classes, values=tuple(range(classes.num)), ignored=(IGNORED,), colors=tuple(colors))


@dataclass(frozen=True)
class LabelConversion:
    """How an image and its label map become PNGs.

    Attributes:
        conversion: of the image; the label map gets the same crop and size, and IGNORED where the image gets bars.
        classes:    what the values, or the colours, in source label maps mean.
    """

    conversion: Conversion
    classes: LabelClasses

    def __call__(self, batch: Sequence[RawLabelled], *, skip_broken: bool) -> list[LabelledPng | DataError | None]:
        """In the batch's order; None for images to skip, and as in `convert_batch` an error for what is broken.

        Raises:
            DataError: a label map has another size than its image, a value that is no class, or pixels without; or as
                `convert_batch` raises it.
        """
        return [or_skip(lambda each=each: self._convert(each), skip_broken=skip_broken) for each in batch]

    def _convert(self, raw: RawLabelled) -> LabelledPng | None:
        for each in (raw.image, raw.label_map):
            if isinstance(each, DataError):
                raise UnreadableImage(str(each)) from each
        img, label_map = decode(raw.image, raw.where), decode(raw.label_map, raw.map_where)
        if img.size != label_map.size:
            raise DataError(differing_sizes([raw.where, raw.map_where], [img.size, label_map.size]))
        pixels = self.conversion.convert(img, raw.where)
        if pixels is None:
            return None
        numbers = Image.fromarray(self._numbers(label_map, raw.map_where))
        fitted = self.conversion.fit(numbers, raw.map_where, resample=Image.Resampling.NEAREST, bars=IGNORED)
        compress, numbers = self.conversion.compress, np.asarray(fitted)
        return LabelledPng(
            encode_png(pixels, compress),
            encode_png(numbers, compress, self._palette),
            np.bincount(numbers.ravel(), minlength=IGNORED + 1),
        )

    def _numbers(self, label_map: Image.Image, where: str) -> np.ndarray:
        """Classes of an image with their numbers or colours in each pixel, uint8 [H, W]."""
        if label_map.mode in ("RGB", "RGBA") and self.classes.colors:
            return self.classes.numbers_of_colors(np.asarray(label_map.convert("RGB")), where)
        return self.classes.read(label_map, where)

    @cached_property
    def _palette(self) -> np.ndarray:
        """uint8 [256, 3]: the colours of classes, else black."""
        palette = np.zeros((IGNORED + 1, 3), np.uint8)
        palette[: self.classes.num] = class_colors(self.classes)[: self.classes.num]
        return palette
