# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a detector is: images to features, or two images to a distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ggdr.torch_utils.float32 import exact_float32

Images = Tensor | list[Tensor]  # uint8 [N, 3, H, W]; or N of [3, H, W] where they differ in size


def as_they_are(images_u8: Tensor) -> Tensor:
    """Of a detector that takes images of any size."""
    return images_u8


@dataclass(frozen=True)
class Detector:
    """What the features of a metric are made with.

    Attributes:
        name:     as in the list of detectors.
        hash:     16 hex digits of its weights (of a function of the user's: of its source).
        resize:   how images come to its size; for result lines.
        extract:  what `prepare` gives, [N, ..], to {"features": [N, D] float32, perhaps "logits": [N, K]}.
        prepare:  uint8 [N, 3, H, W] to the network's input, each image by itself.
        min_size: pixels that both sides of an image must have.
        all_channels: whether it compares images that lie beside each other in channels; else it sees the first three.
    """

    name: str
    hash: str
    resize: str
    extract: Callable[[Tensor], Mapping[str, Tensor]]
    prepare: Callable[[Tensor], Tensor] = as_they_are
    min_size: int = 1
    all_channels: bool = False

    def __call__(self, images_u8: Images) -> Mapping[str, Tensor]:
        """The features of images in their order, in float32 whatever the settings of a training around it."""
        have_one_size = isinstance(images_u8, Tensor)
        if have_one_size and not self.all_channels:
            images_u8 = images_u8[:, :3]
        with torch.inference_mode(), exact_float32((images_u8 if have_one_size else images_u8[0]).device):
            if have_one_size:
                return self.extract(self.prepare(images_u8))
            prepared: dict[int, Tensor] = {}
            for members, batch in _by_shape(dict(enumerate(images_u8))):
                prepared |= zip(members, self.prepare(batch), strict=True)
            # The network sees as many at once as have one size by now.
            parts = [(members, self.extract(batch)) for members, batch in _by_shape(prepared)]
            order = torch.tensor([i for members, _ in parts for i in members]).argsort()
            return {key: torch.cat([out[key] for _, out in parts])[order] for key in parts[0][1]}

    def describe(self) -> dict[str, str]:
        """What result lines and stored statistics say of it."""
        return {"detector": self.name, "detector_hash": self.hash, "resize": self.resize}


def to_device(images_u8: Images, device: torch.device) -> Images:
    """The images on a device."""
    if isinstance(images_u8, Tensor):
        return images_u8.to(device)
    return [image.to(device) for image in images_u8]


def _by_shape(tensors: Mapping[int, Tensor]) -> list[tuple[Sequence[int], Tensor]]:
    """Tensors of one shape stacked, with their numbers; each shape once."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, tensor in tensors.items():
        groups.setdefault(tuple(tensor.shape), []).append(number)
    return [(members, torch.stack([tensors[i] for i in members])) for members in groups.values()]


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
