# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Holes in images, of random places and shapes. Imports no torch."""

from __future__ import annotations

import numpy as np

HOLES = ("rectangle", "strokes", "mixed")
SIDES = (0.25, 0.5)  # shortest and longest sides of a rectangle, as parts of the image's
NUM_STROKES, NUM_SEGMENTS = 3, 5
LENGTHS = (0.1, 0.35)  # of a segment of a stroke, as parts of the image's shorter side
RADII = (0.02, 0.05)  # half the width of a stroke


def draw_hole(height: int, width: int, kind: str, rng: np.random.RandomState) -> np.ndarray:
    """Where an image has no pixels.

    Args:
        kind: "rectangle": one, with sides of a quarter to a half of the image's; "strokes": as of a brush, with round
              ends; "mixed": one or the other.

    Returns:
        bool [height, width], True in the hole.
    """
    if kind == "mixed":
        kind = HOLES[int(rng.randint(2))]
    return _rectangle(height, width, rng) if kind == "rectangle" else _strokes(height, width, rng)


def _rectangle(height: int, width: int, rng: np.random.RandomState) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    rows, columns = (_stretch(size, rng) for size in (height, width))
    hole[rows, columns] = True
    return hole


def _stretch(size: int, rng: np.random.RandomState) -> slice:
    """The pixels of a side of an image that the hole takes."""
    length = max(round(size * rng.uniform(*SIDES)), 1)
    start = int(rng.randint(size - length + 1))
    return slice(start, start + length)


def _strokes(height: int, width: int, rng: np.random.RandomState) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    side = min(height, width)
    for _ in range(NUM_STROKES):
        at = rng.uniform(0, 1, 2) * (height, width)
        angle, radius = rng.uniform(0, 2 * np.pi), max(side * rng.uniform(*RADII), 0.6)
        for _ in range(NUM_SEGMENTS):
            angle += rng.uniform(-1, 1)
            length = side * rng.uniform(*LENGTHS)
            if not _is_inside(_moved(at, angle, length), hole):
                angle += np.pi  # turns round, so that it does not follow the border
            end = np.clip(_moved(at, angle, length), 0, hole.shape)
            draw_segment(hole, at, end, radius)
            at = end
    return hole


def _moved(at: np.ndarray, angle: float, length: float) -> np.ndarray:
    return at + length * np.array([np.sin(angle), np.cos(angle)])


def _is_inside(at: np.ndarray, hole: np.ndarray) -> bool:
    return bool((at >= 0).all() and (at <= hole.shape).all())


def draw_segment(hole: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    """Adds the pixels whose centres are at most `radius` from the line between two points (y, x)."""
    low = np.maximum(np.floor(np.minimum(start, end) - radius), 0).astype(int)
    high = np.ceil(np.maximum(start, end) + radius).astype(int) + 1
    part = hole[low[0] : high[0], low[1] : high[1]]
    ys, xs = (np.arange(n) + first + 0.5 for n, first in zip(part.shape, low, strict=True))
    (dy, dx), length = end - start, max(float(np.square(end - start).sum()), 1e-9)
    along = np.clip(((ys[:, None] - start[0]) * dy + (xs - start[1]) * dx) / length, 0, 1)
    distance = np.hypot(ys[:, None] - start[0] - along * dy, xs - start[1] - along * dx)
    part |= distance <= radius
