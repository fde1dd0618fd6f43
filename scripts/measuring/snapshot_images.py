# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The images of a snapshot, and the paths between them, as metrics take them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.extract import MetricError
from ggdr.metrics.image_sets import GeneratedImages, over_white
from ggdr.metrics.names import MetricSpec
from ggdr.metrics.ppl import perceptual_path_lengths
from ggdr.stylegan2 import Generator, load_generator
from ggdr.stylegan2.latent.sampling import images_of_seeds
from ggdr.torch_utils.data.dataset import random_state
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.downloads import sha256_of
from ggdr.torch_utils.pictures.images import to_u8

SEED_STRIDE = 2**20  # fake number i of metric seed s is seed s * SEED_STRIDE + i of `ggdr generate`
MAX_SEED = 2**32 // SEED_STRIDE - 1  # torch's CPU generators tell 2^32 seeds apart


class SnapshotGenerator:
    """The averaged generator of a snapshot, as a source of images and of paths.

    Args:
        labels: of the images that fakes take their labels from, for a conditional network; None: each class
            equally often.
        seed:   of the fakes, 0 to MAX_SEED.
        psi:    truncation.
        as_stored: leave the images' transparency out, as tools do that read them from files; else it is laid over
            white.

    Raises:
        SnapshotError: no snapshot, or one that cannot be read.
        MetricError: the labels are not of the network's kind.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        device: torch.device,
        *,
        labels: LabelTable | None = None,
        seed: int = 0,
        psi: float = 1.0,
        noise_mode: str = "random",
        as_stored: bool = False,
    ) -> None:
        self.path, self.device, self.seed, self.psi, self.noise_mode = Path(path), device, seed, psi, noise_mode
        self.as_stored = as_stored
        self.G: Generator = load_generator(path, device)
        if self.G.c_dim and labels is not None and labels.c_dim != self.G.c_dim:
            raise MetricError(f"{path} has labels of {self.G.c_dim} numbers, those of the reals have {labels.c_dim}")
        self.table = labels if self.G.c_dim else None

    def labels(self, num: int) -> np.ndarray:
        """The labels of fakes 0 .. num - 1: class indices [num] int64, or vectors [num, c_dim] float32."""
        rng = random_state(self.seed)
        if self.table is None:
            return rng.randint(max(self.G.c_dim, 1), size=num)
        return self.table.values[rng.randint(len(self.table.values), size=num)]

    def images(self, num: int) -> GeneratedImages:
        """Its first `num` images."""
        labels = self.labels(num)
        classes = labels if self.G.c_dim and labels.ndim == 1 else None
        return GeneratedImages(
            lambda numbers: self._draw(numbers, labels), labels=classes, about=self.about(), as_stored=self.as_stored
        )

    def measure_paths(self, spec: MetricSpec, numbers: Sequence[int], distance: Callable[..., Tensor]) -> Tensor:
        """Lengths [n] float64 of the paths of these numbers."""
        generators = [self._generator(number) for number in numbers]
        z0, z1 = (torch.stack([torch.randn([self.G.z_dim], generator=g) for g in generators]) for _ in range(2))
        t = torch.stack([torch.rand([], generator=g) for g in generators])
        c = self._onehot(self.labels(spec.num)[list(numbers)])

        def mapping(z: Tensor, c: Tensor) -> Tensor:
            return self.G.mapping(z, c, truncation_psi=self.psi)

        def synthesis(ws: Tensor) -> Tensor:
            img = self.G.synthesis(ws, noise_mode="const")
            return over_white(img) if img.shape[1] == 4 and not self.as_stored else img[:, :3]

        with torch.inference_mode():
            ends = [x.to(self.device) for x in (z0, z1, t if spec.sampling == "full" else torch.zeros_like(t), c)]
            return perceptual_path_lengths(mapping, synthesis, distance, *ends, space=spec.space)

    def about(self) -> dict[str, Any]:
        """What a result line says of the images."""
        about = {"network": str(self.path), "sha256": sha256_of(self.path)[:16], "seed": self.seed, "psi": self.psi}
        about |= {"noise_mode": self.noise_mode, "size": [self.G.img_resolution] * 2}
        if self.G.c_dim:
            about["labels"] = "each class equally often" if self.table is None else "as often as among the reals"
        return about

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator("cpu").manual_seed(self.seed * SEED_STRIDE + number)

    def _draw(self, numbers: Sequence[int], labels: np.ndarray) -> Tensor:
        """uint8 [n, C, H, W] on the device."""
        img, _ = images_of_seeds(
            self.G,
            [self.seed * SEED_STRIDE + number for number in numbers],
            self._onehot(labels[list(numbers)]),
            device=self.device,
            truncation_psi=self.psi,
            noise_mode=self.noise_mode,
        )
        if not torch.isfinite(img).all():
            raise MetricError(f"{self.path}: its images hold NaN or infinite numbers: the network has diverged")
        return to_u8(img)

    def _onehot(self, labels: np.ndarray) -> Tensor:
        """c [n, c_dim] float32."""
        if labels.ndim == 2:
            return torch.from_numpy(labels).float()
        c = torch.zeros([len(labels), self.G.c_dim])
        if self.G.c_dim:
            c[torch.arange(len(labels)), torch.from_numpy(labels)] = 1
        return c
