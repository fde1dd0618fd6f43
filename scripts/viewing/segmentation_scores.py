# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Feature maps judged as segmentations: their clusters, and a linear probe, against label maps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.clusters import Clusters, resized_labels
from ggdr.metrics.linear_probe import fit_linear_probe
from ggdr.metrics.segmentation import (
    adjusted_mutual_information,
    adjusted_rand_index,
    assign_clusters,
    assigned_iou,
    confusion,
    mean_iou,
)
from ggdr.scripts.studies.statistics import sample_sd
from ggdr.scripts.viewing.cluster_sheets import ClusterError, ClusterOptions
from ggdr.torch_utils.pictures.images import from_u8

REPEATS = 5  # seeds of k-means, or halves of the images that a probe learns from
CLUSTERED, PROBED, PREDICTED = "k-means", "linear probe", "prediction"
SCORES = ("miou", "ari", "ami")


@dataclass(frozen=True)
class Judged:
    """How well one kind of maps agrees with label maps.

    Attributes:
        network:  whose features these are; empty for what needs none.
        features: which these are.
        images:   that were judged: "real" or "generated".
        layer:    resolution of the maps.
        method:   CLUSTERED, PROBED, or PREDICTED for classes that a network names by itself.
        clusters: how many; None without.
        values:   of each score, in each repeat; ARI and AMI are of clusters alone.
    """

    network: str
    features: str
    images: str
    layer: int
    method: str
    clusters: int | None = None
    values: dict[str, list[float]] = field(default_factory=dict)

    def numbers(self) -> dict[str, Any]:
        """As a row of a table: mean and sample standard deviation of each score, None for what there is not."""
        found: dict[str, Any] = {
            "network": self.network,
            "features": self.features,
            "images": self.images,
            "layer": f"{self.layer}x{self.layer}",
            "method": self.method,
            "clusters": self.clusters,
            "repeats": len(self.values["miou"]),
        }
        for name in SCORES:
            values = self.values.get(name, [])
            sd = sample_sd(values)
            found[name] = round(statistics.fmean(values), 4) if values else None
            found[f"{name}_sd"] = None if sd is None else round(sd, 4)
        return found


@dataclass(frozen=True)
class Truth:
    """The label maps of some images.

    Attributes:
        label_maps: [N, H, W] uint8: classes from 0, or IGNORED.
        classes:    how many there are.
    """

    label_maps: Tensor
    classes: int

    def counts(self, labels: Tensor, num: int, part: Any = slice(None)) -> Tensor:
        """Pixels of each class by labels [N, h, w] enlarged to the label maps (nearest neighbour): [classes, num]."""
        label_maps = self.label_maps[part]
        return confusion(label_maps, resized_labels(labels, label_maps.shape[1:]), self.classes, num)


def fit_repeats(feats: Tensor, num: int, options: ClusterOptions, where: str) -> list[Clusters]:
    """K-means on [N, C, H, W] from REPEATS seeds on; raises ClusterError, in which `where` names the features."""
    seeds = [(options.seed + i) % 2**32 for i in range(REPEATS)]
    return [replace(options, num=num, seed=seed).fit(feats, where) for seed in seeds]


def judge_clusters(repeats: Sequence[Clusters], feats: Tensor, truth: Truth) -> tuple[dict[str, list[float]], Tensor]:
    """How well clusters agree with label maps.

    Args:
        repeats: of one number of clusters.
        feats:   [N, C, h, w], of the images of the label maps.

    Returns:
        The scores in each repeat, and the classes [N, h, w] that the first one's clusters are assigned to, IGNORED
        for clusters that are left over.
    """
    values: dict[str, list[float]] = {name: [] for name in SCORES}
    shown = None
    for clusters in repeats:
        labels = clusters.labels(feats).cpu()
        counts = truth.counts(labels, len(clusters.centers))
        shown = assign_clusters(counts)[labels] if shown is None else shown
        for name, score in zip(SCORES, (assigned_iou, adjusted_rand_index, adjusted_mutual_information), strict=True):
            values[name].append(score(counts))
    return values, shown


def judge_probe(feats: Tensor, truth: Truth, seed: int, where: str) -> dict[str, list[float]]:
    """Mean IoU of a linear classifier that learns from a random half of the images, in the other half.

    Args:
        feats: [N, C, h, w], of the images of the label maps.
        seed:  of the first half; those of the other repeats follow.

    Raises:
        ClusterError: it cannot learn; `where` names the features.
    """
    values = []
    for i in range(REPEATS):
        order = torch.from_numpy(np.random.default_rng(seed + i).permutation(len(feats)))
        learnt, judged = order[: len(order) // 2], order[len(order) // 2 :]
        try:
            probe = fit_linear_probe(feats[learnt.to(feats.device)], truth.label_maps[learnt], truth.classes)
        except ValueError as error:
            raise ClusterError(f"{where}: {error}") from error
        counts = truth.counts(probe.labels(feats[judged.to(feats.device)]), truth.classes, judged)
        if not counts.sum():
            raise ClusterError(f"{where}: no pixel of the label maps has a class in one half of the images")
        values.append(mean_iou(counts))
    return {"miou": values}


def judge_classes(labels: Tensor, truth: Truth) -> dict[str, list[float]]:
    """Mean IoU of classes [N, h, w] that a network names by itself."""
    return {"miou": [mean_iou(truth.counts(labels, truth.classes))]}


def pixel_features(images_u8: Tensor, res: int) -> Tensor:
    """Colour and place of pixels, for a baseline that sees nothing else.

    Args:
        images_u8: [N, C, H, W] uint8.
        res:       side of the maps; images are averaged over the pixels of each of theirs.

    Returns:
        [N, C + 2, res, res] float32: colours, and column and row, each from -1 to 1 across the whole range.
    """
    img = F.interpolate(from_u8(images_u8), size=(res, res), mode="area")
    line = torch.linspace(-1, 1, res)
    place = torch.stack(torch.meshgrid(line, line, indexing="xy"))
    return torch.cat([img, place.expand(len(img), -1, -1, -1)], dim=1)
