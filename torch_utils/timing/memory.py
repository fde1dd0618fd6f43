# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How much memory this process uses."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def memory_gib() -> dict[str, float]:
    """Memory in GiB by the names of a run's values: resident now, and, with a GPU, the peak of tensors on it."""
    found = {"memory/cpu_gib": _resident_bytes() / 2**30}
    torch = sys.modules.get("torch")  # who has not imported it holds nothing on a GPU
    if torch is not None and torch.cuda.is_available():
        found["memory/gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def _resident_bytes() -> int:
    """Resident memory; where the system has no /proc, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
