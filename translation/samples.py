# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run on pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.gan import Picture
from ggdr.torch_utils.pictures.images import MIN_GRID_WIDTH, make_grid, to_u8
from ggdr.torch_utils.pictures.sheets import contact_sheet
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.label_maps import color_label_maps, to_input
from ggdr.translation.pix2pix import Pix2PixTask

WIDTH = 1536  # pixels that the images of a row take at most, if there is more than one sample in it
MOST_COLUMNS, MOST_ROWS = 4, 6  # of samples
MAX_PIXELS = 2**19  # of all inputs together: what a CPU translates in seconds


class SampleGrid(NamedTuple):
    """How samples, of several images each, lie beside each other: `num` in all, enlarged `scale` times."""

    columns: int
    num: int
    scale: int


def sample_grid(num_images: int, size: int, cells: int) -> SampleGrid:
    """A grid of samples.

    Args:
        num_images: of the dataset.
        size:       of an image, in pixels.
        cells:      images of a sample.
    """
    columns = min(max(WIDTH // (cells * size), 1), MOST_COLUMNS, num_images)
    rows = min(max(MAX_PIXELS // (size * size * columns), 1), MOST_ROWS, num_images // columns)
    return SampleGrid(columns, columns * rows, max(-(-MIN_GRID_WIDTH // (cells * size * columns)), 1))


def evenly(num: int, num_images: int) -> list[int]:
    """Numbers of `num` images that lie evenly in a dataset."""
    return np.linspace(0, num_images - 1, num).astype(int).tolist()


def as_grid(images: Sequence[Tensor], grid: SampleGrid, shown: str) -> np.ndarray:
    """The images of each sample beside each other, apart from other samples: [H, W, 3] uint8.

    Args:
        images: uint8 [num, 1 or 3, H, W] each.
        shown:  what those of a sample are, from left to right; stands below all of them.
    """
    samples = torch.stack([_rgb(x) for x in images], dim=1)
    strips = [make_grid(sample, len(images), scale=grid.scale) for sample in samples]
    rows = [strips[i : i + grid.columns] for i in range(0, len(strips), grid.columns)]
    return contact_sheet(rows, note=f"From left to right: {shown}.")


class PairSamples:
    """Grids of inputs, what G makes of them, and targets, of pairs that lie evenly in the dataset.

    Args:
        seed: of dropout, the same in each picture.
    """

    def __init__(self, task: Pix2PixTask, dataset: PairedImages, crop: CropConfig, *, seed: int = 0) -> None:
        self.task, self.dataset, self.crop, self.seed = task, dataset, crop, seed
        self.grid = sample_grid(dataset.num_images, crop.size, 3)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, uint8 [n, C, size, size] each: the middles of their images."""
        indices = evenly(self.grid.num, self.dataset.num_images)
        arrays = self.dataset.decoder(self.crop)(self.dataset.middles(indices))
        return torch.from_numpy(arrays["A"]), torch.from_numpy(arrays["B"])

    def draw(self) -> np.ndarray:
        """[H, W, 3] uint8: input, output and target beside each other, pair by pair; label maps in colours."""
        (a, b), classes = self.pairs, self.dataset.sides[0].classes
        out = to_u8(self.task.translate(to_input(a, classes), seed=self.seed))
        shown = a if classes is None else color_label_maps(a, classes)
        return as_grid([shown, out, b], self.grid, "input, output, target")


def pair_pictures(task: Pix2PixTask, dataset: PairedImages, crop: CropConfig, *, seed: int = 0) -> list[Picture]:
    """Input, output and target at each snapshot."""
    samples = PairSamples(task, dataset, crop, seed=seed)
    return [Picture("translations", "Input, output, target", samples.draw)]


def _rgb(images_u8: Tensor) -> Tensor:
    """[N, 1 or 3, H, W] -> [N, 3, H, W]."""
    return images_u8.expand(-1, 3, -1, -1)
