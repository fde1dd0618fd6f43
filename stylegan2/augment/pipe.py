# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Adaptive discriminator augmentation: random, differentiable transforms of what the discriminator sees.

    augmentation = pipe.sample(img, generator)  # one draw for each image ...
    logits = D(augmentation(img))               # ... which transforms the image
    target = augmentation.warp(feat)            # ... and, geometry only, feature maps of any resolution

Source: Karras et al. 2020, arXiv:2006.06676, Appendix B. Warped features: Lee et al. 2022, arXiv:2207.13320.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ggdr.stylegan2.augment.color import (
    add_noise,
    apply_color,
    band_gains,
    color_matrices,
    cut_out,
    cutout_centers,
    filter_bands,
    noise_levels,
)
from ggdr.stylegan2.augment.config import PIPES, AugmentConfig
from ggdr.stylegan2.augment.draws import Draws, draw, percentile_draws
from ggdr.stylegan2.augment.geometry import inverse_matrices, warp_features, warp_image

__all__ = ["PIPES", "AugmentConfig", "AugmentPipe", "Augmentation", "Draws"]


class AugmentPipe:
    """Draws augmentations of a given strength.

    Everything random but the noise field is drawn on the CPU from the generator given, a few dozen numbers
    per image, and the matrices are built there: no step waits for a GPU, and the draw is the same on every
    device.

    Args:
        config: strengths and magnitudes; `PIPES` has the published ones by name.
        p:      probability of a transform of strength 1, in [0, 1]; may be assigned at any time.

    Raises:
        ValueError: p is not in [0, 1].
    """

    def __init__(self, config: AugmentConfig, p: float = 0.0) -> None:
        self.config = config
        self.p = p

    @property
    def p(self) -> float:
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        self._p = float(p)

    def draw(self, n: int, *, generator: torch.Generator | None = None, percentile: float | None = None) -> Draws:
        """Draws for n images, which do not depend on p: those of the whole batch, to be sliced.

        Args:
            n:          number of images.
            generator:  of the CPU; None is torch's default one.
            percentile: in (0, 1): replaces every draw, and applies every transform with certainty; for tests.

        Raises:
            ValueError: the percentile is not in (0, 1).
        """
        return draw(n, generator=generator) if percentile is None else percentile_draws(n, percentile)

    def augmentation(self, draws: Draws, img_shape: tuple[int, int, int]) -> Augmentation:
        """What these draws mean for images of this shape (C, H, W), at the present p."""
        return Augmentation(self.config, draws, self.p, img_shape)

    def sample(self, img: Tensor, generator: torch.Generator | None = None) -> Augmentation:
        """A draw for images of the shape of img [N, C, H, W]; `generator` as in `draw`."""
        return self.augmentation(self.draw(len(img), generator=generator), tuple(img.shape[1:]))


class Augmentation:
    """One draw for a batch of images, which may be applied to several tensors. Made by `AugmentPipe`.

    Every image is transformed independently of the others. A stage that changes no image of the batch is
    skipped: at p = 0, images and features are returned as they are.
    """

    def __init__(self, config: AugmentConfig, draws: Draws, p: float, img_shape: tuple[int, int, int]) -> None:
        self.img_shape = tuple(img_shape)
        self._draws = draws
        self._cutout_size = config.cutout_size
        self._inverse = inverse_matrices(config, draws, p, self.img_shape)
        self._color = color_matrices(config, draws, p)
        self._gains = band_gains(config, draws, p)
        self._noise = noise_levels(config, draws, p)
        self._cutout = cutout_centers(config, draws, p)

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, images: slice) -> Augmentation:
        """The same of a part of the images."""
        part = copy.copy(self)
        part._draws = self._draws[images]
        for name in ("_inverse", "_color", "_gains", "_noise", "_cutout"):
            numbers = getattr(self, name)
            setattr(part, name, None if numbers is None else numbers[images])
        return part

    def __call__(self, img: Tensor) -> Tensor:
        """Geometry, colour, image filter, noise and cutout, in this order.

        Args:
            img: [N, C, H, W] in [-1, 1], of the shape that the draw was made for. Half precision is computed
                 in float32. Geometry, filter, noise and cutout treat all channels alike; colour leaves alpha
                 alone.

        Returns:
            [N, C, H, W] of the type of `img`, not clamped. Differentiable any number of times.

        Raises:
            ValueError: another shape, or a colour transform of images of 2 or more than 4 channels.
        """
        if tuple(img.shape) != (len(self), *self.img_shape):
            raise ValueError(f"expected images {(len(self), *self.img_shape)}, got {tuple(img.shape)}")
        out = _at_least_float32(img)
        with torch.autocast(img.device.type, enabled=False):
            if self._inverse is not None:
                out = warp_image(out, self._inverse)
            if self._color is not None:
                out = apply_color(out, self._color)
            if self._gains is not None:
                out = filter_bands(out, self._gains)
            if self._noise is not None:
                out = add_noise(out, self._noise, self._draws)
            if self._cutout is not None:
                out = cut_out(out, self._cutout, self._cutout_size)
        return out.to(img.dtype)

    def warp(self, feat: Tensor) -> Tensor:
        """The geometry alone, on feature maps of these images.

        Args:
            feat: [N, C, h, w] of any resolution, aspect and number of channels, covering the same field of
                  view as the images. Half precision is computed in float32.

        Returns:
            [N, C, h, w] of the type of `feat`; `feat` itself if no image of the batch moves.

        Raises:
            ValueError: `feat` is not 4-D, or of another number of images.
        """
        if feat.ndim != 4 or len(feat) != len(self):
            raise ValueError(f"expected features [{len(self)}, C, h, w], got {tuple(feat.shape)}")
        if self._inverse is None:
            return feat
        with torch.autocast(feat.device.type, enabled=False):
            return warp_features(_at_least_float32(feat), self._inverse, self.img_shape[1:]).to(feat.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
