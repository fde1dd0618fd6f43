# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps as networks take them, and as people look at them."""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.torch_utils.data.label_maps import LabelClasses, class_colors
from ggdr.torch_utils.pictures.images import from_u8


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


def color_label_maps(numbers_u8: Tensor, classes: LabelClasses) -> Tensor:
    """Label maps as in `one_hot` -> [N, 3, H, W] uint8 on the CPU."""
    at = numbers_u8[:, 0].cpu().long().clamp(max=classes.num)
    return torch.from_numpy(class_colors(classes))[at].permute(0, 3, 1, 2)
