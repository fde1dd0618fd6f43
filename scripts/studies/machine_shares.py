# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What each of several runs side by side gets of a machine."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from ggdr.torch_utils.data.workers import cpu_count

RUN_GIB = 3.0  # of memory for a run on a CPU; small networks take about 1, metrics included


def find_gpus(device: str) -> list[str]:
    """Names of the GPUs that runs share, as in CUDA_VISIBLE_DEVICES; none where they train on CPUs.

    Args:
        device: value of --device. A GPU of a number is that run's own choice.
    """
    if device not in ("auto", "cuda"):
        return []
    import torch

    num_gpus = torch.cuda.device_count()
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[:num_gpus] if visible else [str(i) for i in range(num_gpus)]


def default_jobs(runs: int, gpus: Sequence[str]) -> int:
    """Runs side by side: one a GPU; else one a processor, as far as there are so many and each has RUN_GIB of memory.

    The small networks that CPUs train gain little from a second thread (docs/compare.md), so that runs side by side
    finish sooner than one after the other.
    """
    if gpus:
        return len(gpus)
    return max(1, min(runs, cpu_count(), int(_memory_gib() // RUN_GIB)))


def _memory_gib() -> float:
    """Of the machine; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return math.inf


def thread_share(jobs: int) -> int:
    """Threads of each of so many runs side by side."""
    return max(1, cpu_count() // jobs)


def share_environment(jobs: int, slot: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of a run: its threads if it is not alone, and its GPU."""
    environment = dict(os.environ)
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(thread_share(jobs))
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment
