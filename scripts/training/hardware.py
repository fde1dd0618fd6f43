# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What machine this process runs on."""

from __future__ import annotations

import os
from typing import Any


def describe_hardware() -> dict[str, Any]:
    """Processor, the cores that this process may use, memory in GiB (None if unknown), and each GPU."""
    import torch

    from ggdr.torch_utils.data.workers import cpu_count
    from ggdr.torch_utils.ops.toolchain import cpu_name

    gpus = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        gpus.append({"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)})
    return {"cpu": cpu_name(), "cores": cpu_count(), "memory_gib": _memory_gib(), "gpus": gpus}


def _memory_gib() -> float | None:
    """Memory of the machine; None on a system that does not tell."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, others know fewer names
        return None
