# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps as networks take them, and as people look at them."""

from __future__ import annotations

from colorsys import hls_to_rgb

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.pictures.images import from_u8
from ggdr.translation.data.labels import LabelClasses


def one_hot(numbers_u8: Tensor, num_classes: int) -> Tensor:
    """A plane for each class.

    Pixels of no class are zero in all planes: an ignored pixel tells a network nothing, and has no part in losses that
    sum over classes.

    Args:
        numbers_u8:  uint8 [N, 1, H, W]: classes from 0, or `labels.IGNORED`.
        num_classes: C.

    Returns:
        [N, C, H, W] float32, 0 or 1, on the same device.
    """
    classes = torch.arange(num_classes, dtype=torch.uint8, device=numbers_u8.device)
    return (numbers_u8 == classes.view(1, -1, 1, 1)).float()


def to_input(images_u8: Tensor, classes: LabelClasses | None) -> Tensor:
    """What a network is given of images, uint8 [N, C, H, W], or, with classes, of label maps as in `one_hot`."""
    return from_u8(images_u8) if classes is None else one_hot(images_u8, classes.num)


def class_colors(classes: LabelClasses) -> np.ndarray:
    """Colours of classes and, in the last row, of what is ignored (black): uint8 [num + 1, 3]."""
    if classes.colors:
        colors = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in classes.colors])
    else:
        # Hues a golden section apart never meet; three brightnesses keep neighbours apart.
        parts = [hls_to_rgb(0.6 + 0.61803398875 * i, (0.45, 0.65, 0.8)[i % 3], 0.8) for i in range(classes.num)]
        colors = np.round(255 * np.array(parts))
    return np.concatenate([colors, [[0, 0, 0]]]).astype(np.uint8)


def color_label_maps(numbers_u8: Tensor, classes: LabelClasses) -> Tensor:
    """Label maps as in `one_hot` -> [N, 3, H, W] uint8 on the CPU."""
    at = numbers_u8[:, 0].cpu().long().clamp(max=classes.num)
    return torch.from_numpy(class_colors(classes))[at].permute(0, 3, 1, 2)
