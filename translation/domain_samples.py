# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run on images of several domains."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.gan import Picture
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.torch_utils.untrusted.text import shortened
from ggdr.translation.cyclegan import OTHER, SIDES, CycleGANTask
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.samples import as_grid, evenly, sample_grid


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
        return as_grid([self.inputs, *map(to_u8, (out, back, same))], self.grid)


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
