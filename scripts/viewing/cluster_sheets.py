# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr clusters` shows of one network: its clusters, and the sheets, maps and numbers made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr.clusters import (
    Clusters,
    choose_number,
    continue_clusters,
    fit_clusters,
    match_appearance,
    match_overlap,
    mutual_information,
    resized_labels,
)
from ggdr.label_images import label_image, overlay
from ggdr.scripts.viewing.snapshot_features import SnapshotFeatures, cosine_maps
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.pictures.sheets import as_rgb, contact_sheet, thumbnail

PER_LINE = 8  # images beside each other
MOST_SHOWN = 16  # images on a sheet


class ClusterError(ValueError):
    """Feature maps that cannot be clustered as asked; the message says why."""


@dataclass(frozen=True)
class ClusterOptions:
    """How features are clustered.

    Attributes:
        num:       clusters; None chooses by silhouette, for each layer.
        spherical: cosine distance.
        seed:      of k-means.
    """

    num: int | None
    spherical: bool
    seed: int

    def go_on(self, feats: Tensor, labels: Tensor, where: str) -> Clusters:
        """K-means on [N, C, H, W] that goes on from labels of the same latents; afresh if a cluster dies out."""
        try:
            return continue_clusters(feats, labels, spherical=self.spherical)
        except ValueError:
            clusters = self.fit(feats, where, len(labels.unique()))
            return clusters.renumbered(match_overlap(clusters.labels(feats).cpu(), labels, len(clusters.centers)))

    def fit(self, feats: Tensor, where: str, num: int | None = None) -> Clusters:
        """K-means on [N, C, H, W]; `num` overrides the number of clusters, `where` names the layer in errors."""
        try:
            num = num or self.num
            if num is None:
                scores = choose_number(feats, spherical=self.spherical, seed=self.seed)
                num = max(scores, key=scores.__getitem__)
            return fit_clusters(feats, num, spherical=self.spherical, seed=self.seed)
        except ValueError as error:
            raise ClusterError(f"{where}: {error}") from error


@dataclass
class NetworkView:
    """The clusters of one network's feature maps, and the labels they give to its own images.

    Attributes:
        name:      of the network, as sheets show it.
        captions:  of the images.
        images:    [N, H, W, C] uint8.
        clusters:  of G's features by resolution.
        generator: labels [N, res, res] int64 by resolution; on the CPU, as all that follow.
        predicted: the decoder's prediction in G's clusters.
        cosine:    its cosine similarity with G's features, [N, res, res] in [-1, 1].
        encoders:  clusters of D's own features, in colours that agree best with G's.
        encoder:   their labels.
        pictures:  the first images, at a size to look at.
    """

    name: str
    captions: list[str]
    images: np.ndarray
    clusters: dict[int, Clusters] = field(default_factory=dict)
    generator: dict[int, Tensor] = field(default_factory=dict)
    predicted: dict[int, Tensor] = field(default_factory=dict)
    cosine: dict[int, Tensor] = field(default_factory=dict)
    encoders: dict[int, Clusters] = field(default_factory=dict)
    encoder: dict[int, Tensor] = field(default_factory=dict)
    pictures: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.pictures = [thumbnail(as_rgb(image)) for image in self.images[:MOST_SHOWN]]

    def numbers(self) -> list[dict[str, Any]]:
        """For each resolution: clusters, and how well D knows them."""
        return [
            {
                "network": self.name,
                "layer": f"{res}x{res}",
                "clusters": len(clusters.centers),
                "nmi": _known(self.predicted, res, lambda labels, res=res: self._shared(labels, res)),
                "cosine": _known(self.cosine, res, lambda cosine: cosine.mean().item()),
                "encoder_nmi": _known(self.encoder, res, lambda labels, res=res: self._shared(labels, res)),
            }
            for res, clusters in self.clusters.items()
        ]

    def _shared(self, labels: Tensor, res: int) -> float:
        return mutual_information(labels, self.generator[res])


def view_network(
    name: str,
    seen: SnapshotFeatures,
    captions: Sequence[str],
    options: ClusterOptions,
    *,
    like: NetworkView | None = None,
    same_latents: bool = False,
) -> NetworkView:
    """Clusters what a network computed for its own images.

    Colours agree from layer to layer where their maps overlap most, from the coarsest up. `like` is a view whose
    colours to take over: if it is of the `same_latents` in another snapshot of one run, k-means goes on from its
    labels, else clusters pair up by what they look like and where they lie.

    Raises:
        ClusterError: more clusters than features allow, or features that are not finite.
    """
    view = NetworkView(name, list(captions), images_of(seen.img))
    previous: Tensor | None = None
    for res, feats in seen.generator.items():
        where, other = f"{name}, generator, {res}x{res}", None if like is None else like.generator.get(res)
        if other is not None and same_latents:
            clusters = options.go_on(feats, other, where)
        else:
            clusters = options.fit(feats, where)
            labels, num = clusters.labels(feats).cpu(), len(clusters.centers)
            if other is not None:
                looks = (labels, _float(view.images), other, _float(like.images))
                clusters = clusters.renumbered(match_appearance(*looks, num))
            elif previous is not None:
                clusters = clusters.renumbered(match_overlap(labels, previous, num))
        view.clusters[res] = clusters
        view.generator[res] = previous = clusters.labels(feats).cpu()
        if res in seen.predicted:
            view.predicted[res] = clusters.labels(seen.predicted[res]).cpu()
            view.cosine[res] = cosine_maps(seen.predicted[res], feats).cpu()
        if res in seen.encoder:
            num = len(clusters.centers)
            encoder = options.fit(seen.encoder[res], f"{name}, discriminator, {res}x{res}", num)
            mapping = match_overlap(encoder.labels(seen.encoder[res]).cpu(), previous, num)
            view.encoders[res] = encoder = encoder.renumbered(mapping)
            view.encoder[res] = encoder.labels(seen.encoder[res]).cpu()
    return view


def view_photographs(network: NetworkView, seen: SnapshotFeatures, captions: Sequence[str]) -> NetworkView:
    """What the same network's discriminator sees in other images, in the clusters of its own."""
    view = NetworkView(network.name, list(captions), images_of(seen.img), network.clusters)
    for res, pred in seen.predicted.items():
        view.predicted[res] = network.clusters[res].labels(pred).cpu()
    for res, feats in seen.encoder.items():
        view.encoder[res] = network.encoders[res].labels(feats).cpu()
    return view


def images_of(img: Tensor) -> np.ndarray:
    """[N, C, H, W] float -> [N, H, W, C] uint8."""
    return to_u8(img).cpu().permute(0, 2, 3, 1).numpy()


Rows = list[tuple[str, list[np.ndarray]]]  # the name of each row, and its pictures


def generator_rows(view: NetworkView, res: int) -> Rows:
    """Image, clusters, and clusters over the image."""
    labels = view.generator[res]
    return [
        ("image", view.pictures),
        ("clusters", label_pictures(view, labels)),
        ("over the image", overlays(view, labels)),
    ]


def discriminator_rows(view: NetworkView, res: int) -> Rows:
    """Image, G's clusters, what the decoder predicts of them, and where it is right."""
    rows = [("image", view.pictures), ("generator", label_pictures(view, view.generator[res]))]
    if res in view.predicted:
        rows.append(("decoder's prediction", label_pictures(view, view.predicted[res])))
        rows.append(("cosine similarity,\ndark 0, bright 1", heat_pictures(view, view.cosine[res])))
    if res in view.encoder:
        rows.append(("discriminator's\nown features", label_pictures(view, view.encoder[res])))
    return rows


def photograph_rows(view: NetworkView, res: int) -> Rows:
    """Photograph, and what decoder and encoder see in it."""
    rows = [("photograph", view.pictures)]
    if res in view.predicted:
        rows.append(("decoder", label_pictures(view, view.predicted[res])))
        rows.append(("over the image", overlays(view, view.predicted[res])))
    if res in view.encoder:
        rows.append(("discriminator's\nown features", label_pictures(view, view.encoder[res])))
    return rows


def sheet_of(views: Sequence[NetworkView], rows: Sequence[Rows], *, title: str, note: str | None) -> np.ndarray:
    """Rows of several networks below each other, eight images wide, of the first images; [H, W, 3] uint8."""
    cells: list[list[np.ndarray | None]] = []
    names: list[str] = []
    shown = len(views[0].pictures)
    for start in range(0, shown, PER_LINE):
        for view, of_network in zip(views, rows, strict=True):
            for i, (name, found) in enumerate(of_network):
                prefix = f"{view.name}\n" if len(views) > 1 and i == 0 else ""
                names.append(prefix + name)
                cells.append(found[start : start + PER_LINE])
    columns = views[0].captions if shown <= PER_LINE else None
    return contact_sheet(cells, rows=names, columns=columns, title=title, note=note)


def label_pictures(view: NetworkView, labels: Tensor) -> list[np.ndarray]:
    """Label maps in colours, as large as the images."""
    sizes = [picture.shape[1::-1] for picture in view.pictures]
    return [np.asarray(label_image(x, size).convert("RGB")) for x, size in zip(labels, sizes, strict=False)]


def overlays(view: NetworkView, labels: Tensor) -> list[np.ndarray]:
    """Label maps over the images."""
    return [overlay(image, x) for image, x in zip(view.pictures, labels, strict=False)]


def heat_pictures(view: NetworkView, values: Tensor) -> list[np.ndarray]:
    """Numbers from 0 (dark) to 1 (bright) as colours, as large as the images."""
    from matplotlib import colormaps

    found = []
    for value, picture in zip(values, view.pictures, strict=False):
        index = (value.clamp(0, 1) * 255).round().long()
        index = resized_labels(index[None], picture.shape[:2])[0].numpy()
        found.append((colormaps["viridis"](index.astype(np.uint8))[..., :3] * 255).astype(np.uint8))
    return found


def _float(images: np.ndarray) -> Tensor:
    """[N, H, W, C] uint8 -> [N, C, H, W] float in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _known(maps: dict[int, Any], res: int, number) -> float | None:
    return round(number(maps[res]), 4) if res in maps else None
