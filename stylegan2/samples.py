# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run of StyleGAN2."""

from __future__ import annotations

import numpy as np
import torch

from ggdr.stylegan2.task import StyleGAN2Task
from ggdr.torch_utils.data.loader import ImageDataset
from ggdr.torch_utils.gan import Picture
from ggdr.torch_utils.pictures.fonts import can_draw
from ggdr.torch_utils.pictures.images import grid_classes, grid_size, make_grid
from ggdr.torch_utils.untrusted.text import shortened


def sample_pictures(task: StyleGAN2Task, dataset: ImageDataset, seed: int) -> list[Picture]:
    """Real images once, and images of fixed latents at each snapshot."""
    samples = Samples(task, dataset, seed)
    return [Picture("reals", "Real images", samples.reals, once=True), Picture("fakes", "Samples", samples.fakes)]


def class_caption(dataset: ImageDataset, label: int) -> str:
    """What pictures call a class: its name, in short; its number where it has none, or no font has the letters."""
    if not dataset.classes or label >= len(dataset.classes):
        return str(label)
    name = shortened(dataset.classes[label])
    return name if can_draw(name) else f"class {label}"


def undrawable_classes(dataset: ImageDataset) -> dict[int, str]:
    """Classes, by number, that pictures call by it, since no font here has the letters of their names."""
    if not dataset.c_dim or dataset.label_counts is None:
        return {}
    return {i: name for i, name in enumerate(dataset.classes or ()) if not can_draw(shortened(name))}


class Samples:
    """Grids of real images and of images of fixed latents, in the same layout."""

    def __init__(self, task: StyleGAN2Task, dataset: ImageDataset, seed: int) -> None:
        self.task, self.dataset, self.seed = task, dataset, seed
        self.grid = grid_size(dataset.resolution, dataset.num_raw, num_classes=dataset.c_dim)
        n = self.grid.num_images
        rng = torch.Generator().manual_seed(seed)
        self.z = torch.randn([n, task.G.z_dim], generator=rng)
        self.c = torch.zeros([n, dataset.c_dim])
        self.row_labels = None
        if dataset.label_counts is not None and dataset.c_dim > 0:
            rows = grid_classes(self.grid, dataset.c_dim)
            self.c[torch.arange(n), torch.tensor(rows).repeat_interleave(self.grid.columns)] = 1
            self.row_labels = [class_caption(dataset, i) for i in rows]
        elif dataset.c_dim > 0:
            self.c = dataset.random_labels(n, rng)

    def reals(self) -> np.ndarray:
        """Real images on the same grid as the fakes, rows by class if there are labels."""
        n, rng = self.grid.num_images, np.random.default_rng(self.seed)
        order = rng.permutation(self.dataset.num_raw)
        if self.row_labels is not None:
            labels = self.dataset.labels(order).argmax(axis=1)
            rows = self.c.argmax(dim=1)[:: self.grid.columns].tolist()
            picks = [np.resize(order[labels == k], self.grid.columns) for k in rows if (labels == k).any()]
            order = np.concatenate(picks)
        images = torch.from_numpy(self.dataset.images_u8(order[:n]))
        labels = self.row_labels if len(images) == n else None
        return make_grid(images, self.grid.columns, scale=self.grid.scale, row_labels=labels)

    def fakes(self) -> np.ndarray:
        """The averaged generator's images of the fixed latents."""
        img = self.task.sample(self.z, self.c)
        return make_grid(img, self.grid.columns, scale=self.grid.scale, row_labels=self.row_labels)
