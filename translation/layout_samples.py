# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run on label maps."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.gan import Picture
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.label_maps import color_label_maps, to_input
from ggdr.translation.layout import LayoutTask
from ggdr.translation.samples import as_grid, evenly, sample_grid

SEEDS = 2  # results of each label map that a picture shows


class LayoutSamples:
    """Grids of label maps, results with different noise, and targets, of pairs that lie evenly in the dataset.

    Args:
        seed: of the first result's noise, the same in each picture.
    """

    def __init__(self, task: LayoutTask, dataset: PairedImages, crop: CropConfig, *, seed: int = 0) -> None:
        self.task, self.dataset, self.crop, self.seed = task, dataset, crop, seed
        self.classes = dataset.sides[0].classes
        self.grid = sample_grid(dataset.num_images, crop.size, 2 + SEEDS)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Label maps and images, uint8 [n, C, size, size] each: the middles of their images."""
        indices = evenly(self.grid.num, self.dataset.num_images)
        arrays = self.dataset.decoder(self.crop)(self.dataset.middles(indices))
        return torch.from_numpy(arrays["A"]), torch.from_numpy(arrays["B"])

    def _made(self, seed: int) -> Tensor:
        return self.task.translate(to_input(self.pairs[0], self.classes), seed=seed)

    def draw(self) -> np.ndarray:
        """[H, W, 3] uint8: label map in colours, results and target beside each other, pair by pair."""
        made = [to_u8(self._made(self.seed + i * self.grid.num)) for i in range(SEEDS)]
        images = [color_label_maps(self.pairs[0], self.classes), *made, self.pairs[1]]
        return as_grid(images, self.grid, f"label map, {SEEDS} results with different noise, target")

    def draw_segmented(self) -> np.ndarray:
        """[H, W, 3] uint8: target, D's classes for it, result, and D's classes for that; black is "fake"."""
        target, made = from_u8(self.pairs[1]), self._made(self.seed)
        found = [color_label_maps(self.task.segment(img), self.classes) for img in (target, made)]
        shown = 'target, its classes by D, result, its classes by D; black is "fake"'
        return as_grid([self.pairs[1], found[0], to_u8(made), found[1]], self.grid, shown)


def layout_pictures(task: LayoutTask, dataset: PairedImages, crop: CropConfig, *, seed: int = 0) -> list[Picture]:
    """Results at each snapshot; of a host whose D segments, what it sees in them."""
    samples = LayoutSamples(task, dataset, crop, seed=seed)
    pictures = [Picture("translations", "Label map, results, target", samples.draw)]
    if hasattr(task, "segment"):
        title = "Target, its classes by D, result, its classes by D"
        pictures.append(Picture("segmentations", title, samples.draw_segmented))
    return pictures
