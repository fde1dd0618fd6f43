# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The randomness of a batch of augmentations, apart from what is made of it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ggdr.stylegan2.augment.config import NUM_BANDS

BAND_NAMES = tuple(f"imgfilter_{band}" for band in range(NUM_BANDS))
_UNIFORM = (
    "xflip",
    "rotate90",
    "xint_x",
    "xint_y",
    "rotate_pre",
    "rotate_post",
    "lumaflip",
    "hue",
    "cutout_x",
    "cutout_y",
)
_NORMAL = (
    "scale",
    "aniso",
    "xfrac_x",
    "xfrac_y",
    "brightness",
    "contrast",
    "saturation",
    *BAND_NAMES,
    "noise",
)
_TRANSFORMS = (
    "xflip",
    "rotate90",
    "xint",
    "scale",
    "rotate_pre",
    "aniso",
    "rotate_post",
    "xfrac",
    "brightness",
    "contrast",
    "lumaflip",
    "hue",
    "saturation",
    *BAND_NAMES,
    "noise",
    "cutout",
)
_VALUE_ROW = {name: row for row, name in enumerate((*_UNIFORM, *_NORMAL))}
_TRANSFORM_ROW = {name: row for row, name in enumerate(_TRANSFORMS)}


@dataclass(frozen=True)
class Draws:
    """Raw draws for n images; they depend neither on p nor on the pipe nor on the resolution.

    They are NumPy's arrays, on which an operation costs a fraction of what PyTorch takes to dispatch one.

    `draws[rank::world]` are the draws of that part of the batch: what an image gets does not depend on how
    the batch was split.

    Attributes:
        values:         [a row for each name, n] float64, uniform in [0, 1) or standard normal.
        accept:         [a row for each transform, n] float64 uniform in [0, 1): applied where below its probability.
        noise_seed:     [n] int64, the seed of each image's noise field, which is drawn where the image lies.
        noise_quantile: stands for every value of the noise fields if the draws are percentiles, else None.
    """

    values: np.ndarray
    accept: np.ndarray
    noise_seed: np.ndarray
    noise_quantile: float | None = None

    def __len__(self) -> int:
        return len(self.noise_seed)

    def __getitem__(self, images: slice) -> Draws:
        if not isinstance(images, slice):
            raise TypeError(f"draws are taken by slice, got {images!r}")
        return Draws(
            self.values[:, images], self.accept[:, images], self.noise_seed[images], noise_quantile=self.noise_quantile
        )

    @staticmethod
    def in_turn(*parts: Draws) -> Draws:
        """Those of one image of each part, then of the next one; all parts have as many images."""
        return Draws(
            *(
                np.stack([getattr(part, name) for part in parts], axis=-1).reshape(*rows, -1)
                for name, rows in (("values", [len(_VALUE_ROW)]), ("accept", [len(_TRANSFORM_ROW)]), ("noise_seed", []))
            ),
            noise_quantile=parts[0].noise_quantile,
        )

    def value(self, name: str) -> np.ndarray:
        """[n]: what was drawn under a name, as "xflip"."""
        return self.values[_VALUE_ROW[name]]

    def accepted(self, transform: str, probability: float) -> np.ndarray:
        """[n] bool: the images which get the transform, if each gets it with this probability."""
        return self.accept[_TRANSFORM_ROW[transform]] < probability

    def replace(self, **values: float) -> Draws:
        """The same, but for the values given by name, equal for all images; for tests."""
        changed = self.values.copy()
        for name, value in values.items():
            changed[_VALUE_ROW[name]] = value
        return dataclasses.replace(self, values=changed)


def draw(n: int, *, generator: torch.Generator | None = None) -> Draws:
    """Draws for n images from a CPU generator (None: torch's default), whatever the pipe."""
    kwargs = {"dtype": torch.float64, "generator": generator}
    uniform = torch.rand([len(_UNIFORM), n], **kwargs).numpy()
    normal = torch.randn([len(_NORMAL), n], **kwargs).numpy()
    accept = torch.rand([len(_TRANSFORMS), n], **kwargs).numpy()
    noise_seed = torch.randint(2**62, [n], generator=generator).numpy()
    return Draws(np.concatenate([uniform, normal]), accept, noise_seed)


def percentile_draws(n: int, percentile: float) -> Draws:
    """Every draw replaced by its percentile, and every transform applied with certainty; for tests.

    Args:
        n:          number of images.
        percentile: P in (0, 1). A uniform draw becomes P, a standard normal erfinv(2P - 1) as the reference
                    vectors have it (without the factor sqrt(2)); the second rotation becomes none.

    Raises:
        ValueError: the percentile is not in (0, 1).
    """
    if not 0 < percentile < 1:
        raise ValueError(f"percentile must be in (0, 1), got {percentile}")
    quantile = torch.erfinv(torch.tensor(2 * percentile - 1, dtype=torch.float64)).item()
    draws = Draws(
        values=np.repeat([percentile] * len(_UNIFORM) + [quantile] * len(_NORMAL), n).reshape(-1, n),
        accept=np.full([len(_TRANSFORMS), n], -math.inf),
        noise_seed=np.zeros(n, dtype=np.int64),
        noise_quantile=quantile,
    )
    return draws.replace(rotate_post=0.5)


def as_img(numbers: np.ndarray, img: Tensor) -> Tensor:
    """Small per-image numbers in the type and on the device of the image, without waiting for the device."""
    dtype = np.float64 if img.dtype == torch.float64 else np.float32
    return torch.from_numpy(numbers.astype(dtype)).to(img.device, non_blocking=True)
