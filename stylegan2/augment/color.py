# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Colour transforms, image-space filtering, noise and cutout: what leaves the geometry as it is.

Each comes as two functions: what the draws mean for each image, in NumPy, and its application. None means
that no image of the batch changes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ggdr.stylegan2.augment.config import NUM_BANDS, AugmentConfig
from ggdr.stylegan2.augment.draws import BAND_NAMES, Draws, as_img
from ggdr.stylegan2.augment.filters import band_filters

# Share of each band in the expected power of an image. Source: arXiv:2006.06676, Appendix B.
_BAND_POWER = np.array([10, 1, 1, 1]) / 13


# Parts of the colour matrices, which act on (R, G, B, 1).
_IDENTITY = np.eye(4)
_RGB = np.diag([1.0, 1.0, 1.0, 0.0])
_WHITE = np.outer([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0])
_LUMA = np.outer([1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]) / 3  # projection on the axis of greys
_CHROMA = _RGB - _LUMA
_CROSS = np.pad([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], (0, 1)) / math.sqrt(3)  # product with the axis


def color_matrices(config: AugmentConfig, draws: Draws, p: float) -> np.ndarray | None:
    """The product of all colour transforms which the images of a batch get.

    Returns:
        [n, 4, 4] float64, acting on (R, G, B, 1), or None.
    """
    value, accepted = draws.value, draws.accepted
    matrix = identity = np.broadcast_to(_IDENTITY, [len(draws), 4, 4])

    if config.brightness > 0:
        shift = np.where(accepted("brightness", config.brightness * p), value("brightness"), 0.0)
        matrix = (_IDENTITY + _each(shift * config.brightness_std) * _WHITE) @ matrix
    if config.contrast > 0:
        log2 = np.where(accepted("contrast", config.contrast * p), value("contrast") * config.contrast_std, 0.0)
        matrix = (_IDENTITY + _each(np.exp2(log2) - 1) * _RGB) @ matrix
    if config.lumaflip > 0:
        flip = np.where(accepted("lumaflip", config.lumaflip * p), np.floor(value("lumaflip") * 2), 0.0)
        matrix = (_IDENTITY - _each(2 * flip) * _LUMA) @ matrix
    if config.hue > 0:
        angle = (value("hue") * 2 - 1) * (math.pi * config.hue_max)
        angle = _each(np.where(accepted("hue", config.hue * p), angle, 0.0))
        # Rodrigues' formula for a rotation about the axis of greys.
        matrix = (_IDENTITY + (np.cos(angle) - 1) * _CHROMA + np.sin(angle) * _CROSS) @ matrix
    if config.saturation > 0:
        log2 = value("saturation") * config.saturation_std
        log2 = np.where(accepted("saturation", config.saturation * p), log2, 0.0)
        matrix = (_IDENTITY + _each(np.exp2(log2) - 1) * _CHROMA) @ matrix

    return None if np.array_equal(matrix, identity) else matrix


def apply_color(img: Tensor, matrices: np.ndarray) -> Tensor:
    """Applies colour matrices [N, 4, 4] to img [N, C, H, W].

    Grey images take the mean of the matrix' rows; the fourth channel of RGBA images, alpha, stays as it is.

    Raises:
        ValueError: `img` has neither 1 nor 3 nor 4 channels.
    """
    n, channels, height, width = img.shape
    if channels == 1:
        mean = matrices[:, :3].mean(axis=1, keepdims=True)  # [N, 1, 4]
        factor_shift = np.concatenate([mean[:, :, :3].sum(axis=2, keepdims=True), mean[:, :, 3:]], axis=2)
    elif channels == 3:
        factor_shift = matrices[:, :3]
    elif channels == 4:
        factor_shift = np.zeros([n, 4, 5])
        factor_shift[:, :3, :3], factor_shift[:, :3, 4] = matrices[:, :3, :3], matrices[:, :3, 3]
        factor_shift[:, 3, 3] = 1
    else:
        raise ValueError(f"colour transforms need images of 1, 3 or 4 channels, got {channels}")
    factor_shift = as_img(factor_shift, img)  # [N, C, C + 1]
    factor, shift = factor_shift[:, :, :channels], factor_shift[:, :, channels:]
    return torch.baddbmm(shift, factor, img.flatten(2)).reshape(n, channels, height, width)


def band_gains(config: AugmentConfig, draws: Draws, p: float) -> np.ndarray | None:
    """Gain of each band for each image: [n, NUM_BANDS] float64, lowest band first, or None."""
    gains = np.ones([len(draws), NUM_BANDS])
    changed = False
    for band, (name, strength) in enumerate(zip(BAND_NAMES, config.imgfilter_bands, strict=True)):
        if config.imgfilter * strength > 0:
            hit = draws.accepted(name, config.imgfilter * strength * p)
            changed = changed or bool(hit.any())
            gain = np.ones_like(gains)
            gain[:, band] = np.where(hit, np.exp2(draws.value(name) * config.imgfilter_std), 1.0)
            # An image of the expected spectrum keeps its power.
            gains = gains * gain / np.sqrt((_BAND_POWER * np.square(gain)).sum(axis=1, keepdims=True))
    return gains if changed else None


def filter_bands(img: Tensor, gains: np.ndarray) -> Tensor:
    """Scales the bands of img [N, C, H, W] by gains [N, NUM_BANDS] along both axes; edges are mirrored."""
    gains = as_img(gains, img)
    height, width = img.shape[2:]
    # One [size, size] filter matrix per image and axis, shared by its channels.
    rows = torch.einsum("nb,bij->nij", gains, band_filters(height, img.dtype, img.device))[:, None]
    cols = torch.einsum("nb,bij->nij", gains, band_filters(width, img.dtype, img.device))[:, None]
    return rows @ img @ cols.transpose(2, 3)


def noise_levels(config: AugmentConfig, draws: Draws, p: float) -> np.ndarray | None:
    """Standard deviation of the noise for each image: [n] float64, or None."""
    if config.noise == 0:
        return None
    sigma = np.abs(draws.value("noise")) * config.noise_std
    sigma = np.where(draws.accepted("noise", config.noise * p), sigma, 0.0)
    return sigma if sigma.any() else None


def add_noise(img: Tensor, sigma: np.ndarray, draws: Draws) -> Tensor:
    """Adds white noise of standard deviation sigma [N] to img [N, C, H, W].

    Each image's noise comes from a seed of its own and is drawn where the image lies: no rank draws
    another's, and none crosses to a GPU. CPU and GPU draw different numbers from one seed.
    """
    if draws.noise_quantile is not None:
        return img + as_img(sigma, img)[:, None, None, None] * draws.noise_quantile
    generator = torch.Generator(img.device)
    noise = torch.zeros(img.shape, dtype=img.dtype, device=img.device)
    for i, (level, seed) in enumerate(zip(sigma.tolist(), draws.noise_seed.tolist(), strict=True)):
        if level > 0:
            noise[i].normal_(std=level, generator=generator.manual_seed(seed))
    return img + noise


def cutout_centers(config: AugmentConfig, draws: Draws, p: float) -> np.ndarray | None:
    """Centre (x, y) of each image's cut: [n, 2] float64 in [0, 1), far away if none; or None."""
    if config.cutout == 0:
        return None
    hit = draws.accepted("cutout", config.cutout * p)
    if not hit.any():
        return None
    centers = np.stack([draws.value("cutout_x"), draws.value("cutout_y")], axis=1)
    return np.where(hit[:, None], centers, -2 - config.cutout_size)


def cut_out(img: Tensor, centers: np.ndarray, size: float) -> Tensor:
    """Zeroes a square around centers [N, 2] in img [N, C, H, W]; its side is `size` times the image's."""
    height, width = img.shape[2:]
    x, y = as_img(centers, img)[:, :, None].unbind(dim=1)  # [N, 1]
    columns = (torch.arange(width, device=img.device, dtype=img.dtype) + 0.5) / width
    rows = (torch.arange(height, device=img.device, dtype=img.dtype) + 0.5) / height
    keep_x, keep_y = (columns - x).abs() >= size / 2, (rows - y).abs() >= size / 2
    return img * (keep_x[:, None, None, :] | keep_y[:, None, :, None])


def _each(value: np.ndarray) -> np.ndarray:
    """[n] -> [n, 1, 1]."""
    return value[:, None, None]
