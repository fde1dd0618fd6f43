# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The detector of metrics that compare what a segmenter finds in images with the label maps beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.segmentation import ClassPixels
from ggdr.metrics.segmenter import OPTION, Segmenter, load_segmenter
from ggdr.torch_utils.downloads import WeightsError

NAME = "segmenter"
IMG_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class SegmentationDetector(Detector):
    """Features [N, 3 C] of images: how many pixels of each class are found, there are, and are called so.

    An image has three channels, and its label map is the last one.
    """

    segmenter: Segmenter = field(repr=False)


def load_segmenter_detector(files: DetectorFiles) -> SegmentationDetector:
    """The detector of the segmenter that --segmenter names."""
    text = files.given.get("segmenter")
    if text is None:
        raise WeightsError(
            f"metrics miou, pixel_accuracy and class_accuracy need {OPTION} FILE, as `ggdr segmenter train` writes it, "
            "or module:function"
        )
    segmenter = load_segmenter(text, files.device)

    def extract(images_u8: Tensor) -> Mapping[str, Tensor]:
        logits = segmenter.of_files(images_u8[:, : segmenter.channels or IMG_CHANNELS])
        pixels = ClassPixels.of_images(images_u8[:, -1], logits.argmax(1), logits.shape[1])
        return {"features": torch.cat([pixels.right, pixels.labelled, pixels.called], dim=1).float()}

    return SegmentationDetector(NAME, segmenter.digest, "not resized", extract, all_channels=True, segmenter=segmenter)


def pixels_of(features: Tensor) -> ClassPixels:
    """What the features [N, 3 C] of images add up to: [C] float64 each."""
    return ClassPixels(*features.double().sum(0).chunk(3))
