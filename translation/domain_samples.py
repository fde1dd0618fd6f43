# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run on images of several domains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.gan import Picture
from ggdr.torch_utils.pictures.images import MIN_GRID_WIDTH, from_u8, make_grid, to_u8
from ggdr.torch_utils.untrusted.text import shortened
from ggdr.translation.combogan import ComboGANTask
from ggdr.translation.cyclegan import OTHER, SIDES, CycleGANTask
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.samples import MAX_PIXELS, as_grid, evenly, sample_grid

MOST_DOMAINS = 8  # in a picture of all combinations


class CycleSamples:
    """Grids of inputs of one domain that lie evenly in the dataset, and what the generators make of them.

    Args:
        side: "A" or "B": the domain of the inputs.
        seed: of dropout, the same in each picture.
    """

    def __init__(
        self, task: CycleGANTask, dataset: UnpairedImages, crop: CropConfig, side: str, *, seed: int = 0
    ) -> None:
        self.task, self.dataset, self.crop, self.side, self.seed = task, dataset, crop, side, seed
        self.domain = SIDES.index(side)
        self.num_images = len(dataset.domains[self.domain].files)
        self.grid = sample_grid(self.num_images, crop.size, 4)

    @cached_property
    def inputs(self) -> Tensor:
        """uint8 [n, C, size, size]: the middles of their images."""
        items = self.dataset.middles((self.domain, self.domain), evenly(self.grid.num, self.num_images))
        return torch.from_numpy(self.dataset.decoder(self.crop)(items)["A"])

    def draw(self) -> np.ndarray:
        """[H, W, 3] uint8: input, output, what the other generator makes of that, and of the input."""
        img, other = from_u8(self.inputs), OTHER[self.side]
        out = self.task.translate(img, self.side, seed=self.seed)
        back, same = (self.task.translate(x, other, seed=self.seed) for x in (out, img))
        images = [self.inputs, *map(to_u8, (out, back, same))]
        return as_grid(images, self.grid, "input, output, reconstruction, identity")


def cycle_pictures(task: CycleGANTask, dataset: UnpairedImages, crop: CropConfig, *, seed: int = 0) -> list[Picture]:
    """Input, output, reconstruction and identity at each snapshot, for each domain."""
    names = dict(zip(SIDES, map(shortened, task.domains), strict=True))
    return [
        Picture(
            f"translations_{side}",
            f"{names[side]} to {names[OTHER[side]]}: input, output, reconstruction, identity",
            CycleSamples(task, dataset, crop, side, seed=seed).draw,
        )
        for side in SIDES
    ]


class CombinationSamples:
    """Inputs of several domains, row by row, and each as an image of every one of these domains, its own too.

    Args:
        domains: their numbers, in rising order.
    """

    def __init__(self, task: ComboGANTask, dataset: UnpairedImages, crop: CropConfig, domains: Sequence[int]) -> None:
        self.task, self.dataset, self.crop, self.domains = task, dataset, crop, list(domains)
        most = min(MAX_PIXELS // (crop.size**2 * len(self.domains)), MOST_DOMAINS // len(self.domains))
        self.rows = {i: min(max(most, 1), len(dataset.domains[i].files)) for i in self.domains}

    @cached_property
    def inputs(self) -> dict[int, Tensor]:
        """uint8 [n, C, size, size] of each domain: the middles of images that lie evenly in it."""
        decoder, found = self.dataset.decoder(self.crop), {}
        for i, n in self.rows.items():
            items = self.dataset.middles((i, i), evenly(n, len(self.dataset.domains[i].files)))
            found[i] = torch.from_numpy(decoder(items)["A"])
        return found

    def draw(self) -> np.ndarray:
        """[H, W, 3] uint8, with names: inputs, then a column for each domain; reconstructions are on the diagonal."""
        rows, labels = [], []
        for i, img in self.inputs.items():
            out = [to_u8(self.task.translate(from_u8(img), i, j)) for j in self.domains]
            rows.append(torch.stack([img, *out], dim=1).flatten(0, 1))
            labels += [shortened(self.task.domains[i])] * len(img)
        columns = 1 + len(self.domains)
        scale = max(-(-MIN_GRID_WIDTH // (columns * self.crop.size)), 1)
        names = ["input", *(shortened(self.task.domains[i]) for i in self.domains)]
        return make_grid(torch.cat(rows), columns, scale=scale, row_labels=labels, column_labels=names)


def combination_picture(task: ComboGANTask, dataset: UnpairedImages, crop: CropConfig) -> Picture:
    """Inputs as images of every domain at each snapshot; of more than MOST_DOMAINS, of some that lie evenly."""
    num = len(dataset.domains)
    shown = evenly(min(num, MOST_DOMAINS), num)
    names = ", ".join(shortened(task.domains[i]) for i in shown)
    return Picture(
        "translations",
        f"Rows: inputs, and each as {names}; its own domain: reconstruction",
        CombinationSamples(task, dataset, crop, shown).draw,
    )
