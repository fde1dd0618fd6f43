# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Geometric transforms: one inverse matrix per image, and its application to images and to feature maps.

The matrices take output coordinates to input coordinates, in image pixels, x to the right and y down, with
the origin at the image's centre. They are built in float64 by NumPy, where the draws are: how far an image
must be continued beyond its edges is then known without waiting for a GPU.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ggdr.stylegan2.augment.config import AugmentConfig
from ggdr.stylegan2.augment.draws import Draws, as_img
from ggdr.stylegan2.augment.filters import downsample, upsample_mirrored
from ggdr.torch_utils.ops.grid_sample import grid_sample

_BORDER = 3  # pixels sampled beyond each edge of the output, for the downsampling filter


def inverse_matrices(
    config: AugmentConfig, draws: Draws, p: float, img_shape: tuple[int, int, int]
) -> np.ndarray | None:
    """The product of all geometric transforms which the images of a batch get.

    Args:
        config:    strengths and magnitudes.
        draws:     of n images.
        p:         probability of a transform of strength 1.
        img_shape: (C, H, W) of the images; integer translations are whole pixels of it.

    Returns:
        [n, 3, 3] float64, or None if it is the identity for every image.
    """
    value, accepted = draws.value, draws.accepted
    height, width = img_shape[1:]
    matrix = identity = np.broadcast_to(np.eye(3), [len(draws), 3, 3])

    # Pixel blitting.
    if config.xflip > 0:
        flip = np.where(accepted("xflip", config.xflip * p), np.floor(value("xflip") * 2), 0.0)
        matrix = matrix @ _scale(1 - 2 * flip, 1.0)
    if config.rotate90 > 0:
        turns = np.where(accepted("rotate90", config.rotate90 * p), np.floor(value("rotate90") * 4), 0.0).astype(int)
        sin = np.array([0.0, 1.0, 0.0, -1.0])  # exact, as sin(pi) is not
        matrix = matrix @ _rotate(sin[(turns + 1) % 4], sin[turns])
    if config.xint > 0:
        hit = accepted("xint", config.xint * p)
        x, y = ((value(name) * 2 - 1) * config.xint_max for name in ("xint_x", "xint_y"))
        matrix = matrix @ _translate(np.where(hit, -np.rint(x * width), 0.0), np.where(hit, -np.rint(y * height), 0.0))

    # General geometry. The two rotations share the probability of at least one: 1 - (1 - q)^2 = strength * p.
    rotate_probability = 1 - math.sqrt(1 - min(config.rotate * p, 1.0))
    if config.scale > 0:
        log2 = np.where(accepted("scale", config.scale * p), value("scale") * config.scale_std, 0.0)
        matrix = matrix @ _scale(np.exp2(-log2), np.exp2(-log2))
    if config.rotate > 0:
        matrix = matrix @ _rotation(config, draws, "rotate_pre", rotate_probability)
    if config.aniso > 0:
        log2 = np.where(accepted("aniso", config.aniso * p), value("aniso") * config.aniso_std, 0.0)
        matrix = matrix @ _scale(np.exp2(-log2), np.exp2(log2))
    if config.rotate > 0:
        matrix = matrix @ _rotation(config, draws, "rotate_post", rotate_probability)
    if config.xfrac > 0:
        hit = accepted("xfrac", config.xfrac * p)
        x, y = (np.where(hit, value(name) * config.xfrac_std, 0.0) for name in ("xfrac_x", "xfrac_y"))
        matrix = matrix @ _translate(-x * width, -y * height)

    return None if np.array_equal(matrix, identity) else matrix


def warp_image(img: Tensor, inverse: np.ndarray) -> Tensor:
    """Transforms images between orthogonal low-pass filters at twice their resolution.

    What lies beyond an edge is the image mirrored at the centre of its edge pixels, up to size - 1 pixels
    out; zeros beyond that. Every image is continued as far as it needs, so that it does not depend on the
    rest of the batch.

    Args:
        img:     [N, C, H, W] float32 or float64.
        inverse: [N, 3, 3] float64, of `inverse_matrices`.

    Returns:
        [N, C, H, W]. Differentiable any number of times.
    """
    height, width = img.shape[2:]
    # The part of the upsampled image that is sampled. 6 of its pixels hold the filters and the interpolation.
    (min_x, max_x), (min_y, max_y) = _reach(inverse, width / 2 + _BORDER, height / 2 + _BORDER)
    x0, x1 = _span(min_x, max_x, width)
    y0, y1 = _span(min_y, max_y, height)
    img = upsample_mirrored(img, (x0, x1), (y0, y1))

    # Sampling. Input pixel i, counted from the centre, is row 2i + 3 (size - 1) of the upsampled image.
    to_rows = np.array([[2, 0, 3 * (width - 1) - x0], [0, 2, 3 * (height - 1) - y0], [0, 0, 1]])
    to_unit = np.array([[2 / (x1 - x0), 0, 1 / (x1 - x0) - 1], [0, 2 / (y1 - y0), 1 / (y1 - y0) - 1], [0, 0, 1]])
    columns, rows = (_doubled_pixels(size, img.dtype, img.device) for size in (width, height))
    return downsample(grid_sample(img, _affine_grid(to_unit @ to_rows @ inverse, columns, rows)))


def warp_features(feat: Tensor, inverse: np.ndarray, img_size: tuple[int, int]) -> Tensor:
    """Transforms feature maps as `warp_image` does the images which they belong to.

    The matrix of the image is applied in normalised coordinates, so that both move alike to a fraction of a
    pixel: an integer translation, rounded in image pixels, may be a fraction of a feature pixel. Beyond its
    edges the map is mirrored where the image is, and zero where the image is.

    Interpolation is bilinear at the map's own resolution. The image's doubled resolution and filters would
    not place the features better, and cost many times as much (docs/augmentation.md).

    Args:
        feat:     [N, C, h, w] float32 or float64.
        inverse:  [N, 3, 3] float64, of `inverse_matrices`.
        img_size: (H, W) of the images.

    Returns:
        [N, C, h, w]. Flips and 90-degree rotations are exact at power-of-two sizes. Differentiable any number
        of times.
    """
    height, width = img_size
    size = np.array([width / 2, height / 2, 1])
    inverse = inverse * size / size[:, None]  # in units of half the image
    columns, rows = (_unit_pixels(length, feat.dtype, feat.device) for length in feat.shape[:1:-1])
    grid = _affine_grid(inverse, columns, rows)

    # The mirrors are at the centres of the image's edge pixels, which lie inside the map's edge pixels.
    mirror_x = 1 - 1 / max(width, feat.shape[3])
    mirror_y = 1 - 1 / max(height, feat.shape[2])
    first, last = _mirrors(mirror_x, mirror_y, feat.dtype, feat.device)
    inside = grid.clamp(first, last)
    mirrored = grid.lerp(inside, 2)  # as far inside of the mirror as it was beyond
    out = grid_sample(feat, mirrored, padding_mode="border")

    (min_x, max_x), (min_y, max_y) = _reach(inverse, 1.0, 1.0)
    if max(-min_x, max_x) > 3 * mirror_x or max(-min_y, max_y) > 3 * mirror_y:
        out = out * (grid.abs() <= 3 * last).all(dim=3)[:, None]
    return out


def _rotation(config: AugmentConfig, draws: Draws, name: str, probability: float) -> np.ndarray:
    """[n, 3, 3]: one of the two rotations by any angle."""
    angle = (draws.value(name) * 2 - 1) * (math.pi * config.rotate_max)
    angle = np.where(draws.accepted(name, probability), angle, 0.0)
    return _rotate(np.cos(angle), np.sin(angle))


def _translate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _affine([[1.0, 0.0, x], [0.0, 1.0, y]])


def _scale(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    return _affine([[x, 0.0, 0.0], [0.0, y, 0.0]])


def _rotate(cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    return _affine([[cos, -sin, 0.0], [sin, cos, 0.0]])


def _affine(rows: list[list[np.ndarray | float]]) -> np.ndarray:
    """[n, 3, 3] of its first two rows, whose numbers are [n] or the same for all."""
    n = max(np.size(number) for row in rows for number in row)
    matrix = np.zeros([n, 3, 3])
    matrix[:, 2, 2] = 1
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            matrix[:, i, j] = number
    return matrix


def _reach(inverse: np.ndarray, half_width: float, half_height: float) -> list[list[float]]:
    """[[min x, max x], [min y, max y]] over the batch of where a centred rectangle's corners come from."""
    corners = np.array([[x, y, 1] for x in (-half_width, half_width) for y in (-half_height, half_height)])
    source = inverse[:, :2] @ corners.T
    return np.stack([source.min(axis=(0, 2)), source.max(axis=(0, 2))], axis=1).tolist()


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Rows of the upsampled image between two pixels, counted from the centre, with 6 on either side."""
    last = 2 * (3 * size - 2)
    start = math.floor(2 * low) + 3 * (size - 1) - 6
    stop = math.ceil(2 * high) + 3 * (size - 1) + 6
    start = min(max(start, 0), last - 2)  # at least two rows, even if the image has left the view
    return start, min(max(stop, start + 2), last)


@lru_cache(maxsize=16)
def _doubled_pixels(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[2 * (size + 2 * _BORDER), 1]: pixels of an axis at twice its resolution, counted from its centre."""
    with torch.inference_mode(False):  # a cached inference tensor could not take part in autograd later
        pixels = torch.arange(2 * (size + 2 * _BORDER), dtype=dtype, device=device)[:, None]
        return pixels / 2 - (_BORDER + (size - 1) / 2)


@lru_cache(maxsize=16)
def _unit_pixels(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[size, 1]: pixels of an axis, in units of half of it from its centre."""
    with torch.inference_mode(False):
        return (torch.arange(size, dtype=dtype, device=device)[:, None] * 2 + 1) / size - 1


@lru_cache(maxsize=16)
def _mirrors(x: float, y: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """[2] each: (-x, -y) and (x, y)."""
    with torch.inference_mode(False):
        return tuple(torch.tensor([[-x, -y], [x, y]], dtype=dtype, device=device))


def _affine_grid(matrix: np.ndarray, columns: Tensor, rows: Tensor) -> Tensor:
    """[N, h, w, 2] of the type of the points (columns [w, 1], rows [h, 1]): where matrix [N, 3, 3] takes them."""
    x, y, shift = as_img(matrix[:, None, None, :2], columns).unbind(dim=4)  # [N, 1, 1, 2] each
    # Sums of products, not a matrix product, which reduced-precision settings of the GPU would round.
    return torch.addcmul(torch.addcmul(shift, y, rows[:, None]), x, columns)
