# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The work of `ggdr clusters --labels`: feature maps of networks, and baselines, judged as segmentations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ggdr.metrics.segmenter import load_segmenter
from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.progress import Progress
from ggdr.scripts.options.segmenter import SEGMENTER
from ggdr.scripts.viewing.cluster_files import ClusterFolder
from ggdr.scripts.viewing.cluster_request import ClusterRequest
from ggdr.scripts.viewing.labelled_images import LabelledImages
from ggdr.scripts.viewing.segmentation_scores import (
    CLUSTERED,
    PREDICTED,
    PROBED,
    Judged,
    Truth,
    fit_repeats,
    judge_classes,
    judge_clusters,
    judge_probe,
    pixel_features,
)
from ggdr.scripts.viewing.segmentation_sheets import Shown, segmentation_sheet
from ggdr.scripts.viewing.snapshot_features import SEMANTIC, SnapshotNetworks
from ggdr.torch_utils.pictures.images import to_u8

SCORES_FILE = "segmentation.csv"
Segment = Callable[[Tensor], Tensor]  # images [N, C, H, W] uint8 -> classes [N, H, W] uint8, on the CPU


def open_segmenter(text: Path | str, reals: LabelledImages, device: torch.device) -> Segment:
    """What --segmenter names, for such images.

    Raises:
        WeightsError: it cannot be loaded.
        OptionError: it cannot see these images, or tells other classes apart than their label maps.
    """
    segmenter = load_segmenter(text, device)
    try:
        segmenter.check(reals.images_u8[:1].to(device), reals.classes)
    except ValueError as error:
        raise OptionError(SEGMENTER, str(error)) from error
    return lambda images_u8: segmenter.of_files(images_u8.to(device)).argmax(dim=1).to(torch.uint8).cpu()


@dataclass
class SegmentationJudge:
    """Judges networks against label maps, layer by layer: only one layer's features are held at a time.

    Attributes:
        networks: by name.
        reals:    images with label maps.
        request:  seeds, batch and clustering; its number of clusters is not used.
        counts:   numbers of clusters.
        segment:  says which classes G's images show; None leaves G's own rows out.
        judged:   what has been found, a row each.
    """

    networks: dict[str, SnapshotNetworks]
    reals: LabelledImages
    request: ClusterRequest
    counts: Sequence[int]
    segment: Segment | None
    judged: list[Judged] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._truth = Truth(self.reals.label_maps, self.reals.classes.num)

    def judge_segmenter(self) -> None:
        """The segmenter itself, on the real images."""
        labels = self._segmented(self.reals.images_u8)
        values = judge_classes(labels.long(), self._truth)
        self._add(Judged("", "segmenter", "real", labels.shape[1], PREDICTED, values=values))

    def judge_layer(self, res: int) -> tuple[list[Shown], list[Shown]]:
        """All maps of one resolution; pictures of those of the real images, and of G's."""
        shown, generated = [], []
        for name, net in self.networks.items():
            decoders = [decoder for decoder in net.decoders if res in net.guides(decoder)]
            if decoders or self.segment is not None:
                generated += self._judge_generator(name, net, res, decoders, shown)
            if net.semantic is not None and net.semantic.size == (res, res):
                labels = net.label_maps_of(self.reals.images_u8, batch_size=self.request.batch_size)
                values = judge_classes(labels, self._truth)
                self._add(Judged(name, f"{SEMANTIC} decoder", "real", res, PREDICTED, values=values), labels, shown)
            self._judge_discriminator(name, "discriminator", net, res, shown)
        pixels = pixel_features(self.reals.images_u8, res).to(self.request.device)
        self._judge_clusters("", "pixels", pixels, res, shown, spherical=False)
        for name, net in self._different_shapes().items():
            untrained = net.untrained(self.request.options.seed)
            self._judge_discriminator(name, "untrained discriminator", untrained, res, shown)
        return shown, generated

    def _judge_generator(
        self, name: str, net: SnapshotNetworks, res: int, decoders: Sequence[str], shown: list[Shown]
    ) -> list[Shown]:
        """G's clusters, in which decoders predict real images; and, by the segmenter, in G's own images.

        Returns rows about G's images; those about real ones are added to `shown`.
        """
        seen = self.request.features_of(net, [res])
        feats, options, where = seen.generator[res], self.request.options, self._where(name, "generator", res)
        repeats = {num: fit_repeats(feats, num, options, where) for num in self.counts}
        for decoder in decoders:
            how = {"batch_size": self.request.batch_size, "decoder": decoder}
            pred = net.of_images(self.reals.images_u8, [res], **how).predicted[res]
            for num in self.counts:
                values, labels = judge_clusters(repeats[num], pred, self._truth)
                self._add(Judged(name, f"{decoder} decoder", "real", res, CLUSTERED, num, values), labels, shown)
        if self.segment is None:
            return []
        images_u8 = to_u8(seen.img).cpu()
        truth = replace(self._truth, label_maps=self._segmented(images_u8))
        generated = [Shown(self._row_name(name, "image"), picture=images_u8)]
        generated.append(Shown("segmenter", truth.label_maps))
        for num in self.counts:
            values, labels = judge_clusters(repeats[num], feats, truth)
            self._add(Judged(name, "generator", "generated", res, CLUSTERED, num, values), labels, generated)
        values = judge_probe(feats, truth, options.seed, where)
        self._add(Judged(name, "generator", "generated", res, PROBED, values=values))
        return generated

    def _judge_discriminator(
        self, name: str, features: str, net: SnapshotNetworks, res: int, shown: list[Shown]
    ) -> None:
        """D's own features of the real images: their clusters, and what is linear in them."""
        feats = net.of_images(self.reals.images_u8, [res], batch_size=self.request.batch_size).encoder.get(res)
        if feats is None:
            return
        self._judge_clusters(name, features, feats, res, shown)
        values = judge_probe(feats, self._truth, self.request.options.seed, self._where(name, features, res))
        self._add(Judged(name, features, "real", res, PROBED, values=values))

    def _judge_clusters(
        self, name: str, features: str, feats: Tensor, res: int, shown: list[Shown], *, spherical: bool | None = None
    ) -> None:
        """Clusters of features of the real images."""
        options = self.request.options
        options = options if spherical is None else replace(options, spherical=spherical)
        where = self._where(name, features, res)
        for num in self.counts:
            values, labels = judge_clusters(fit_repeats(feats, num, options, where), feats, self._truth)
            self._add(Judged(name, features, "real", res, CLUSTERED, num, values), labels, shown)

    def _segmented(self, images_u8: Tensor) -> Tensor:
        """What the segmenter says of images [N, C, H, W] uint8: [N, H, W] uint8."""
        return torch.cat([self.segment(part) for part in images_u8.split(self.request.batch_size)])

    def _different_shapes(self) -> dict[str, SnapshotNetworks]:
        """Networks whose untrained D differ, by name; without a name if there is but one."""
        found: dict[str, SnapshotNetworks] = {}
        for name, net in self.networks.items():
            if all(net.D.config != other.D.config for other in found.values()):
                found[name] = net
        return found if len(found) > 1 else {"": next(iter(found.values()))}

    def _add(self, row: Judged, labels: Tensor | None = None, shown: list[Shown] | None = None) -> None:
        """Keeps a row, and its maps as a row of a sheet if they are of the first number of clusters."""
        self.judged.append(row)
        if labels is not None and row.clusters in (None, self.counts[0]):
            name = self._row_name(row.network, row.features)
            shown.append(Shown(f"{name}\nmIoU {row.numbers()['miou']:.3f}", labels))

    @staticmethod
    def _where(name: str, features: str, res: int) -> str:
        """What errors call feature maps."""
        return ", ".join(filter(None, [name, features, f"{res}x{res}"]))

    def _row_name(self, network: str, what: str) -> str:
        return f"{network}\n{what}" if network and len(self.networks) > 1 else what


def judge_networks(
    networks: Sequence[SnapshotNetworks],
    names: Sequence[str],
    folder: ClusterFolder,
    request: ClusterRequest,
    reals: LabelledImages,
    counts: Sequence[int],
    segment: Segment | None,
    progress: Progress,
) -> list[Judged]:
    """Judges everything, and writes segmentation.csv and a sheet of each resolution.

    Raises:
        SnapshotError: a network lacks a layer.
        ClusterError: features cannot be clustered as asked.
        OSError: a file cannot be written.
    """
    layers = request.layers_in(networks)
    judge = SegmentationJudge(dict(zip(names, networks, strict=True)), reals, request, counts, segment)
    if segment is not None:
        judge.judge_segmenter()
    for done, res in enumerate(layers):
        progress("layers", done, len(layers))
        shown, generated = judge.judge_layer(res)
        how = f"{counts[0]} clusters, in the colours of the classes that they are taken for"
        rows = [Shown("image", picture=reals.images_u8), Shown("label map", reals.label_maps), *shown]
        for kind, found in (("segmentation", rows), ("segmentation-generated", generated)):
            if found:
                title = f"{kind.replace('-', ', ').capitalize()}, {res}x{res}"
                sheet = segmentation_sheet(found, reals.classes, f"{title}: {how}")
                folder.add_sheet(f"{kind}-{res}x{res}.png", sheet, title)
    progress("layers", len(layers), len(layers))
    folder.add_numbers([row.numbers() for row in judge.judged], file_name=SCORES_FILE)
    return judge.judged
