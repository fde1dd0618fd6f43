# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The randomness of a batch of augmentations, apart from what is made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """Raw draws for n images, on the CPU; they depend neither on p nor on the pipe nor on the resolution.

    `draws[rank::world]` are the draws of that part of the batch: what an image gets does not depend on how
    the batch was split.

    Attributes:
        values:         by name, [n] float64, uniform in [0, 1) or standard normal.
        accept:         by transform, [n] float64 uniform in [0, 1): applied where below its probability.
        noise_seed:     [n] int64, the seed of each image's noise field, which is drawn where the image lies.
        noise_quantile: stands for every value of the noise fields if the draws are percentiles, else None.
    """

    values: dict[str, Tensor]
    accept: dict[str, Tensor]
    noise_seed: Tensor
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

    def accepted(self, transform: str, probability: float) -> Tensor:
        """[n] bool: the images which get the transform, if each gets it with this probability."""
        return self.accept[transform] < probability


def draw(n: int, *, generator: torch.Generator | None = None) -> Draws:
    """Draws for n images from a CPU generator (None: torch's default), whatever the pipe."""
    kwargs = {"dtype": torch.float64, "generator": generator}
    return Draws(
        values={
            **dict(zip(_UNIFORM, torch.rand([len(_UNIFORM), n], **kwargs), strict=True)),
            **dict(zip(_NORMAL, torch.randn([len(_NORMAL), n], **kwargs), strict=True)),
        },
        accept=dict(zip(_TRANSFORMS, torch.rand([len(_TRANSFORMS), n], **kwargs), strict=True)),
        noise_seed=torch.randint(2**62, [n], generator=generator),
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
        values={name: torch.full([n], value, dtype=torch.float64) for name, value in values.items()},
        accept={name: torch.full([n], -math.inf, dtype=torch.float64) for name in _TRANSFORMS},
        noise_seed=torch.zeros([n], dtype=torch.int64),
        noise_quantile=quantile,
    )
