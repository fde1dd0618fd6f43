# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Translators from snapshot files."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import (
    NetworkConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.data.labels import LabelClasses, classes_from_json
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.layers import batch_statistics
from ggdr.translation.networks import build_network

GENERATORS = (ResnetGeneratorConfig, UnetGeneratorConfig)
DISCRIMINATORS = (PatchDiscriminatorConfig,)


class Translator:
    """A generator as it is used after training: dropout on, batch norms with each image's own statistics.

    Args:
        G:      a ResNet or U-Net generator.
        labels: the classes, if it makes images of label maps: `label_maps.to_input` gives what it takes.
    """

    def __init__(self, G: ResnetGenerator | UnetGenerator, labels: LabelClasses | None = None) -> None:
        self.G, self.labels = G, labels
        self.in_channels, self.out_channels = G.config.in_channels, G.config.out_channels

    @torch.no_grad()
    def __call__(self, img: Tensor, *, seed: int = 0) -> Tensor:
        """Translates images, one at a time as published.

        Args:
            img:  [N, in_channels, H, W] float32 in [-1, 1], or 0 and 1 of label maps, of any size, on any device.
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
    G = _config(snapshot, "G", GENERATORS)
    labels = label_classes(snapshot, G)
    return Translator(restore_network(lambda: build_network(G), snapshot, "G", device), labels)


def label_classes(snapshot: Snapshot, G: NetworkConfig) -> LabelClasses | None:
    """The classes of the label maps that a generator takes; None of one that takes images.

    Raises:
        SnapshotError: what stands there are no classes, or not as many as the generator has channels.
    """
    stored = snapshot.config.get("labels")
    try:
        labels = None if stored is None else classes_from_json(stored)
    except ValueError as error:
        raise SnapshotError(f"{snapshot.path}: classes of label maps are damaged: {printable(error)}") from error
    if labels is not None and labels.num != G.in_channels:
        raise SnapshotError(f"{snapshot.path}: label maps of {labels.num} classes, and a G of {G.in_channels} channels")
    return labels


def network_configs(
    snapshot: Snapshot, kinds: Mapping[str, tuple[type[NetworkConfig], ...]]
) -> dict[str, NetworkConfig]:
    """The settings of networks, by name; raises SnapshotError if one is missing or of another kind than those given."""
    return {key: _config(snapshot, key, allowed) for key, allowed in kinds.items()}


def _config(snapshot: Snapshot, key: str, kinds: tuple[type[NetworkConfig], ...]) -> NetworkConfig:
    try:
        config = config_from_json(snapshot.config.get(key))
    except ValueError as error:
        reason = printable(error)
        raise SnapshotError(
            f"{snapshot.path}: settings of {key} describe no network of translation: {reason}"
        ) from error
    if not isinstance(config, kinds):
        expected = " or ".join(kind.network for kind in kinds)
        raise SnapshotError(f"{snapshot.path}: {key} is a {config.network}, expected a {expected}")
    return config
