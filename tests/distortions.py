# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images like photographs, and what can be done to them that a distance has to notice."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def dead_leaves(num: int, seed: int) -> Tensor:
    """Discs of random colours and sizes, the later over the earlier: edges and areas much as in photographs."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:32, :32]
    images = np.zeros((num, 3, 32, 32))
    for _ in range(40):
        radius = 2 / rng.uniform(0.08, 1, (num, 1, 1))
        place = rng.uniform(-8, 40, (2, num, 1, 1))
        inside = (y - place[0]) ** 2 + (x - place[1]) ** 2 < radius**2
        images = np.where(inside[:, None], rng.uniform(0, 255, (num, 3, 1, 1)), images)
    return torch.from_numpy(images.astype(np.uint8))


def as_u8(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


def noisy(images: Tensor, sigma: float) -> Tensor:
    return images + sigma * torch.from_numpy(np.random.RandomState(2).randn(*images.shape))


def blurred(images: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(F.pad(images.float(), [width // 2] * 4, mode="replicate"), width, stride=1)


def faded(images: Tensor, amount: float) -> Tensor:
    return images.float().lerp(images.float().mean(1, keepdim=True), amount)


def reddened(images: Tensor, levels: int) -> Tensor:
    return images + levels * torch.tensor([1, 0, -1]).view(3, 1, 1)


def repeated(images: Tensor, num: int) -> Tensor:
    return images[torch.arange(len(images)) % num].float()


def shuffled(images: Tensor, size: int) -> Tensor:
    """Tiles of this size, each image's in another order."""
    tiles = F.unfold(images.float(), size, stride=size)
    order = torch.from_numpy(np.random.RandomState(3).rand(len(tiles), 1, tiles.shape[2])).argsort(dim=2)
    return F.fold(tiles.gather(2, order.expand_as(tiles)), 32, size, stride=size)


def textured(images: Tensor, amount: float) -> Tensor:
    """The same fine pattern laid over all images."""
    pattern = torch.from_numpy(np.random.RandomState(4).randint(0, 256, (3, 32, 32)))
    return images.float().lerp(pattern.float(), amount)


# Each with three strengths, from weak to strong.
DISTORTIONS = [
    (noisy, (4, 12, 36)),
    (blurred, (3, 5, 9)),
    (faded, (0.2, 0.4, 0.8)),
    (reddened, (20, 40, 80)),
    (repeated, (200, 60, 20)),
    (shuffled, (16, 8, 4)),
    (textured, (0.1, 0.2, 0.4)),
]
