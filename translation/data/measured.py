# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The images that metrics of translation are measured on: those held out, always cropped alike. Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ggdr.torch_utils.data.container import Container, opened
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages
from ggdr.translation.data.folders import held_out_split


class HeldOut(NamedTuple):
    """The images that are held out from training, and their split."""

    dataset: PairedImages | UnpairedImages
    split: str


def open_held_out(
    path: str | os.PathLike | Container, kind: type[PairedImages] | type[UnpairedImages], **settings: Any
) -> HeldOut:
    """The images that `held_out_split` says.

    Args:
        settings: of the dataset.

    Raises:
        DataError, ValueError: as the dataset does.
    """
    container = opened(path)
    split = held_out_split(container)
    return HeldOut(kind(container, split=split, **settings), split)


@dataclass(frozen=True)
class MeasuredPairs:
    """Pairs as metrics take them: resized as for training but not enlarged, cropped in the middle, not mirrored.

    Attributes:
        crop: that of training.
    """

    dataset: PairedImages
    crop: CropConfig

    @property
    def num(self) -> int:
        return self.dataset.num_images

    def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """{"A": uint8 [n, C, size, size], "B": the same}; raises DataError."""
        return self.dataset.decoder(_whole(self.crop))(self.dataset.middles(indices))

    def side(self, name: str) -> MeasuredImages:
        """The images of A, or of B, alone."""
        return MeasuredImages(self, name)

    @cached_property
    def fingerprint(self) -> str:
        """Hash (hex) of the images and the crop."""
        return _fingerprint(self.dataset, self.crop)


@dataclass(frozen=True)
class MeasuredDomain:
    """The images of one domain as metrics take them; see MeasuredPairs.

    Attributes:
        domain: its number.
    """

    dataset: UnpairedImages
    crop: CropConfig
    domain: int

    @property
    def num(self) -> int:
        return len(self.dataset.domains[self.domain].files)

    def read(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """{"A": uint8 [n, C, size, size], "B": the same once more}; raises DataError."""
        return self.dataset.decoder(_whole(self.crop))(self.dataset.middles((self.domain, self.domain), indices))

    @property
    def images(self) -> MeasuredImages:
        """Its images."""
        return MeasuredImages(self, "A")

    @cached_property
    def fingerprint(self) -> str:
        """Hash (hex) of the images and the crop."""
        return _fingerprint(self.dataset, self.crop, self.domain)


@dataclass(frozen=True)
class MeasuredImages:
    """One side of pairs, or a domain."""

    of: MeasuredPairs | MeasuredDomain
    side: str

    @property
    def num(self) -> int:
        return self.of.num

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return self.of.crop.size

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, C, size, size]; raises DataError."""
        return self.of.read(indices)[self.side]

    def fingerprint(self) -> str:
        """Hash (hex) of the images as they are read."""
        return hashlib.sha256(f"{self.of.fingerprint} {self.side}".encode()).hexdigest()


def _whole(crop: CropConfig) -> CropConfig:
    """As much of an image as a crop of this size holds, always the same."""
    return replace(crop, enlarge=1, flip=False)


def _fingerprint(dataset: PairedImages | UnpairedImages, crop: CropConfig, *more: object) -> str:
    return hashlib.sha256(f"{dataset.fingerprint()} {_whole(crop)} {more}".encode()).hexdigest()
