# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The work of `ggdr clusters --network`: what the networks of snapshots know, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.cluster_files import ClusterFolder, file_name
from ggdr.scripts.viewing.cluster_request import ClusterRequest, describe_clusters
from ggdr.scripts.viewing.cluster_sheets import (
    NetworkView,
    discriminator_rows,
    generator_rows,
    photograph_rows,
    sheet_of,
    view_network,
    view_photographs,
)
from ggdr.scripts.viewing.photographs import read_targets
from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks
from ggdr.torch_utils.checkpoint import SnapshotError

NEEDED_ROWS = {"generator": 1, "discriminator": 3, "photographs": 2}


def network_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The files' names, with their folders' where that is not enough to tell them apart."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}-{path.stem}" for path in paths]
    return tuple(names if len(set(names)) == len(names) else [f"{i}-{name}" for i, name in enumerate(names)])


def show_networks(
    networks: Sequence[SnapshotNetworks],
    names: Sequence[str],
    folder: ClusterFolder,
    request: ClusterRequest,
    photographs: tuple[list[str], Tensor] | None,
    progress: Progress,
) -> list[NetworkView]:
    """Sheets, maps and numbers of one or several snapshots; returns what is seen of each.

    Raises:
        SnapshotError: a network lacks a layer.
        ClusterError: features cannot be clustered as asked.
        OSError: a file cannot be written.
    """
    layers = request.layers_in(networks)
    views: list[NetworkView] = []
    photo_views: list[NetworkView] = []
    total = len(networks) * len(request.seeds)
    for i, (name, net) in enumerate(zip(names, networks, strict=True)):

        def on_images(done: int, before: int = i * len(request.seeds)) -> None:
            progress("images", before + done, total)

        seen = request.features_of(net, layers, on_images)
        view = view_network(name, seen, request.captions, request.options, like=views[0] if views else None)
        views.append(view)
        photo_view = None
        if photographs is not None:
            captions, images_u8 = photographs
            seen = net.of_images(images_u8, layers, batch_size=request.batch_size)
            photo_view = view_photographs(view, seen, captions)
            photo_views.append(photo_view)
        folder.add_maps(view, folder.path / file_name(name) if len(names) > 1 else folder.path, photo_view)
    progress("images", total, total)
    numbers = [found for view in views for found in view.numbers()]
    folder.add_numbers(numbers)

    for res in layers:
        how, at_res = describe_clusters(views, res), [found for found in numbers if found["layer"] == f"{res}x{res}"]
        for kind, rows_of, seen, note in (
            ("generator", generator_rows, views, None),
            ("discriminator", discriminator_rows, views, numbers_note(at_res)),
            ("photographs", photograph_rows, photo_views, "As the discriminator sees them"),
        ):
            rows = [rows_of(view, res) for view in seen]
            # Sheets about D need more than what the generator's shows: image and clusters.
            if any(len(of_network) >= NEEDED_ROWS[kind] for of_network in rows):
                title = f"{kind.capitalize()}, {res}x{res}"
                sheet = sheet_of(seen, rows, title=f"{title}: {how}", note=note)
                folder.add_sheet(f"{kind}-{res}x{res}.png", sheet, title, note)
    return views


def numbers_note(numbers: Sequence[Mapping[str, Any]]) -> str:
    """How well each discriminator knows the generator's clusters at one resolution, a line each."""
    return "\n".join((f"{found['network']}: " if len(numbers) > 1 else "") + in_words(found) for found in numbers)


def in_words(numbers: Mapping[str, Any]) -> str:
    """How well a discriminator knows the generator's clusters; nothing without a discriminator."""
    shared = {"prediction": numbers["nmi"], "D's own features": numbers["encoder_nmi"]}
    known = [f"{what} {value:.3f}" for what, value in shared.items() if value is not None]
    parts = [f"mutual information with the generator's clusters: {', '.join(known)}"] if known else []
    if numbers["cosine"] is not None:
        parts.append(f"mean cosine similarity of the prediction: {numbers['cosine']:.3f}")
    return "; ".join(parts)


def read_photographs(path: Path, networks: Sequence[SnapshotNetworks], most: int) -> tuple[list[str], Tensor]:
    """At most `most` images of a folder or zip, cropped to squares and resized to the networks' size.

    Returns:
        Their names, and uint8 [n, C, H, W].

    Raises:
        DataError: there is no image, or one cannot be read.
        SnapshotError: the networks are of different sizes, or one has no discriminator.
    """
    for net in networks:
        if net.D is None:
            raise SnapshotError(f"--images: {net.path} holds no discriminator, which looks at photographs")
        sizes = [(other.G.img_resolution, other.G.img_channels) for other in (net, networks[0])]
        if sizes[0] != sizes[1]:
            raise SnapshotError(f"--images: {net.path} and {networks[0].path} are of images of different sizes")
    G = networks[0].G
    targets = read_targets([path], G.img_resolution, G.img_channels, most=most)
    images = np.stack([target.image for target in targets])
    return [target.name for target in targets], torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
