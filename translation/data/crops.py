# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What part of an image is trained on: resize, random crop, flip. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.dataset import random_state
from ggdr.torch_utils.data.image_files import DataError

FITS = ("stretch", "cover", "none")
MAX_SIZE = 2**13  # pixels
MAX_ENLARGE = 8.0
MAX_RESIZED = 2**14  # pixels: a strip of a pixel's height would become an image of gigabytes

_CROPS = 1  # part of a seed: random_state(seed, epoch) orders the images
_BLOCK = 1024  # samples whose draws are made at once


class Draw(NamedTuple):
    """The random numbers of one crop: where it lies, each in [0, 1), and whether it is flipped."""

    x: float
    y: float
    flip: bool


MIDDLE = Draw(0.5, 0.5, False)


@dataclass(frozen=True)
class CropConfig:
    """How an image becomes a square of `size` pixels.

    Attributes:
        size:    side of the result in pixels.
        enlarge: the image is resized to int(size * enlarge) pixels first, of which the crop takes a part: 256 pixels
                 of 286.
        fit:     "stretch": both sides to that, as published; "cover": the shorter side, so that shapes stay;
                 "none": the image is not resized.
        flip:    whether every other image is mirrored.

    Raises:
        ValueError: a setting is not one of these.

    Source: Isola et al. 2016, arXiv:1611.07004, Appendix 6.2 (286 and 256 pixels, mirroring).
    """

    size: int = 256
    enlarge: float = 1.12
    fit: str = "stretch"
    flip: bool = True

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"size must be a whole number from 1 to {MAX_SIZE}, got {self.size!r}")
        if type(self.enlarge) not in (int, float) or not 1 <= self.enlarge <= MAX_ENLARGE:
            raise ValueError(f"enlarge must be a number from 1 to {MAX_ENLARGE:g}, got {self.enlarge!r}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, got {self.fit!r}")
        if type(self.flip) is not bool:
            raise ValueError(f"flip must be true or false, got {self.flip!r}")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that an image is resized to before the crop."""
        if self.fit == "none":
            return width, height
        side = int(self.size * self.enlarge)
        if self.fit == "stretch":
            return side, side
        shorter = min(width, height)
        return max(round(width * side / shorter), side), max(round(height * side / shorter), side)

    def apply(self, img: Image.Image, draw: Draw, where: str, *, nearest: bool = False) -> np.ndarray:
        """The crop of one image.

        Args:
            draw:    the same for all images of a pair.
            where:   its name, for the error.
            nearest: pixels are picked, not interpolated, as label maps need it.

        Returns:
            uint8 [C, size, size].

        Raises:
            DataError: it is not resized, and smaller than the crop; or far too long for its width.
        """
        size = self.resized(*img.size)
        if max(size) > max(MAX_RESIZED, *img.size):
            raise DataError(
                f"{where}: is {img.width}x{img.height}, and would be {size[0]}x{size[1]} with its shorter side resized "
                f"(fit cover); expected at most {MAX_RESIZED} pixels"
            )
        if size != img.size:
            img = img.resize(size, Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC)
        width, height = size
        if min(size) < self.size:
            raise DataError(
                f"{where}: is {width}x{height}, smaller than the crop of {self.size}x{self.size}, and images are not "
                "resized (fit none)"
            )
        left, top = int(draw.x * (width - self.size + 1)), int(draw.y * (height - self.size + 1))
        pixels = np.asarray(img.crop((left, top, left + self.size, top + self.size)))
        if draw.flip and self.flip:
            pixels = pixels[:, ::-1]
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def crop_draws(position: int, n: int, seed: int) -> list[Draw]:
    """The draws of the samples at positions position .. position + n - 1 of an endless stream."""
    draws = []
    for i in range(position, position + n):
        x, y, flip = _block(i // _BLOCK, seed)[i % _BLOCK]
        draws.append(Draw(float(x), float(y), bool(flip < 0.5)))
    return draws


@lru_cache(maxsize=8)
def _block(block: int, seed: int) -> np.ndarray:
    return random_state(seed, _CROPS, block).random_sample((_BLOCK, 3))
