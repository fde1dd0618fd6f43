# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks that can be had by name: where they are published, and how they come into the cache as snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggdr.scripts.errors import CliError

if TYPE_CHECKING:
    from ggdr.torch_utils.downloads import WeightsFile

ADDRESS = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
LICENCE = "NVIDIA Source Code License, for non-commercial use only"


@dataclass(frozen=True)
class PublishedNetwork:
    """A file below ADDRESS; SHA-256 and size where they are known."""

    path: str
    images: str
    sha256: str | None = None
    size: int | None = None


_SOURCES = "transfer-learning-source-nets"
NETWORKS = {
    "ffhq256": PublishedNetwork(f"{_SOURCES}/ffhq-res256-mirror-paper256-noaug.pkl", "faces, 256x256"),
    "ffhq512": PublishedNetwork(f"{_SOURCES}/ffhq-res512-mirror-stylegan2-noaug.pkl", "faces, 512x512"),
    "ffhq1024": PublishedNetwork(f"{_SOURCES}/ffhq-res1024-mirror-stylegan2-noaug.pkl", "faces, 1024x1024"),
    "celebahq256": PublishedNetwork(
        f"{_SOURCES}/celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl", "faces, 256x256"
    ),
    "lsundog256": PublishedNetwork(f"{_SOURCES}/lsundog-res256-paper256-kimg100000-noaug.pkl", "dogs, 256x256"),
    "ffhq": PublishedNetwork(
        "ffhq.pkl",
        "faces, 1024x1024",
        "a205a346e86a9ddaae702e118097d014b7b8bd719491396a162cca438f2f524c",
        381_624_121,
    ),
    "metfaces": PublishedNetwork("metfaces.pkl", "paintings, 1024x1024"),
    "afhqcat": PublishedNetwork("afhqcat.pkl", "cats, 512x512"),
    "afhqdog": PublishedNetwork("afhqdog.pkl", "dogs, 512x512"),
    "afhqwild": PublishedNetwork("afhqwild.pkl", "wild animals, 512x512"),
    "cifar10": PublishedNetwork("cifar10.pkl", "CIFAR-10, 32x32, by class"),
    "brecahad": PublishedNetwork("brecahad.pkl", "tissue, 512x512"),
}


def network_name(text: str) -> str | None:
    """The published network that a text is the name or the address of; None if of none."""
    addresses = {f"{ADDRESS}/{network.path}": name for name, network in NETWORKS.items()}
    return text if text in NETWORKS else addresses.get(text)


def weights_file(name: str) -> WeightsFile:
    """The file of a published network."""
    from ggdr.torch_utils.downloads import WeightsFile

    network = NETWORKS[name]
    return WeightsFile(
        name=network.path.rpartition("/")[2],
        urls=(f"{ADDRESS}/{network.path}",),
        sha256=network.sha256,
        size=network.size,
        what=f"the network {name} ({network.images})",
        by_hand="import it from where it is: ggdr import-weights FILE.pkl FILE.safetensors",
        licence=f"it is published under the {LICENCE}",
    )


def snapshot_of(name: str, *, download: bool = True) -> Path:
    """The snapshot of a published network in the cache, downloaded and imported if it is not there.

    Raises:
        CliError: it cannot be had, with how to get it by hand; or it is not what it should be.
    """
    from ggdr.scripts.importing.read_foreign import import_file
    from ggdr.stylegan2.weights.common import ForeignNetworkError
    from ggdr.torch_utils.downloads import WeightsError, exclusive, find_hashed

    file = weights_file(name)
    try:
        source, sha256 = find_hashed(file, download=download)
    except WeightsError as error:
        raise CliError(str(error)) from error
    # The digest in its name: another file of the same name has a snapshot of its own.
    snapshot = source.with_name(f"{source.stem}-{sha256[:8]}.safetensors")
    with exclusive(snapshot):
        if not snapshot.exists():
            try:
                import_file(source, snapshot, url=file.urls[0], sha256=sha256)
            except ForeignNetworkError as error:
                raise CliError(f"{source}: {error}") from error
    return snapshot
