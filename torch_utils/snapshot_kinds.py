# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which kind of model a snapshot is of, for whoever is given one of the other kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError

TAKEN_BY = {
    "a translator": "`ggdr translate apply` uses it, and `ggdr translate train --resume` trains it further",
    "a StyleGAN2": "`ggdr generate` uses it, and `ggdr train --resume` trains it further",
}


def holds_translator(config: Mapping[str, Any]) -> bool:
    """Whether a snapshot's settings are of networks of image translation, which say what kind each network is of."""
    return any(name[:1] in ("G", "D") and isinstance(x, Mapping) and "network" in x for name, x in config.items())


def holds_stylegan2(config: Mapping[str, Any]) -> bool:
    """Whether a snapshot's settings are of a generator or discriminator of StyleGAN2."""
    parts = (config.get(name) for name in ("G", "D"))
    return not holds_translator(config) and any(isinstance(x, Mapping) and "img_resolution" in x for x in parts)


def refuse_translator(snapshot: Snapshot) -> None:
    """Raises SnapshotError if a snapshot is of image translation; says what takes it."""
    if holds_translator(snapshot.config):
        raise _refusal(snapshot, "a translator", "a StyleGAN2")


def refuse_stylegan2(snapshot: Snapshot) -> None:
    """Raises SnapshotError if a snapshot is of StyleGAN2; says what takes it."""
    if holds_stylegan2(snapshot.config):
        raise _refusal(snapshot, "a StyleGAN2", "a translator")


def _refusal(snapshot: Snapshot, found: str, expected: str) -> SnapshotError:
    return SnapshotError(f"{snapshot.path}: holds {found}, expected {expected}; {TAKEN_BY[found]}")
