# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps as pictures: indexed images, and colours laid over the images that they belong to."""

from __future__ import annotations

import colorsys

import numpy as np
from torch import Tensor

try:
    from PIL import Image
except ModuleNotFoundError:
    raise ModuleNotFoundError("ggdr.label_images needs Pillow: pip install pillow", name="PIL") from None

# Told apart with every kind of colour vision as far as nine colours can be: Okabe and Ito's, with grey for black.
# The first two are for what most images consist of, something and what is around it.
_FIRST = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999", "#332288")
MOST_LABELS = 64


def palette(num: int) -> np.ndarray:
    """The colours of labels 0 to num - 1, [num, 3] uint8; the same for a label whatever `num` is.

    Raises:
        ValueError: more than MOST_LABELS, which nobody could tell apart.
    """
    if not 0 <= num <= MOST_LABELS:
        raise ValueError(f"expected 0 to {MOST_LABELS} labels, got {num}")
    colors = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in _FIRST]
    for i in range(MOST_LABELS - len(colors)):
        # Hues a golden section apart never meet; three brightnesses keep neighbours apart.
        red, green, blue = colorsys.hls_to_rgb(0.61803398875 * i % 1, (0.35, 0.6, 0.8)[i % 3], 0.65)
        colors.append([round(255 * part) for part in (red, green, blue)])
    return np.array(colors[:num], np.uint8).reshape(num, 3)


def label_colors(labels: Tensor) -> np.ndarray:
    """[..., H, W] int64 labels -> [..., H, W, 3] uint8 colours."""
    numbers = labels.cpu().numpy()
    return palette(int(numbers.max()) + 1)[numbers]


def label_image(labels: Tensor, size: tuple[int, int] | None = None) -> Image.Image:
    """An indexed image: pixel values are the labels, and the palette holds their colours.

    Args:
        labels: [H, W] int64.
        size:   (width, height) to enlarge to, nearest neighbour; None keeps that of the map.
    """
    image = Image.fromarray(labels.cpu().numpy().astype(np.uint8), mode="P")
    image.putpalette(palette(MOST_LABELS).tobytes())
    return image if size is None else image.resize(size, Image.Resampling.NEAREST)


def overlay(image: np.ndarray, labels: Tensor, *, opacity: float = 0.55) -> np.ndarray:
    """Colours of the labels over the grey version of the image, with the lines between labels.

    Args:
        image:   [H, W, 1, 3 or 4] uint8.
        labels:  [h, w] int64, enlarged to the image (nearest neighbour).
        opacity: of the colours, 0 to 1.

    Returns:
        [H, W, 3] uint8.
    """
    height, width = image.shape[:2]
    colors = np.asarray(label_image(labels, (width, height)).convert("RGB")).astype(np.float32)
    grey = image[:, :, :3].mean(axis=2, keepdims=True)
    return (colors * opacity + grey * (1 - opacity)).round().astype(np.uint8)
