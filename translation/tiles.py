# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Large images in tiles that overlap, blended without seams, in the memory of one row of tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.pictures.images import to_u8


@dataclass(frozen=True)
class Span:
    """A tile along one side of an image: pixels `start` to `end` - 1.

    Attributes:
        weights: [end - start] float32 in [0, 1], of its pixels in the blend.
    """

    start: int
    end: int
    weights: Tensor


def split_side(size: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """The tiles along a side, about evenly spread.

    In the middle half of an overlap one tile fades into the next, by a raised cosine; the outer quarters of it, nearest
    to the borders of the tiles, have weight 0. So a network that sees no further than a quarter of the overlap gives
    the same as it does for the whole image.

    Args:
        size:     of the image, in pixels.
        tile:     of the tiles, in pixels; the last one may be shorter by less than `multiple`.
        overlap:  of two tiles at least, in pixels, up to half of a tile.
        multiple: what a network halves to a whole number. Tiles of twice that or more start at multiples of it, so that
                  the network's grids lie as in the whole image.

    Returns:
        Tiles in order; the weights of all at a pixel sum to 1. One for all if the image is no larger than a tile.

    Raises:
        ValueError: the overlap is more than half a tile, or a size is not positive.
    """
    if size < 1 or tile < 1 or multiple < 1 or not 0 <= 2 * overlap <= tile:
        raise ValueError(
            f"expected size, tile and multiple from 1 up and overlap from 0 to half of the tile; got {size}, {tile}, "
            f"{multiple} and {overlap}"
        )
    unit = multiple if tile >= 2 * multiple else 1
    step = max((tile - overlap) // unit * unit, unit)
    last = max(-(-(size - tile) // unit) * unit, 0)
    num = -(-last // step) + 1
    # Rounded down to the unit, so that no two are further apart than `step`.
    starts = [i * last // max(num - 1, 1) // unit * unit for i in range(num)]
    ends = [min(start + tile, size) for start in starts]
    raw = torch.zeros([num, size], dtype=torch.float64)
    at = torch.arange(size) + 0.5
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        raw[i, start:end] = 1
        if i > 0:
            raw[i] *= _fade(at - start, overlap)
        if i < num - 1:
            raw[i] *= _fade(end - at, overlap)
    raw /= raw.sum(dim=0)
    return [Span(a, b, raw[i, a:b].float()) for i, (a, b) in enumerate(zip(starts, ends, strict=True))]


def _fade(distance: Tensor, overlap: int) -> Tensor:
    """0 up to a quarter of the overlap from a border, 1 from three quarters on."""
    if overlap == 0:
        return torch.ones_like(distance)
    part = ((distance / overlap - 0.25) * 2).clamp(0, 1)
    return (1 - torch.cos(math.pi * part)) / 2


def translate_in_tiles(
    run: Callable[[Tensor], Tensor],
    image: np.ndarray,
    out_channels: int,
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
    batch_size: int = 1,
    on_tiles: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Translates an image tile by tile.

    Beside image and result it takes float32 memory for one row of tiles, and what `run` takes.

    Args:
        run:        [N, C, h, w] uint8 -> [N, out_channels, h, w] float32 in [-1, 1] on the CPU, for up to `batch_size`
                    tiles of one size.
        image:      [H, W, C] uint8.
        tile, overlap, multiple: see `split_side`.
        on_tiles:   called with the tiles that are done, and their number.

    Returns:
        [H, W, out_channels] uint8.
    """
    height, width = image.shape[:2]
    rows, columns = (split_side(size, tile, overlap, multiple) for size in (height, width))
    out = np.empty([height, width, out_channels], np.uint8)
    band = torch.zeros([out_channels, rows[0].end, width])  # of rows of pixels that are not all done
    alike = (list(some) for _, some in groupby(columns, key=lambda column: column.end - column.start))
    batches = [some[i : i + batch_size] for some in alike for i in range(0, len(some), batch_size)]
    done = 0
    for i, row in enumerate(rows):
        for batch in batches:
            tiles = np.stack([image[row.start : row.end, column.start : column.end] for column in batch])
            parts = run(torch.from_numpy(tiles).permute(0, 3, 1, 2))
            for column, part in zip(batch, parts, strict=True):
                weights = row.weights[:, None] * column.weights
                band[:, : row.end - row.start, column.start : column.end] += part * weights
            done += len(batch)
            on_tiles(done, len(rows) * len(columns))
        # No later tile reaches what lies above the next row of them.
        next_start = rows[i + 1].start if i + 1 < len(rows) else height
        num = next_start - row.start
        out[row.start : next_start] = to_u8(band[:, :num]).permute(1, 2, 0).numpy()
        if i + 1 < len(rows):
            kept = band[:, num : row.end - row.start].clone()
            band.zero_()
            band[:, : kept.shape[1]] = kept
    return out
