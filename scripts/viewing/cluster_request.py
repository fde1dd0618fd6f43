# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is asked of `ggdr clusters`, of one network or of a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ggdr.scripts.viewing.cluster_sheets import ClusterOptions, NetworkView
from ggdr.scripts.viewing.snapshot_features import DEFAULT_LAYERS, SnapshotFeatures, SnapshotNetworks
from ggdr.stylegan2.latent.sampling import Label
from ggdr.torch_utils.checkpoint import SnapshotError


@dataclass(frozen=True)
class ClusterRequest:
    """Which images and layers to look at, and how.

    Attributes:
        seeds:     of `ggdr generate`.
        layers:    resolutions of feature maps; None: those of DEFAULT_LAYERS that exist.
        label:     for a conditional network.
        psi:       truncation.
    """

    seeds: list[int]
    layers: list[int] | None
    label: Label
    psi: float
    batch_size: int
    options: ClusterOptions
    device: torch.device

    @property
    def captions(self) -> list[str]:
        return [f"seed {seed}" for seed in self.seeds]

    def layers_in(self, networks: Sequence[SnapshotNetworks]) -> list[int]:
        """The layers to show; raises SnapshotError if a network lacks one."""
        if self.layers is None:
            return [res for res in DEFAULT_LAYERS if all(res in net.layers for net in networks)]
        for net in networks:
            missing = [res for res in self.layers if res not in net.layers]
            if missing:
                have = ", ".join(map(str, net.layers))
                raise SnapshotError(f"--layers: {net.path} has feature maps of {have} pixels, got {missing[0]}")
        return self.layers

    def features_of(
        self, net: SnapshotNetworks, layers: Sequence[int], on_images: Callable[[int], None] = lambda done: None
    ) -> SnapshotFeatures:
        """What a snapshot's networks compute; `on_images` hears how many images are done."""
        how = {"label": self.label, "psi": self.psi, "batch_size": self.batch_size}
        return net.of_seeds(self.seeds, layers, **how, on_images=on_images)


def describe_clusters(views: Sequence[NetworkView], res: int) -> str:
    """How many clusters there are at one resolution, and by which distance."""
    counts = sorted({len(view.clusters[res].centers) for view in views})
    how = "cosine" if views[0].clusters[res].spherical else "Euclidean"
    return f"{' and '.join(map(str, counts))} clusters by {how} distance"
