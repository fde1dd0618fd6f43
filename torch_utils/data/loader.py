# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Training data: the dataset, a sampler without state, and the loader."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.data.dataset import ImageDataset, random_state
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.prefetch import prefetch
from ggdr.torch_utils.data.workers import default_workers, map_in_order

__all__ = ["DataError", "ImageDataset", "ImageLoader", "batch_indices"]


def batch_indices(position: int, n: int, num_images: int, seed: int) -> np.ndarray:
    """The indices at positions position .. position + n - 1 of an endless stream of shuffled epochs.

    Epoch e fills positions e * num_images and following with a permutation that depends on (seed, e) only.

    Returns:
        [n] int64 in 0 .. num_images - 1.
    """
    parts = []
    while n > 0:
        epoch, start = divmod(position, num_images)
        part = _permutation(epoch, num_images, seed)[start : start + n]
        parts.append(part)
        position += len(part)
        n -= len(part)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


@lru_cache(maxsize=2)
def _permutation(epoch: int, num_images: int, seed: int) -> np.ndarray:
    return random_state(seed, epoch).permutation(num_images).astype(np.int64)


class ImageLoader:
    """Endless batches of one rank; the images depend on seed and position only, not on ranks or workers.

    The next batch is prepared in a thread (and in worker processes, if any) while the current one is used.

    Args:
        dataset:           the images.
        batch_size_global: images in a batch of all ranks together, a multiple of world.
        rank, world:       this process takes the slice [rank::world] of each batch.
        start_position:    images that all ranks together have seen already.
        seed:              of the order.
        num_workers:       processes that decode; None: 0 if decoded images are kept in memory, else up to 4.
        device:            where the batches go.

    Attributes:
        position: images that all ranks together have been given so far; a loader that starts there goes on
            exactly.

    Raises:
        ValueError: batch_size_global is no multiple of world.
        DataError, WorkerDied: while iterating.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size_global: int,
        *,
        rank: int = 0,
        world: int = 1,
        start_position: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        device: torch.device | str = "cpu",
    ):
        if batch_size_global < 1 or batch_size_global % world:
            raise ValueError(f"batch size {batch_size_global} is not a multiple of {world} processes")
        self.dataset = dataset
        self.batch_size_global = batch_size_global
        self.rank = rank
        self.world = world
        self.position = start_position
        self.seed = seed
        self.num_workers = (0 if dataset.cached else default_workers()) if num_workers is None else num_workers
        self.device = torch.device(device)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Batches from self.position on: images uint8 [B/world, C, H, W], labels float32 [B/world, c_dim].

        With a dataset that uses label maps these come third, uint8 [B/world, 1, H, W], flipped with their images.
        """
        with closing(prefetch(self._decoded(self.position), self.device)) as batches:
            for batch in batches:
                self.position += self.batch_size_global
                yield batch

    def _decoded(self, position: int) -> Generator[tuple[np.ndarray, ...]]:
        """This rank's batches as numpy arrays, without end."""
        dataset, indices = self.dataset, self._indices(position)
        if self.num_workers:
            # Images come back through pipes, not through shared memory, which containers keep small.
            files = map(dataset.sample_files_at, self._indices(position))
            with closing(map_in_order(dataset.sample_decoder(), files, self.num_workers)) as decoded:
                for batch, arrays in zip(indices, decoded, strict=True):
                    images, *maps = (dataset.flip(array, batch) for array in arrays)
                    yield images, dataset.labels(batch), *maps
        else:
            for batch in indices:
                maps = (dataset.label_maps(batch),) if dataset.use_label_maps else ()
                yield dataset.images_u8(batch), dataset.labels(batch), *maps

    def _indices(self, position: int) -> Iterator[np.ndarray]:
        """This rank's indices, batch by batch."""
        while True:
            indices = batch_indices(position, self.batch_size_global, self.dataset.num_images, self.seed)
            yield indices[self.rank :: self.world]
            position += self.batch_size_global
