# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images made by anyone, of any size, as 8-bit RGB. Imports no torch, so that worker processes start quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.convert import to_channels
from ggdr.torch_utils.data.file_table import ListedFile
from ggdr.torch_utils.data.image_files import DataError, load_image

MOST_PIXELS = 2**28  # decoded at once: three quarters of a gigabyte, and more than one image may have
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class RGBDecoder:
    """Reads images as RGB; what worker processes need, and small to pickle.

    Attributes:
        container: where the files are.
        as_stored: read as Pillow's convert("RGB") alone does: not turned by EXIF, transparency left out. Else as
            `ggdr dataset` reads them: turned upright, transparency laid over white.
    """

    container: Container
    as_stored: bool = False

    def __call__(self, files: Sequence[ListedFile]) -> np.ndarray | list[np.ndarray]:
        """The images of these files, uint8 [n, 3, H, W]; a list of [3, H, W] where they differ in size.

        Raises:
            DataError: one cannot be decoded, its pixels have another type, or they are too large together.
        """
        num_pixels, images = 0, []

        def count(img: Image.Image) -> None:
            nonlocal num_pixels
            num_pixels += img.width * img.height
            if num_pixels > MOST_PIXELS:
                raise DataError(
                    f"{where}: {len(images) + 1} images up to this one have {num_pixels:,} pixels, expected at most "
                    f"{MOST_PIXELS:,} at once; give a --batch below {len(files)}"
                )

        for file in files:
            where = self.container.where(file.name)
            img = load_image(self.container.read(file), where, count, as_stored=self.as_stored)
            images.append(np.asarray(self._rgb(img, where)).transpose(2, 0, 1))
        return np.stack(images) if len({image.shape for image in images}) == 1 else images

    def _rgb(self, img: Image.Image, where: str) -> Image.Image:
        if not self.as_stored:
            return to_channels(img, 3, where)
        if img.mode not in _EIGHT_BIT:
            raise DataError(f"{where}: has pixel type {img.mode!r}, expected 8-bit grey or colour")
        return img if img.mode == "RGB" else img.convert("RGB")
