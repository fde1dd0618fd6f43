# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Colour transforms, image-space filtering, noise and cutout: what leaves the geometry as it is.

Each comes as two functions: what the draws mean for each image, on the CPU, and its application. None means
that no image of the batch changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ggdr.stylegan2.augment.config import NUM_BANDS, AugmentConfig
from ggdr.stylegan2.augment.draws import BAND_NAMES, Draws
from ggdr.stylegan2.augment.filters import band_filters

# Share of each band in the expected power of an image. Source: arXiv:2006.06676, Appendix B.
_BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


def color_matrices(config: AugmentConfig, draws: Draws, p: float) -> Tensor | None:
    """The product of all colour transforms which the images of a batch get.

    Returns:
        [n, 4, 4] float64 on the CPU, acting on (R, G, B, 1), or None.
    """
    value, accepted = draws.values, draws.accepted
    identity = torch.eye(4, dtype=torch.float64)
    rgb = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    luma = torch.zeros(4, 4, dtype=torch.float64)  # projection on the axis of greys
    luma[:3, :3] = 1 / 3
    chroma = rgb - luma
    matrix = identity.expand(len(draws), 4, 4)

    if config.brightness > 0:
        shift = torch.where(accepted("brightness", config.brightness * p), value["brightness"], 0.0)
        white = torch.zeros(4, 4, dtype=torch.float64)
        white[:3, 3] = 1
        matrix = (identity + _each(shift * config.brightness_std) * white) @ matrix
    if config.contrast > 0:
        log2 = torch.where(accepted("contrast", config.contrast * p), value["contrast"] * config.contrast_std, 0.0)
        matrix = (identity + _each(torch.exp2(log2) - 1) * rgb) @ matrix
    if config.lumaflip > 0:
        flip = torch.where(accepted("lumaflip", config.lumaflip * p), (value["lumaflip"] * 2).floor(), 0.0)
        matrix = (identity - _each(2 * flip) * luma) @ matrix
    if config.hue > 0:
        angle = (value["hue"] * 2 - 1) * math.pi * config.hue_max
        angle = torch.where(accepted("hue", config.hue * p), angle, 0.0)
        # Rodrigues' formula for a rotation about the axis of greys.
        cross = torch.zeros(4, 4, dtype=torch.float64)
        cross[[1, 2, 0], [0, 1, 2]] = 1 / math.sqrt(3)
        cross = cross - cross.T
        matrix = (identity + _each(angle.cos() - 1) * chroma + _each(angle.sin()) * cross) @ matrix
    if config.saturation > 0:
        log2 = value["saturation"] * config.saturation_std
        log2 = torch.where(accepted("saturation", config.saturation * p), log2, 0.0)
        matrix = (identity + _each(torch.exp2(log2) - 1) * chroma) @ matrix

    return None if torch.equal(matrix, identity.expand_as(matrix)) else matrix


def apply_color(img: Tensor, matrices: Tensor) -> Tensor:
    """Applies colour matrices [N, 4, 4] to img [N, C, H, W].

    Grey images take the mean of the matrix' rows; the fourth channel of RGBA images, alpha, stays as it is.

    Raises:
        ValueError: `img` has neither 1 nor 3 nor 4 channels.
    """
    n, channels, height, width = img.shape
    if channels == 1:
        mean = matrices[:, :3].mean(dim=1)  # [N, 4]
        factor, shift = mean[:, :3].sum(dim=1)[:, None, None], mean[:, 3:, None]
    elif channels == 3:
        factor, shift = matrices[:, :3, :3], matrices[:, :3, 3:]
    elif channels == 4:
        factor, shift = matrices * torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64), matrices[:, :, 3:]
        alpha = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        factor, shift = factor + torch.diag(alpha), shift * (1 - alpha)[:, None]
    else:
        raise ValueError(f"colour transforms need images of 1, 3 or 4 channels, got {channels}")
    factor, shift = _like(factor, img), _like(shift, img)
    return torch.baddbmm(shift, factor, img.flatten(2)).reshape(n, channels, height, width)


def band_gains(config: AugmentConfig, draws: Draws, p: float) -> Tensor | None:
    """Gain of each band for each image: [n, NUM_BANDS] float64 on the CPU, lowest band first, or None."""
    power = torch.tensor(_BAND_POWER, dtype=torch.float64)
    gains = torch.ones(len(draws), NUM_BANDS, dtype=torch.float64)
    changed = False
    for band, (name, strength) in enumerate(zip(BAND_NAMES, config.imgfilter_bands, strict=True)):
        if config.imgfilter * strength > 0:
            hit = draws.accepted(name, config.imgfilter * strength * p)
            changed = changed or bool(hit.any())
            gain = torch.ones_like(gains)
            gain[:, band] = torch.where(hit, torch.exp2(draws.values[name] * config.imgfilter_std), 1.0)
            # An image of the expected spectrum keeps its power.
            gains = gains * gain / (power * gain.square()).sum(dim=1, keepdim=True).sqrt()
    return gains if changed else None


def filter_bands(img: Tensor, gains: Tensor) -> Tensor:
    """Scales the bands of img [N, C, H, W] by gains [N, NUM_BANDS] along both axes; edges are mirrored."""
    gains = _like(gains, img)
    height, width = img.shape[2:]
    # One [size, size] filter matrix per image and axis, shared by its channels.
    rows = torch.einsum("nb,bij->nij", gains, band_filters(height, img.dtype, img.device))[:, None]
    cols = torch.einsum("nb,bij->nij", gains, band_filters(width, img.dtype, img.device))[:, None]
    return rows @ img @ cols.transpose(2, 3)


def noise_levels(config: AugmentConfig, draws: Draws, p: float) -> Tensor | None:
    """Standard deviation of the noise for each image: [n] float64 on the CPU, or None."""
    if config.noise == 0:
        return None
    sigma = draws.values["noise"].abs() * config.noise_std
    sigma = torch.where(draws.accepted("noise", config.noise * p), sigma, 0.0)
    return sigma if bool(sigma.any()) else None


def add_noise(img: Tensor, sigma: Tensor, draws: Draws) -> Tensor:
    """Adds white noise of standard deviation sigma [N] to img [N, C, H, W].

    Each image's noise comes from a seed of its own and is drawn where the image lies: no rank draws
    another's, and none crosses to a GPU. CPU and GPU draw different numbers from one seed.
    """
    if draws.noise_quantile is not None:
        return img + _like(sigma, img)[:, None, None, None] * draws.noise_quantile
    generator = torch.Generator(img.device)
    noise = torch.zeros(img.shape, dtype=img.dtype, device=img.device)
    for i, (level, seed) in enumerate(zip(sigma.tolist(), draws.noise_seed.tolist(), strict=True)):
        if level > 0:
            noise[i].normal_(std=level, generator=generator.manual_seed(seed))
    return img + noise


def cutout_centers(config: AugmentConfig, draws: Draws, p: float) -> Tensor | None:
    """Centre (x, y) of each image's cut: [n, 2] float64 in [0, 1) on the CPU, far away if none; or None."""
    if config.cutout == 0:
        return None
    hit = draws.accepted("cutout", config.cutout * p)
    if not hit.any():
        return None
    centers = torch.stack([draws.values["cutout_x"], draws.values["cutout_y"]], dim=1)
    return torch.where(hit[:, None], centers, -2 - config.cutout_size)


def cut_out(img: Tensor, centers: Tensor, size: float) -> Tensor:
    """Zeroes a square around centers [N, 2] in img [N, C, H, W]; its side is `size` times the image's."""
    height, width = img.shape[2:]
    x, y = _like(centers, img)[:, :, None].unbind(dim=1)  # [N, 1]
    columns = (torch.arange(width, device=img.device, dtype=img.dtype) + 0.5) / width
    rows = (torch.arange(height, device=img.device, dtype=img.dtype) + 0.5) / height
    keep_x, keep_y = (columns - x).abs() >= size / 2, (rows - y).abs() >= size / 2
    return img * (keep_x[:, None, None, :] | keep_y[:, None, :, None])


def _each(value: Tensor) -> Tensor:
    """[n] -> [n, 1, 1]."""
    return value[:, None, None]


def _like(value: Tensor, img: Tensor) -> Tensor:
    """Small per-image numbers, in the type and on the device of the image, without waiting for the device."""
    return value.to(img.dtype).to(img.device, non_blocking=True)
