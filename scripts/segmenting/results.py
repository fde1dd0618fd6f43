# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How well a segmenter does, as numbers and as lines for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ggdr.metrics.segmentation import MEASURES, ClassPixels
from ggdr.torch_utils.data.label_maps import LabelClasses


def values_of(counts: Tensor) -> dict[str, Any]:
    """miou, pixel_accuracy, class_accuracy, and the IoU of each class, of a confusion matrix [C, C] int64.

    None stands for what has no value: the IoU of a class that neither label maps nor the segmenter's answers hold.
    """
    pixels = ClassPixels.of(counts)
    values = {name: _or_none(measure(pixels)) for name, measure in MEASURES.items()}
    return {**values, "iou_of_classes": [_or_none(value) for value in pixels.iou().tolist()]}


def describe_values(values: Mapping[str, Any], classes: LabelClasses) -> str:
    """A line for each number of `values_of`, and for each class."""
    lines = [(name, values[name]) for name in MEASURES]
    lines += [
        (f"IoU of {name}", value) for name, value in zip(classes.shown_names, values["iou_of_classes"], strict=True)
    ]
    return "\n".join(f"{name:<28} {'none there' if value is None else f'{value:.4f}'}" for name, value in lines)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
