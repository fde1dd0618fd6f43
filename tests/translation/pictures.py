# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the pictures of a run of translation hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ggdr.torch_utils.pictures.sheets import PAD

GAP = 4  # pixels between samples


def samples_of(path: Path, *, columns: int, rows: int, images: int, size: int) -> np.ndarray:
    """Of each sample its images from left to right: [columns * rows, images, size, size, 3] uint8."""
    picture = np.asarray(Image.open(path))
    scale = (picture.shape[1] - 2 * PAD - (columns - 1) * GAP) // (columns * images * size)
    height, width = scale * size, scale * size * images
    samples = []
    for row in range(rows):
        for column in range(columns):
            y, x = PAD + row * (height + GAP), PAD + column * (width + GAP)
            sample = picture[y : y + height : scale, x : x + width : scale]
            samples.append(sample.reshape(size, images, size, 3).transpose(1, 0, 2, 3))
    return np.stack(samples)
