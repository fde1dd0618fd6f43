# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Batches of pairs, or of two domains, for training."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.data.prefetch import prefetch
from ggdr.torch_utils.data.workers import default_workers, map_in_order
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import Job, TranslationDataset


class TranslationLoader:
    """Endless batches of one rank; they depend on seed and position only, not on ranks or workers.

    The next batch is prepared in a thread (and in worker processes, if any) while the current one is used.

    Args:
        dataset:           PairedImages or UnpairedImages.
        crop:              what becomes of an image.
        batch_size_global: samples in a batch of all ranks together, a multiple of world.
        rank, world:       this process takes the slice [rank::world] of each batch.
        start_position:    samples that all ranks together have seen already.
        seed:              of order, domains and crops.
        num_workers:       processes that decode; None: up to 4; 0: the thread does it.
        device:            where the batches go.

    Attributes:
        position: samples that all ranks together have been given so far; a loader that starts there, with the same
            batch size, goes on exactly.

    Raises:
        ValueError: batch_size_global is no multiple of world.
        DataError, WorkerDied: while iterating.
    """

    def __init__(
        self,
        dataset: TranslationDataset,
        crop: CropConfig,
        batch_size_global: int,
        *,
        rank: int = 0,
        world: int = 1,
        start_position: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size_global < 1 or batch_size_global % world:
            raise ValueError(f"batch size {batch_size_global} is not a multiple of {world} processes")
        self.dataset, self.crop = dataset, crop
        self.batch_size_global = batch_size_global
        self.rank, self.world = rank, world
        self.position = start_position
        self.seed = seed
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.device = torch.device(device)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches from self.position on.

        {"A": uint8 [B/world, C, size, size], "B": the same}; of unpaired images also "domain_A" and "domain_B",
        int64 [B/world] with one number all over. These are on the CPU, so that who reads them waits for no device.
        """
        domains = (job.domains for job in self._jobs(self.position))
        with closing(prefetch(self._decoded(self.position), self.device)) as batches:
            for batch, pair in zip(batches, domains, strict=False):
                self.position += self.batch_size_global
                yield batch if pair is None else {**batch, **_numbers(pair, len(batch["A"]))}

    def _decoded(self, position: int) -> Generator[dict[str, np.ndarray]]:
        """This rank's images as numpy arrays, without end."""
        decoder = self.dataset.decoder(self.crop)
        items = (job.items for job in self._jobs(position))
        if self.num_workers:
            with closing(map_in_order(decoder, items, self.num_workers)) as decoded:
                yield from decoded
        else:
            yield from map(decoder, items)

    def _jobs(self, position: int) -> Iterator[Job]:
        """This rank's share of each batch."""
        for job in self.dataset.jobs(position, self.batch_size_global, self.seed):
            yield job._replace(items=job.items[self.rank :: self.world])


def _numbers(domains: tuple[int, int], n: int) -> dict[str, Tensor]:
    """The domains of a batch of n images of each."""
    return {f"domain_{name}": torch.full([n], k) for name, k in zip("AB", domains, strict=True)}
