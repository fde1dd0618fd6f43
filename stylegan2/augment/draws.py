# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The randomness of a batch of augmentations, apart from what is made of it."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Draws:
    """Raw draws for n images; they depend neither on p nor on the pipe nor on the resolution.

    They are NumPy's arrays, on which an operation costs a fraction of what PyTorch takes to dispatch one.

    `draws[rank::world]` are the draws of that part of the batch: what an image gets does not depend on how
    the batch was split.

    Attributes:
        values:         by name, [n] float64, uniform in [0, 1) or standard normal.
        accept:         by transform, [n] float64 uniform in [0, 1): applied where below its probability.
        noise_seed:     [n] int64, the seed of each image's noise field, which is drawn where the image lies.
        noise_quantile: stands for every value of the noise fields if the draws are percentiles, else None.
    """

    values: dict[str, np.ndarray]
    accept: dict[str, np.ndarray]
    noise_seed: np.ndarray
    noise_quantile: float | None = None

    def __len__(self) -> int:
        return len(self.noise_seed)

    def __getitem__(self, images: slice) -> Draws:
        if not isinstance(images, slice):
            raise TypeError(f"draws are taken by slice, got {images!r}")
        return Draws(
            values={name: value[images] for name, value in self.values.items()},
            accept={name: value[images] for name, value in self.accept.items()},
            noise_seed=self.noise_seed[images],
            noise_quantile=self.noise_quantile,
        )

    def accepted(self, transform: str, probability: float) -> np.ndarray:
        """[n] bool: the images which get the transform, if each gets it with this probability."""
        return self.accept[transform] < probability


def draw(n: int, *, generator: torch.Generator | None = None) -> Draws:
    """Draws for n images from a CPU generator (None: torch's default), whatever the pipe."""
    kwargs = {"dtype": torch.float64, "generator": generator}
    uniform = torch.rand([len(_UNIFORM), n], **kwargs).numpy()
    normal = torch.randn([len(_NORMAL), n], **kwargs).numpy()
    accept = torch.rand([len(_TRANSFORMS), n], **kwargs).numpy()
    return Draws(
        values=dict(zip((*_UNIFORM, *_NORMAL), (*uniform, *normal), strict=True)),
        accept=dict(zip(_TRANSFORMS, accept, strict=True)),
        noise_seed=torch.randint(2**62, [n], generator=generator).numpy(),
    )


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
    values = {name: percentile for name in _UNIFORM} | {name: quantile for name in _NORMAL}
    values["rotate_post"] = 0.5
    return Draws(
        values={name: np.full(n, value) for name, value in values.items()},
        accept={name: np.full(n, -math.inf) for name in _TRANSFORMS},
        noise_seed=np.zeros(n, dtype=np.int64),
        noise_quantile=quantile,
    )


def as_img(numbers: np.ndarray, img: Tensor) -> Tensor:
    """Small per-image numbers in the type and on the device of the image, without waiting for the device."""
    dtype = np.float64 if img.dtype == torch.float64 else np.float32
    return torch.from_numpy(numbers.astype(dtype)).to(img.device, non_blocking=True)
