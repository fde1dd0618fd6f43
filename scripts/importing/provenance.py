# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where weights come from that were not trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What is handed on from snapshot to run and to the run's snapshots.
NAMES = {"file": str, "sha256": str, "format": str, "url": str, "augment_p": float}


def imported_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The file that the weights of a snapshot were imported from: those of NAMES that are known.

    Args:
        settings: `config` of a snapshot; a copied one says in turn where its source came from.
    """
    return _first(settings.get("source"))


def started_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the weights that the run of a snapshot started from."""
    training = settings.get("training")
    return _first(training.get("init_source")) if isinstance(training, Mapping) else {}


def _first(source: Any) -> dict[str, Any]:
    found: Mapping[str, Any] = {}
    while isinstance(source, Mapping):
        found, source = source, source.get("source")
    return {name: found[name] for name, kind in NAMES.items() if isinstance(found.get(name), kind)}
