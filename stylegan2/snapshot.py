# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from snapshot files."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from torch import nn

from stylegan2.config import DiscriminatorConfig, GeneratorConfig
from stylegan2.discriminator import Discriminator
from stylegan2.generator import Generator
from torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot

Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig)


def config_from_snapshot(snapshot: Snapshot, key: str, config_type: type[Config]) -> Config:
    """The settings stored under `key` ("G" or "D"); raises SnapshotError if they are missing or malformed."""
    stored: Any = snapshot.config.get(key)
    try:
        return config_type(**stored)
    except (TypeError, ValueError) as error:
        raise SnapshotError(f"{snapshot.path}: settings of {key} do not describe a StyleGAN2: {error}") from error


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
    return _restored(Generator(config_from_snapshot(snapshot, "G", GeneratorConfig)), snapshot, "G_ema", device)


def discriminator_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot that has been read; raises as `load_generator`."""
    net = Discriminator(config_from_snapshot(snapshot, "D", DiscriminatorConfig))
    return _restored(net, snapshot, "D", device)


Net = TypeVar("Net", bound=nn.Module)


def _restored(net: Net, snapshot: Snapshot, key: str, device: torch.device | str) -> Net:
    """Loads one state dict of a snapshot into a network built from its settings."""
    if key not in snapshot.networks:
        raise SnapshotError(f"{snapshot.path}: holds {', '.join(snapshot.networks)}, but no {key}")
    try:
        net.load_state_dict(snapshot.networks[key], strict=True)
    except RuntimeError as error:
        raise SnapshotError(f"{snapshot.path}: weights of {key} do not fit their settings: {error}") from error
    return net.to(device).eval().requires_grad_(False)
