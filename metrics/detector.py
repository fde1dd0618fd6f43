# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a detector is: images to features, or two images to a distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ggdr.metrics.float32 import exact_float32


@dataclass(frozen=True)
class Detector:
    """What the features of a metric are made with.

    Attributes:
        name:    as in the list of detectors.
        hash:    16 hex digits of its weights (of a function of the user's: of its source).
        resize:  how images come to its size; for result lines.
        extract: uint8 [N, 3, H, W] to {"features": [N, D] float32, perhaps "logits": [N, K]}.
    """

    name: str
    hash: str
    resize: str
    extract: Callable[[Tensor], Mapping[str, Tensor]]

    def __call__(self, images_u8: Tensor) -> Mapping[str, Tensor]:
        """The features of images uint8 [N, 3, H, W], in float32 whatever the settings of a training around it."""
        with torch.inference_mode(), exact_float32(images_u8.device):
            return self.extract(images_u8)

    def describe(self) -> dict[str, str]:
        """What result lines and stored statistics say of it."""
        return {"detector": self.name, "detector_hash": self.hash, "resize": self.resize}


@dataclass(frozen=True)
class PairDistance:
    """What path lengths are measured with.

    Attributes:
        name:    for result lines.
        hash:    16 hex digits of its weights.
        measure: two batches [N, 3, H, W] float32 in [-1, 1] to their distances, pair by pair, [N].
    """

    name: str
    hash: str
    measure: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, img0: Tensor, img1: Tensor) -> Tensor:
        """The distances [N], in float32 whatever the settings of a training around it."""
        with torch.inference_mode(), exact_float32(img0.device):
            return self.measure(img0, img1)

    def describe(self) -> dict[str, str]:
        """What result lines say of it."""
        return {"detector": self.name, "detector_hash": self.hash}
