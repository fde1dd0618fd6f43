# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images made by anyone, as 8-bit RGB of one size. Imports no torch, so that worker processes start quickly."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import ListedFile
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.untrusted.text import printable

_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class RGBDecoder:
    """Reads images of one size as RGB; what worker processes need, and small to pickle.

    Attributes:
        container: where the files are.
        size:      (width, height) in pixels that all must have.
        example:   an image of that size, for messages.
    """

    container: Container
    size: tuple[int, int]
    example: str

    def __call__(self, files: Sequence[ListedFile]) -> np.ndarray:
        """The images of these files, uint8 [n, 3, H, W]; grey is repeated, transparency left out.

        Raises:
            DataError: one cannot be decoded, has another size, or more than 8 bits.
        """
        width, height = self.size
        images = np.empty((len(files), 3, height, width), dtype=np.uint8)
        for image, file in zip(images, files, strict=True):
            where = self.container.where(file.name)
            # Before it is decoded, an image may still lie on its side.
            check = partial(self._check, file.name, (self.size, self.size[::-1]))
            img = load_image(self.container.read(file), where, check)
            self._check(file.name, (self.size,), img)
            image[:] = np.asarray(rgb(img, where)).transpose(2, 0, 1)
        return images

    def _check(self, name: str, sizes: Collection[tuple[int, int]], img: Image.Image) -> None:
        if img.size not in sizes:
            width, height = self.size
            raise DataError(
                f"{self.container.where(name)}: is {img.width}x{img.height}, expected {width}x{height} as "
                f"{printable(self.example)}; images of mixed sizes have no common resize: convert them with "
                "ggdr dataset SOURCE DEST --resolution N"
            )


def rgb(img: Image.Image, where: str) -> Image.Image:
    """An image of any 8-bit kind as RGB.

    Raises:
        DataError: it has another type of pixels.
    """
    if img.mode not in _EIGHT_BIT:
        raise DataError(f"{where}: has pixel type {img.mode!r}, expected 8-bit grey or colour")
    return img if img.mode == "RGB" else img.convert("RGB")
