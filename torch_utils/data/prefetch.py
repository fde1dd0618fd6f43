# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Batches that are prepared in a thread while the ones before them are used."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import torch
from torch import Tensor


def prefetch(batches: Generator[Any], device: torch.device | str) -> Generator[Any]:
    """The batches as tensors on a device, one batch ahead, as often as there are any.

    Args:
        batches: dicts or tuples of numpy arrays; runs in a thread of its own, and is closed at the end.
        device:  where the tensors go, through pinned memory if it is a GPU.

    Raises:
        What `batches` raises.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    with closing(batches), ThreadPoolExecutor(1, "prefetch") as thread:
        batch = _next(batches, device)
        while batch is not None:
            ahead = thread.submit(_next, batches, device)
            yield _each(batch, lambda x: x.to(device, non_blocking=True))
            batch = ahead.result()


def _next(batches: Generator[Any], device: torch.device) -> Any:
    """The next batch in host memory, pinned for CUDA; None at the end."""
    batch = next(batches, None)
    if batch is None:
        return None
    batch = _each(batch, torch.from_numpy)
    if device.type != "cuda":
        return batch
    # Pinning in a thread would otherwise set up a context on the first GPU, whichever is ours.
    with torch.cuda.device(device):
        return _each(batch, Tensor.pin_memory)


def _each(batch: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(batch, dict):
        return {name: function(x) for name, x in batch.items()}
    return tuple(function(x) for x in batch)
