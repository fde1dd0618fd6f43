# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Translators from snapshot files."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.snapshot_kinds import refuse_stylegan2
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import (
    NetworkConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.layers import batch_statistics
from ggdr.translation.networks import build_network

GeneratorConfig = ResnetGeneratorConfig | UnetGeneratorConfig


class Translator:
    """A generator as it is used after training: dropout on, batch norms with each image's own statistics.

    Args:
        G: a ResNet or U-Net generator.
    """

    def __init__(self, G: ResnetGenerator | UnetGenerator) -> None:
        self.G = G
        self.in_channels, self.out_channels = G.config.in_channels, G.config.out_channels

    @torch.no_grad()
    def __call__(self, img: Tensor, *, seed: int = 0) -> Tensor:
        """Translates images, one at a time as published.

        Args:
            img:  [N, in_channels, H, W] float32 in [-1, 1], of any size, on any device.
            seed: image i has the dropout of seed + i.

        Returns:
            [N, out_channels, H, W] float32 in [-1, 1] on the CPU.
        """
        device = next(self.G.parameters()).device
        with batch_statistics(self.G):
            parts = [self.G(x.to(device), torch.tensor([seed + i])).cpu() for i, x in enumerate(img.split(1))]
        return torch.cat(parts)


def load_translator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Translator:
    """The generator of a snapshot of `ggdr translate train`.

    Example:
        >>> translate = load_translator("network-snapshot-000080.safetensors")
        >>> img = translate(torch.zeros(1, 3, 90, 130))  # [1, 3, 90, 130] float32 in [-1, 1]

    Raises:
        SnapshotError: the file is missing, damaged, or no snapshot of a translation between two kinds of images.
    """
    snapshot = load_snapshot(path)
    G = _config(snapshot, "G", (ResnetGeneratorConfig, UnetGeneratorConfig))
    return Translator(restore_network(lambda: build_network(G), snapshot, "G", device))


def network_configs(snapshot: Snapshot) -> tuple[GeneratorConfig, PatchDiscriminatorConfig]:
    """The settings of G and D, to train them further; raises SnapshotError if they are none of pix2pix."""
    G = _config(snapshot, "G", (ResnetGeneratorConfig, UnetGeneratorConfig))
    if "D" not in snapshot.config:
        raise SnapshotError(
            f"{snapshot.path}: holds {printable(', '.join(snapshot.networks))}, but no D; training goes on with both "
            "networks, so that it can only start from a snapshot that has a discriminator"
        )
    return G, _config(snapshot, "D", (PatchDiscriminatorConfig,))


def _config(snapshot: Snapshot, key: str, kinds: tuple[type[NetworkConfig], ...]) -> NetworkConfig:
    refuse_stylegan2(snapshot)
    try:
        config = config_from_json(snapshot.config.get(key))
    except ValueError as error:
        reason = printable(error)
        raise SnapshotError(f"{snapshot.path}: settings of {key} do not describe a pix2pix: {reason}") from error
    if not isinstance(config, kinds):
        expected = " or ".join(kind.network for kind in kinds)
        raise SnapshotError(f"{snapshot.path}: {key} is a {config.network}, expected a {expected}")
    return config
