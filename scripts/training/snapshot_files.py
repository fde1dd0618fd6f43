# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The snapshots of a run folder, by their names."""

from __future__ import annotations

from pathlib import Path

BEST_FILE = "network-best.safetensors"
SNAPSHOT_SUFFIX = ".safetensors"
PATTERN = "network-snapshot-*.safetensors"


def snapshots_in(folder: Path) -> list[Path]:
    """All of them, the longest trained last."""
    return sorted(folder.glob(PATTERN), key=lambda path: path.stem)


def network_of_run(folder: Path) -> Path | None:
    """The best snapshot of a run where metrics chose one, else the longest trained; None if there is none."""
    best = folder / BEST_FILE
    return best if best.exists() else next(reversed(snapshots_in(folder)), None)
