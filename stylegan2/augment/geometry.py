# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Geometric transforms: one inverse matrix per image, and its application to images and to feature maps.

The matrices take output coordinates to input coordinates, in image pixels, x to the right and y down, with
the origin at the image's centre. They are built in float64 on the CPU, where the draws are: how far an image
must be continued beyond its edges is then known without waiting for a GPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ggdr.stylegan2.augment.config import AugmentConfig
from ggdr.stylegan2.augment.draws import Draws
from ggdr.stylegan2.augment.filters import downsampling, upsampling
from ggdr.torch_utils.ops.grid_sample import grid_sample

_BORDER = 3  # pixels sampled beyond each edge of the output, for the downsampling filter


def inverse_matrices(config: AugmentConfig, draws: Draws, p: float, img_shape: tuple[int, int, int]) -> Tensor | None:
    """The product of all geometric transforms which the images of a batch get.

    Args:
        config:    strengths and magnitudes.
        draws:     of n images.
        p:         probability of a transform of strength 1.
        img_shape: (C, H, W) of the images; integer translations are whole pixels of it.

    Returns:
        [n, 3, 3] float64 on the CPU, or None if it is the identity for every image.
    """
    value, accepted = draws.values, draws.accepted
    height, width = img_shape[1:]
    identity = torch.eye(3, dtype=torch.float64).expand(len(draws), 3, 3)
    matrix = identity

    # Pixel blitting.
    if config.xflip > 0:
        flip = torch.where(accepted("xflip", config.xflip * p), (value["xflip"] * 2).floor(), 0.0)
        matrix = matrix @ _scale(1 - 2 * flip, torch.ones_like(flip))
    if config.rotate90 > 0:
        turns = torch.where(accepted("rotate90", config.rotate90 * p), (value["rotate90"] * 4).floor(), 0.0)
        sin = torch.tensor([0.0, 1.0, 0.0, -1.0], dtype=torch.float64)  # exact, as sin(pi) is not
        matrix = matrix @ _rotate(sin[(turns.long() + 1) % 4], sin[turns.long()])
    if config.xint > 0:
        hit = accepted("xint", config.xint * p)
        x, y = ((value[name] * 2 - 1) * config.xint_max for name in ("xint_x", "xint_y"))
        x, y = torch.where(hit, (x * width).round(), 0.0), torch.where(hit, (y * height).round(), 0.0)
        matrix = matrix @ _translate(-x, -y)

    # General geometry. The two rotations share the probability of at least one: 1 - (1 - q)^2 = strength * p.
    rotate_probability = 1 - math.sqrt(1 - min(config.rotate * p, 1.0))
    if config.scale > 0:
        log2 = torch.where(accepted("scale", config.scale * p), value["scale"] * config.scale_std, 0.0)
        matrix = matrix @ _scale(torch.exp2(-log2), torch.exp2(-log2))
    if config.rotate > 0:
        matrix = matrix @ _rotation(config, draws, "rotate_pre", rotate_probability)
    if config.aniso > 0:
        log2 = torch.where(accepted("aniso", config.aniso * p), value["aniso"] * config.aniso_std, 0.0)
        matrix = matrix @ _scale(torch.exp2(-log2), torch.exp2(log2))
    if config.rotate > 0:
        matrix = matrix @ _rotation(config, draws, "rotate_post", rotate_probability)
    if config.xfrac > 0:
        hit = accepted("xfrac", config.xfrac * p)
        x, y = (torch.where(hit, value[name] * config.xfrac_std, 0.0) for name in ("xfrac_x", "xfrac_y"))
        matrix = matrix @ _translate(-x * width, -y * height)

    return None if torch.equal(matrix, identity) else matrix


def warp_image(img: Tensor, inverse: Tensor) -> Tensor:
    """Transforms images between orthogonal low-pass filters at twice their resolution.

    What lies beyond an edge is the image mirrored at the centre of its edge pixels, up to size - 1 pixels
    out; zeros beyond that. Every image is continued as far as it needs, so that it does not depend on the
    rest of the batch.

    Args:
        img:     [N, C, H, W] float32 or float64.
        inverse: [N, 3, 3] float64 on the CPU, of `inverse_matrices`.

    Returns:
        [N, C, H, W]. Differentiable any number of times.
    """
    height, width = img.shape[2:]
    up_y, up_x = upsampling(height, img.dtype, img.device), upsampling(width, img.dtype, img.device)

    # The part of the upsampled image that is sampled. 6 of its pixels hold the filters and the interpolation.
    (min_x, max_x), (min_y, max_y) = _reach(inverse, width / 2 + _BORDER, height / 2 + _BORDER)
    x0, x1 = _span(min_x, max_x, width)
    y0, y1 = _span(min_y, max_y, height)
    img = up_x.along_width(up_y.along_height(img, y0, y1), x0, x1)

    # Sampling. Input pixel i, counted from the centre, is row 2i + 3 (size - 1) of the upsampled image.
    to_rows = _matrix([[2, 0, 3 * (width - 1) - x0], [0, 2, 3 * (height - 1) - y0], [0, 0, 1]])
    to_unit = _matrix([[2 / (x1 - x0), 0, 1 / (x1 - x0) - 1], [0, 2 / (y1 - y0), 1 / (y1 - y0) - 1], [0, 0, 1]])
    columns = torch.arange(2 * (width + 2 * _BORDER), dtype=img.dtype) / 2 - _BORDER - (width - 1) / 2
    rows = torch.arange(2 * (height + 2 * _BORDER), dtype=img.dtype) / 2 - _BORDER - (height - 1) / 2
    img = grid_sample(img, _affine_grid(to_unit @ to_rows @ inverse, columns, rows, img))

    down_y, down_x = downsampling(height, img.dtype, img.device), downsampling(width, img.dtype, img.device)
    return down_y.along_height(down_x.along_width(img))


def warp_features(feat: Tensor, inverse: Tensor, img_size: tuple[int, int]) -> Tensor:
    """Transforms feature maps as `warp_image` does the images which they belong to.

    The matrix of the image is applied in normalised coordinates, so that both move alike to a fraction of a
    pixel: an integer translation, rounded in image pixels, may be a fraction of a feature pixel. Beyond its
    edges the map is mirrored where the image is, and zero where the image is.

    Interpolation is bilinear at the map's own resolution. The image's doubled resolution and filters would
    not place the features better, and cost many times as much (docs/augmentation.md).

    Args:
        feat:     [N, C, h, w] float32 or float64.
        inverse:  [N, 3, 3] float64 on the CPU, of `inverse_matrices`.
        img_size: (H, W) of the images.

    Returns:
        [N, C, h, w]. Flips and 90-degree rotations are exact at power-of-two sizes. Differentiable any number
        of times.
    """
    height, width = img_size
    to_unit = _matrix([[2 / width, 0, 0], [0, 2 / height, 0], [0, 0, 1]])
    from_unit = _matrix([[width / 2, 0, 0], [0, height / 2, 0], [0, 0, 1]])
    inverse = to_unit @ inverse @ from_unit
    columns, rows = (((torch.arange(size, dtype=feat.dtype) * 2 + 1) / size - 1) for size in feat.shape[:1:-1])
    grid = _affine_grid(inverse, columns, rows, feat)

    # The mirrors are at the centres of the image's edge pixels, which lie inside the map's edge pixels.
    mirror_x = 1 - 1 / max(width, feat.shape[3])
    mirror_y = 1 - 1 / max(height, feat.shape[2])
    mirrors = torch.tensor([mirror_x, mirror_y], dtype=feat.dtype).to(feat.device, non_blocking=True)
    mirrored = torch.where(grid.abs() <= mirrors, grid, grid.sign() * 2 * mirrors - grid)
    out = grid_sample(feat, mirrored, padding_mode="border")

    (min_x, max_x), (min_y, max_y) = _reach(inverse, 1.0, 1.0)
    if max(-min_x, max_x) > 3 * mirror_x or max(-min_y, max_y) > 3 * mirror_y:
        out = out * (grid.abs() <= 3 * mirrors).all(dim=3)[:, None]
    return out


def _rotation(config: AugmentConfig, draws: Draws, name: str, probability: float) -> Tensor:
    """[n, 3, 3]: one of the two rotations by any angle."""
    angle = (draws.values[name] * 2 - 1) * math.pi * config.rotate_max
    angle = torch.where(draws.accepted(name, probability), angle, 0.0)
    return _rotate(angle.cos(), angle.sin())


def _translate(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _rows([one, zero, x], [zero, one, y], [zero, zero, one])


def _scale(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _rows([x, zero, zero], [zero, y, zero], [zero, zero, one])


def _rotate(cos: Tensor, sin: Tensor) -> Tensor:
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    return _rows([cos, -sin, zero], [sin, cos, zero], [zero, zero, one])


def _rows(*rows: list[Tensor]) -> Tensor:
    """[n, 3, 3] of nine [n]."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _reach(inverse: Tensor, half_width: float, half_height: float) -> list[list[float]]:
    """[[min x, max x], [min y, max y]] over the batch of where a centred rectangle's corners come from."""
    corners = _matrix([[x, y, 1] for x in (-half_width, half_width) for y in (-half_height, half_height)])
    source = inverse[:, :2] @ corners.T
    return torch.stack([source.amin(dim=(0, 2)), source.amax(dim=(0, 2))], dim=1).tolist()


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Rows of the upsampled image between two pixels, counted from the centre, with 6 on either side."""
    last = 2 * (3 * size - 2)
    start = math.floor(2 * low) + 3 * (size - 1) - 6
    stop = math.ceil(2 * high) + 3 * (size - 1) + 6
    start = min(max(start, 0), last - 2)  # at least two rows, even if the image has left the view
    return start, min(max(stop, start + 2), last)


def _affine_grid(matrix: Tensor, columns: Tensor, rows: Tensor, like: Tensor) -> Tensor:
    """[N, h, w, 2] of the type of `like`: where matrix [N, 3, 3] takes the points (columns [w], rows [h])."""
    matrix = matrix[:, :2].to(like.dtype).to(like.device, non_blocking=True)[:, None, None]  # [N, 1, 1, 2, 3]
    columns = columns.to(like.device, non_blocking=True)[:, None]
    rows = rows.to(like.device, non_blocking=True)[:, None, None]
    # Sums of products, not a matrix product, which reduced-precision settings of the GPU would round.
    return matrix[..., 0] * columns + matrix[..., 1] * rows + matrix[..., 2]
