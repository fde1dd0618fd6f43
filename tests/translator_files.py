# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of image translation, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ggdr.torch_utils.checkpoint import save_snapshot
from ggdr.translation.config import NetworkConfig
from ggdr.translation.networks import build_network


def save_translator(path: Path, configs: Mapping[str, NetworkConfig], **settings: Any) -> Path:
    """Networks of these settings, always the same; `settings` stand in the snapshot beside theirs."""
    torch.manual_seed(0)
    states = {name: build_network(config).state_dict() for name, config in configs.items()}
    save_snapshot(path, states, {**{name: config.to_json() for name, config in configs.items()}, **settings})
    return path
