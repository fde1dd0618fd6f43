# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How `ggdr segmenter test` judges a segmenter by a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ggdr.metrics.segmenter import Segmenter, load_segmenter
from ggdr.metrics.segmenter_training import judge
from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.progress import Progress
from ggdr.scripts.options.segmenter import SEGMENTER
from ggdr.scripts.segmenting.data import batches_in_order, split_numbers
from ggdr.scripts.segmenting.results import values_of
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.untrusted.text import printable


@dataclass(frozen=True)
class Examined:
    """What came of it.

    Attributes:
        which:  images, for people.
        values: see `values_of`.
    """

    num_images: int
    which: str
    digest: str
    classes: LabelClasses
    values: dict[str, Any]


def examine(data: Path, name: Path | str, batch: int, device: torch.device, progress: Progress) -> Examined:
    """Judges a segmenter by the images that it was not trained on.

    Raises:
        DataError: the dataset has no label maps, or cannot be read.
        WeightsError, OptionError: the segmenter cannot be loaded, or is for other classes or images.
    """
    dataset, segmenter = ImageDataset(data, use_label_maps=True), load_segmenter(name, device)
    try:
        segmenter.check(torch.from_numpy(dataset.images_u8([0])).to(device), dataset.label_classes)
    except ValueError as error:
        raise OptionError(SEGMENTER, f"{error} (of {printable(dataset.path, 1000)})") from error
    numbers, which = _numbers(dataset, segmenter)
    batches = batches_in_order(dataset, numbers, batch, device, partial(progress, "images"))
    counts = judge(segmenter, batches, dataset.num_label_classes)
    return Examined(len(numbers), which, segmenter.digest, dataset.label_classes, values_of(counts))


def _numbers(dataset: ImageDataset, segmenter: Segmenter) -> tuple[np.ndarray, str]:
    """Numbers of the images that it has not been trained on, and what these are, for people."""
    if segmenter.about.get("fingerprint") != dataset.fingerprint():
        return np.arange(dataset.num_raw), "images"
    return split_numbers(dataset)[1], "images that training held out"
