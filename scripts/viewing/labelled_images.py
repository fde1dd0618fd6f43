# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Real images with label maps, against which `ggdr clusters --labels` judges clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ggdr.scripts.errors import OptionError
from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks
from ggdr.torch_utils.data.archives import spread
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_maps import IGNORED, LabelClasses
from ggdr.torch_utils.untrusted.text import printable

LABELS = "--labels"


@dataclass(frozen=True)
class LabelledImages:
    """Images, and the class of each of their pixels.

    Attributes:
        images_u8:  [N, C, H, W] uint8.
        label_maps: [N, H, W] uint8: classes from 0, or IGNORED.
        classes:    what these are.
    """

    images_u8: Tensor
    label_maps: Tensor
    classes: LabelClasses


def read_labelled(path: Path, networks: Sequence[SnapshotNetworks], most: int) -> LabelledImages:
    """At most `most` images of a dataset with label maps, evenly spread, for networks of their size.

    Raises:
        OptionError: the dataset cannot be read, has no label maps, or does not fit a network.
    """
    try:
        dataset = ImageDataset(path, use_label_maps=True, cache_mb=0)
        _check(dataset, networks)
        picks = list(spread(dataset.num_images, most))
        images_u8, label_maps = dataset.images_u8(picks), dataset.label_maps(picks)[:, 0]
    except DataError as error:
        raise OptionError(LABELS, str(error)) from error
    if len(picks) < 2:
        raise OptionError(LABELS, f"{printable(path)}: expected 2 or more images, one half to learn from; got 1")
    if (label_maps == IGNORED).all():
        raise OptionError(LABELS, f"{printable(path)}: expected pixels with a class, got {len(picks)} maps without any")
    return LabelledImages(torch.from_numpy(images_u8), torch.from_numpy(label_maps), dataset.label_classes)


def _check(dataset: ImageDataset, networks: Sequence[SnapshotNetworks]) -> None:
    """Raises OptionError for a dataset that a network does not fit."""
    classes, size = dataset.label_classes, (dataset.resolution, dataset.num_channels)
    if classes.num < 2:
        raise OptionError(LABELS, f"{printable(dataset.path)}: expected 2 or more classes, got {classes.describe()}")
    for net in networks:
        own = net.G.img_resolution, net.G.img_channels
        if own != size:
            expected, got = (f"{res}x{res} pixels and {channels} channels" for res, channels in (own, size))
            text = f"{printable(dataset.path)}: {net.path} is of images of {expected}, got images of {got}"
            raise OptionError(LABELS, text)
        if net.D is None:
            raise OptionError("--network", f"{net.path} holds no discriminator, which looks at the images of {LABELS}")
        if net.semantic is not None and net.semantic.classes != classes.num:
            text = f"{net.path} predicts label maps of {net.semantic.classes} classes, got {classes.describe()}"
            raise OptionError(LABELS, f"{printable(dataset.path)}: {text}")
