# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images and label maps that segmenters learn from and are judged on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.segmenter_training import is_held_out
from ggdr.scripts.errors import OptionError
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.data.dataset import ImageDataset, KeptArrays
from ggdr.torch_utils.data.label_maps import describe_difference
from ggdr.torch_utils.data.loader import batch_indices
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.label_maps import to_input
from ggdr.translation.snapshot import load_translator
from ggdr.translation.translator import Translator

FEWEST = 10  # images, of which one is held out
KEPT_MB = 2048  # of results of a translator

Read = Callable[[np.ndarray], np.ndarray]  # numbers of images [n] to images uint8 [n, C, H, W]


def split_numbers(dataset: ImageDataset) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images to train on, and of those that are held out; OptionError if there are too few."""
    numbers = np.arange(dataset.num_raw)
    if dataset.num_raw < FEWEST:
        text = f"{printable(dataset.path, 1000)}: {dataset.num_raw} images, expected {FEWEST} or more"
        raise OptionError("--data", f"{text}: every tenth is held out")
    return numbers[~is_held_out(numbers)], numbers[is_held_out(numbers)]


def training_batches(
    dataset: ImageDataset, numbers: np.ndarray, batch: int, seed: int, device: torch.device, read: Read
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches in an order that depends on seed and numbers alone.

    Args:
        read: gives the images, those of the dataset or others of the same label maps.
    """
    position = 0
    while True:
        chosen = numbers[batch_indices(position, batch, len(numbers), seed)]
        yield _batch(dataset, chosen, device, read)
        position += batch


def batches_in_order(
    dataset: ImageDataset, numbers: np.ndarray, batch: int, device: torch.device, progress: Callable[[int, int], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each image once."""
    for start in range(0, len(numbers), batch):
        chosen = numbers[start : start + batch]
        yield _batch(dataset, chosen, device, dataset.images_u8)
        progress(start + len(chosen), len(numbers))


def _batch(dataset: ImageDataset, numbers: np.ndarray, device: torch.device, read: Read) -> tuple[Tensor, Tensor]:
    images_u8, label_maps = read(numbers), dataset.label_maps(numbers)
    return torch.from_numpy(images_u8).to(device), torch.from_numpy(label_maps).to(device)


def open_translator(path: Path, dataset: ImageDataset, device: torch.device) -> Translator:
    """A translator that makes images like those of a dataset of its label maps.

    Raises:
        OptionError: it takes no label maps, or others, or makes other images; names both.
    """
    option, where = "--translator", printable(dataset.path, 1000)
    try:
        translator = load_translator(path, device)
    except (SnapshotError, OSError) as error:
        raise OptionError(option, str(error)) from error
    if translator.labels is None:
        raise OptionError(option, f"{path}: a {translator.model} that takes images, expected one that takes label maps")
    difference = describe_difference(translator.labels, dataset.label_classes)
    if difference:
        raise OptionError(option, f"{path}: takes {difference} (of {where})")
    made = translator.channels(translator.sources[0], translator.targets(translator.sources[0])[0])[1]
    if made != dataset.num_channels:
        text = f"makes images of {made} channels, and those of {where} have {dataset.num_channels}"
        raise OptionError(option, f"{path}: {text}")
    if dataset.resolution % translator.multiple:
        text = f"takes sides that are multiples of {translator.multiple} pixels, and {where} has {dataset.resolution}"
        raise OptionError(option, f"{path}: {text}")
    return translator


def read_translations(translator: Translator, dataset: ImageDataset) -> Read:
    """What a translator makes of the label maps of a dataset: one image of each, that of number i with the noise of
    seed i, kept where all fit in memory."""
    shape = (dataset.num_raw, dataset.num_channels, dataset.resolution, dataset.resolution)
    kept = KeptArrays(shape) if np.prod(shape) <= KEPT_MB * 2**20 else None

    def make(numbers: np.ndarray) -> np.ndarray:
        label_maps = torch.from_numpy(dataset.label_maps(numbers))
        planes = to_input(label_maps, translator.labels)
        return to_u8(translator(planes, seed=numbers.tolist(), batch_size=len(numbers))).numpy()

    return make if kept is None else lambda numbers: kept.rows(numbers, make)
