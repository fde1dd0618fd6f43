# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How `ggdr segmenter train` makes a segmenter of a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ggdr.metrics.segmenter import FILE_NAME, Segmenter, SegmenterConfig, SegmenterNetwork
from ggdr.metrics.segmenter_training import default_downs, flip_some, judge, new_network, train_segmenter
from ggdr.scripts.options.progress import Progress
from ggdr.scripts.segmenting.data import (
    Read,
    batches_in_order,
    open_translator,
    read_translations,
    split_numbers,
    training_batches,
)
from ggdr.scripts.segmenting.results import values_of
from ggdr.scripts.training.determinism import deterministic_arithmetic
from ggdr.scripts.translating.options import prepare_translator_ops
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.downloads import sha256_of
from ggdr.torch_utils.untrusted.text import printable


@dataclass(frozen=True)
class Lesson:
    """What there is to learn from.

    Attributes:
        numbers:  of the images that are trained on; `held_out` of those that measure it.
        read:     gives the images to train on by their numbers.
        made_by:  the file that made these of label maps, and its hash; None where they are the dataset's.
    """

    dataset: ImageDataset
    numbers: np.ndarray
    held_out: np.ndarray
    read: Read
    device: torch.device
    made_by: dict[str, str] | None

    @property
    def about(self) -> str:
        """What the data are, in a line."""
        return f"{printable(self.dataset.path, 1000)}: {self.dataset.describe_label_maps()}"

    @property
    def learned_from(self) -> str:
        """What is trained on, for people."""
        num = len(self.numbers)
        return f"{num} images" if self.made_by is None else f"what {self.made_by['path']} makes of {num} label maps"


def open_lesson(data: Path, translator: Path | None, device: torch.device) -> Lesson:
    """Opens a dataset, and the translator that makes images of its label maps in place of its own, if any.

    Raises:
        DataError: the dataset has no label maps, or cannot be read.
        OptionError: it is too small, or the translator is for others.
    """
    dataset = ImageDataset(data, use_label_maps=True)
    numbers, held_out = split_numbers(dataset)
    if translator is None:
        return Lesson(dataset, numbers, held_out, dataset.images_u8, device, None)
    read = read_translations(open_translator(translator, dataset, device), dataset)
    prepare_translator_ops(None, device)
    made_by = {"path": str(translator), "sha256": sha256_of(translator)[:16]}
    return Lesson(dataset, numbers, held_out, read, device, made_by)


def learn(lesson: Lesson, settings: Mapping[str, Any], progress: Progress) -> tuple[SegmenterNetwork, dict[str, Any]]:
    """Trains a network, and measures it on what was held out.

    Args:
        settings: "kimg", "batch", "lr", "width" and "seed".

    Returns:
        The network, and what its file says of it.
    """
    dataset, device = lesson.dataset, lesson.device
    kept = {name: settings[name] for name in ("kimg", "batch", "lr", "seed")}
    size = (dataset.num_channels, dataset.num_label_classes)
    config = SegmenterConfig(*size, settings["width"], default_downs(dataset.resolution))
    batch, seed = settings["batch"], settings["seed"]
    steps = math.ceil(settings["kimg"] * 1000 / batch)
    with deterministic_arithmetic(device):
        net = new_network(config, seed).to(device)
        batches = training_batches(dataset, lesson.numbers, batch, seed, device, lesson.read)
        train_segmenter(
            net, flip_some(batches, seed), steps=steps, lr=settings["lr"], progress=partial(progress, "steps")
        )
        segmenter = Segmenter(net, name=FILE_NAME, digest="", channels=config.channels)
        reals = batches_in_order(dataset, lesson.held_out, batch, device, partial(progress, "held-out images"))
        counts = judge(segmenter, reals, config.classes)
    return net, {
        "data": str(dataset.path),
        "fingerprint": dataset.fingerprint(),
        "resolution": dataset.resolution,
        **kept,
        "translator": lesson.made_by,
        "num_images": len(lesson.numbers),
        "num_held_out": len(lesson.held_out),
        "held_out": values_of(counts),
    }
