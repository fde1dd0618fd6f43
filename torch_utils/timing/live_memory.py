# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The memory that tensors take at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

BLOCK = 512  # bytes, to multiples of which PyTorch's allocator for GPUs rounds


class LiveMemory:
    """Bytes of the tensors that it was shown and that are still there, and the most that there ever were.

    A tensor counts as long as its storage lives, whoever holds it: views of it, autograd's graph, a module.
    """

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def see(self, tensors: Iterable[Tensor]) -> None:
        """Counts the storages of tensors that were not counted before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            address = storage._cdata
            if address not in self._watched:
                size = -(-storage.nbytes() // BLOCK) * BLOCK
                self._watched[address] = weakref.ref(storage, self._forgetter(address, size))
                self.now += size
        self.peak = max(self.peak, self.now)

    def restart_peak(self) -> None:
        """The peak from now on."""
        self.peak = self.now

    def _forgetter(self, address: int, size: int) -> Callable[[object], None]:
        def forget(reference: object) -> None:
            del self._watched[address]
            self.now -= size

        return forget


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors take together; a storage that several share counts once."""
    memory = LiveMemory()
    memory.see(tensors)
    return memory.now
