# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from snapshot files."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.snapshot_kinds import refuse_translator
from ggdr.torch_utils.untrusted.text import printable

Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig)


def config_from_snapshot(snapshot: Snapshot, key: str, config_type: type[Config]) -> Config:
    """The settings stored under `key` ("G" or "D"); raises SnapshotError if they are missing or malformed."""
    refuse_translator(snapshot)
    stored: Any = snapshot.config.get(key)
    try:
        return config_type(**stored)
    except (TypeError, ValueError) as error:
        reason = printable(error)
        raise SnapshotError(f"{snapshot.path}: settings of {key} do not describe a StyleGAN2: {reason}") from error


def load_generator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Generator:
    """The averaged generator of a snapshot, in float32 and evaluation mode.

    Example:
        >>> G = load_generator("network-snapshot-001000.safetensors")
        >>> img = G(torch.randn(4, G.z_dim))  # [4, C, H, W] float32, about [-1, 1]

    Raises:
        SnapshotError: the file is missing, damaged, or no StyleGAN2 snapshot.
    """
    return generator_of(load_snapshot(path), device)


def load_discriminator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot, in float32 and evaluation mode; raises as `load_generator`."""
    return discriminator_of(load_snapshot(path), device)


def generator_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Generator:
    """The averaged generator of a snapshot that has been read; raises as `load_generator`."""
    config = config_from_snapshot(snapshot, "G", GeneratorConfig)
    return restore_network(lambda: Generator(config), snapshot, "G_ema", device)


def discriminator_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot that has been read; raises as `load_generator`."""
    config = config_from_snapshot(snapshot, "D", DiscriminatorConfig)
    return restore_network(lambda: Discriminator(config), snapshot, "D", device)
