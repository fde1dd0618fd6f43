# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How a segmenter learns from images and label maps, and how it is judged by others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.metrics.segmentation import confusion
from ggdr.metrics.segmenter import Segmenter, SegmenterConfig, SegmenterNetwork
from ggdr.torch_utils.pictures.images import from_u8

HELD_OUT_EVERY = 10  # of so many images the last is held out
WARM_UP = 0.05  # share of training in which the learning rate rises

# Images [N, C, H, W] uint8, and their label maps [N, 1, H, W] uint8.
Batches = Iterable[tuple[Tensor, Tensor]]


def is_held_out(numbers: np.ndarray) -> np.ndarray:
    """Which images are not trained on, by their numbers in the dataset: 9, 19, 29, ...; [n] bool."""
    return numbers % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def default_downs(resolution: int) -> int:
    """How often a segmenter for images of this side halves them: down to 4 pixels, five times at most."""
    return min(max(resolution.bit_length() - 3, 1), 5)


def new_network(config: SegmenterConfig, seed: int) -> SegmenterNetwork:
    """A network with first weights of this seed, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegmenterNetwork(config)


def pixel_loss(logits: Tensor, label_maps: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that have a class; 0 where none has.

    Args:
        logits:     [N, classes, H, W] float32.
        label_maps: [N, 1, H, W] uint8: classes; pixels of other values, as IGNORED, give no gradient.

    Returns:
        float32, a scalar.
    """
    # As planes: PyTorch's own cross-entropy of images sums in any order on a GPU.
    classes = torch.arange(logits.shape[1], dtype=torch.uint8, device=logits.device).view(1, -1, 1, 1)
    is_class = (label_maps == classes).to(logits.dtype)
    return -(F.log_softmax(logits, dim=1) * is_class).sum() / is_class.sum().clamp(min=1)


def learning_rate(done: float, lr: float) -> float:
    """Adam's rate once this share of training is done: it rises to `lr`, then falls to 0 as half a cosine."""
    if done < WARM_UP:
        return lr * done / WARM_UP
    return lr * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def train_segmenter(
    net: SegmenterNetwork,
    batches: Batches,
    *,
    steps: int,
    lr: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Trains a network with Adam, and leaves it in evaluation mode.

    Args:
        net:      on the device of the batches.
        batches:  at least `steps`; each gives one step.
        progress: called with the steps done, and all.

    Source: Kingma and Ba 2015, arXiv:1412.6980; the rate is that of Loshchilov and Hutter 2017, arXiv:1608.03983,
    Eq. (5), without restarts.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    net.to(memory_format=torch.channels_last).train()
    for step, (images_u8, label_maps) in enumerate(islice(batches, steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((step + 1) / (steps + 1), lr)
        optimizer.zero_grad(set_to_none=True)
        img = from_u8(images_u8).to(memory_format=torch.channels_last)
        pixel_loss(net(img), label_maps).backward()
        optimizer.step()
        progress(step + 1, steps)
    net.eval().requires_grad_(False)


def judge(segmenter: Segmenter, batches: Batches, classes: int) -> Tensor:
    """Counts the pixels of each class by what a segmenter calls them: [classes, classes] int64, on the CPU."""
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for images_u8, label_maps in batches:
        counts += confusion(label_maps[:, 0], segmenter.of_files(images_u8).argmax(1), classes)
    return counts


def flip_some(batches: Batches, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches with about every other image mirrored, and its label map with it."""
    rng = torch.Generator().manual_seed(seed)
    for images_u8, label_maps in batches:
        is_flipped = torch.rand(len(images_u8), 1, 1, 1, generator=rng).to(images_u8.device) < 0.5
        yield tuple(torch.where(is_flipped, x.flip(3), x) for x in (images_u8, label_maps))
