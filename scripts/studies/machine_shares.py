# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What each of several runs side by side gets of a machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ggdr.torch_utils.data.workers import cpu_count


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
