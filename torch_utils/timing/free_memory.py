# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How much memory a process may still take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device now; None where the system does not say.

    On a GPU also what PyTorch holds and does not use. On the CPU without swapping, and not above the limit of the
    container or service (cgroup) that the process runs in.
    """
    if device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min((x for x in (_of_system(), _of_cgroup()) if x is not None), default=None)


def _of_system() -> int | None:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _of_cgroup() -> int | None:
    """What the limit of this group, and those of the groups that it is in, leave; both versions of cgroups."""
    try:
        lines = [line.split(":", 2) for line in (PROC / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return None
    found = []
    for _, controllers, name in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = root / name.lstrip("/")
        # In a container the own group is the root, whatever it is called outside.
        for folder in {group, *(p for p in group.parents if p.is_relative_to(root)), root}:
            left = _left_in(folder, *names)
            found += [] if left is None else [left]
    return min(found, default=None)


def _left_in(folder: Path, limit: str, usage: str) -> int | None:
    """None where the group has no limit ("max"), or does not exist."""
    try:
        left = int((folder / limit).read_text()) - int((folder / usage).read_text())
        stats = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Files that the system keeps in memory until it is needed count as used.
        return left + sum(int(value) for key, value in stats if key in ("inactive_file", "total_inactive_file"))
    except (OSError, ValueError):
        return None
