# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on a GPU that gives the same numbers each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_arithmetic(device: torch.device) -> Iterator[None]:
    """Inside, PyTorch's operations on a GPU add up in a fixed order, where they can; on a CPU all stays as it is.

    PyTorch warns of an operation that has no such version, once, and goes on with it. To be entered before anything
    is multiplied on the GPU: cuBLAS reads its setting, which stays, when it starts.

    Source: PyTorch's notes on reproducibility.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn, memory = torch.backends.cudnn, torch.utils.deterministic
    was_on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before = cudnn.deterministic, memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Memory is written before it is read here; to fill it first costs time only.
        cudnn.deterministic, memory.fill_uninitialized_memory = True, False
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warned)
        cudnn.deterministic, memory.fill_uninitialized_memory = before
