# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Drawings of the edges in an image. Imports no torch."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

STRONGEST = 0.15  # of all pixels have a gradient with which a line may begin, before lines are thinned
FAINTEST = 0.015  # smallest such gradient, of white a pixel: noise and the blocks of JPEGs stay below it
GO_ON = 0.4  # of the gradient where lines begin, down to which they go on


def edge_drawing(grey_u8: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """Black lines of a pixel's width on white, where the brightness changes most.

    The gradient of the smoothed image, thinned to its ridges; lines begin where it is among the image's strongest, and
    go on where it is weaker.

    Args:
        grey_u8: uint8 [H, W].
        sigma:   of the Gaussian that smooths it, in pixels; larger ones leave small things out.

    Returns:
        uint8 [H, W], 0 or 255.

    Source: Canny 1986, "A Computational Approach to Edge Detection", IEEE PAMI 8(6); thresholds of each image's own.
    """
    smooth = ndimage.gaussian_filter(grey_u8.astype(np.float32) / 255, sigma, mode="nearest")
    down, right = (ndimage.sobel(smooth, axis, mode="nearest") / 8 for axis in (0, 1))
    strength = np.hypot(down, right)
    begin = max(float(np.quantile(strength, 1 - STRONGEST)), FAINTEST)
    lines, num = ndimage.label(_ridges(strength, down, right) & (strength > GO_ON * begin), np.ones((3, 3)))
    strongest = ndimage.maximum(strength, lines, np.arange(1, num + 1)) if num else []
    is_kept = np.concatenate([[False], np.asarray(strongest) > begin])
    return np.where(is_kept[lines], 0, 255).astype(np.uint8)


def _ridges(strength: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool [H, W]: where the gradient is not smaller than on both sides of it, along its own direction."""
    height, width = strength.shape
    padded = np.pad(strength, 1)
    # Eighths of a turn; opposite directions are one.
    sector = np.rint(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
    found = np.zeros(strength.shape, bool)
    for k, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        ahead = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        # Of two equal neighbours one is the ridge.
        found |= (sector == k) & (strength >= ahead) & (strength > behind)
    return found
