# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of pix2pix, and how the options of `ggdr translate train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.translation import GENERATORS, parse_epochs
from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings import RunSettings, resolve_batch_gpu, resolve_metrics, resolve_patience
from ggdr.torch_utils.loop import LoopConfig
from ggdr.translation.attachment import guide_layers
from ggdr.translation.config import (
    PatchDiscriminatorConfig,
    Pix2PixConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.labels import LabelClasses
from ggdr.translation.networks import build_network
from ggdr.translation.presets import PIX2PIX_PRESETS, Pix2PixPreset

NAME = "pix2pix"
UNET_DOWNS = (5, 8)  # fewest and most that are taken from the size of the images
LARGE = 256  # pixels, from which on a ResNet has 9 blocks in place of 6

GeneratorConfig = ResnetGeneratorConfig | UnetGeneratorConfig
Networks = tuple[GeneratorConfig, PatchDiscriminatorConfig]


@dataclass(frozen=True)
class PairSettings:
    """The training set, and what was found in it."""

    path: str
    direction: str
    channels: int
    num_images: int
    fingerprint: str
    workers: int | None


@dataclass(frozen=True)
class Pix2PixSettings(RunSettings):
    """Everything that decides what a run of pix2pix computes."""

    data: PairSettings
    metrics_data: str | None  # what metrics are measured on, if it is not the data
    crop: CropConfig
    G: GeneratorConfig
    D: PatchDiscriminatorConfig
    optim: Pix2PixConfig
    labels: LabelClasses | None = field(default=None, kw_only=True)  # of inputs that are label maps

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings; networks as `config_from_json` takes them."""
        return {**super().to_json(), "G": self.G.to_json(), "D": self.D.to_json()}


def resolve_settings(
    command: Mapping[str, Any],
    data: PairedImages,
    *,
    default_metrics: str,
    num_processes: int,
    init_snapshot: str | None,
    start: Networks | None = None,
) -> Pix2PixSettings:
    """Fills in what the command line leaves open.

    Args:
        command:       the options of `ggdr translate train` by parameter name; None where not given.
        default_metrics: what is measured if the options do not say it.
        init_snapshot: the snapshot that the weights come from, or None.
        start:         its networks, which come before those of preset and command line.

    Raises:
        OptionError: a value that cannot be used, with the option's name.
    """
    p = PIX2PIX_PRESETS[command["cfg"]]
    crop = CropConfig(command["crop"] or p.crop, command["enlarge"], command["fit"], command["mirror"])
    G, D = start or _networks(command, p, crop, [side.planes for side in data.sides])
    if crop.size < 3 * 2**D.layers:
        raise OptionError(
            "--crop",
            f"a discriminator of {D.layers} layers takes images from {3 * 2**D.layers} pixels up, got {crop.size}; "
            "fewer --d-layers take smaller ones",
        )
    batch = p.batch if command["batch"] is None else command["batch"]
    constant, falling = _lengths(command, p, data.num_images)
    tick, snap = command["tick"], command["snap"]
    metrics = resolve_metrics(default_metrics if command["metrics"] is None else command["metrics"])
    return Pix2PixSettings(
        host=NAME,
        cfg=command["cfg"],
        data=PairSettings(
            str(command["data"]),
            command["direction"],
            int(command["img_channels"]),
            data.num_images,
            data.fingerprint()[:16],
            p.workers if command["workers"] is None else command["workers"],
        ),
        metrics_data=None if command["metrics_data"] is None else str(command["metrics_data"]),
        crop=crop,
        G=G,
        D=D,
        optim=Pix2PixConfig(
            constant,
            falling,
            gan_loss=command["gan_loss"],
            l1_weight=command["l1_weight"],
            lr=p.lr if command["lr"] is None else command["lr"],
        ),
        regularizers=resolve_regularizers(command, crop.size, _guides(G, D, crop.size) if command["ggdr"] else []),
        loop=LoopConfig(
            total_nimg=constant + falling,
            batch=batch,
            batch_gpu=resolve_batch_gpu(batch, None, num_processes),
            tick_nimg=round((p.tick_kimg if tick is None else tick) * 1000),
            snap_ticks=p.snap_ticks if snap is None else snap,
        ),
        precision="fp32",
        num_processes=num_processes,
        seed=command["seed"],
        init_snapshot=init_snapshot,
        init_source=None,
        metrics=metrics,
        patience=resolve_patience(command["patience"], metrics),
        deterministic=command["deterministic"],
        labels=data.sides[0].classes,
    )


def _networks(command: Mapping[str, Any], p: Pix2PixPreset, crop: CropConfig, channels: list[int]) -> Networks:
    """Those of the options and the preset, for images of so many channels."""
    kind = command["generator"] or GENERATORS[0]
    of_other = {"unet": "blocks", "resnet": "downs"}[kind]
    if command[of_other] is not None:
        raise OptionError(f"--{of_other}", f"has no meaning for --generator {kind}")
    width = p.channels if command["channels"] is None else command["channels"]
    norm, dropout = command["norm"] or p.norm, command["dropout"] in (None, True)
    d_layers = PatchDiscriminatorConfig.layers if command["d_layers"] is None else command["d_layers"]
    if kind == "unet":
        downs = _unet_downs(crop.size) if command["downs"] is None else command["downs"]
        G = UnetGeneratorConfig(*channels, width, downs, norm, dropout)
    else:
        blocks = (9 if crop.size >= LARGE else 6) if command["blocks"] is None else command["blocks"]
        G = ResnetGeneratorConfig(*channels, width, blocks, norm, dropout)
    return G, PatchDiscriminatorConfig(sum(channels), width, d_layers, norm)


def _unet_downs(size: int) -> int:
    """As often as the side of the images can be halved."""
    fewest, most = UNET_DOWNS
    return min(max((size & -size).bit_length() - 1, fewest), most)


def _guides(G: GeneratorConfig, D: PatchDiscriminatorConfig, size: int) -> list[int]:
    """Sides of the feature maps of G that are larger than the smallest of D, rising."""
    with torch.device("meta"):
        net = build_network(G)
    try:
        guides = guide_layers(net, size)
    except ValueError as error:
        raise OptionError("--crop", f"{error}; --no-ggdr takes any size") from error
    return sorted(res for res in guides if res > size >> D.layers)


def _lengths(command: Mapping[str, Any], p: Pix2PixPreset, num_images: int) -> tuple[int, int]:
    """Images with a constant learning rate, and with one that falls."""
    kimg, epochs = command["kimg"], command["epochs"]
    if kimg is not None and epochs is not None:
        raise OptionError("--epochs", "and --kimg both say how long to train; give one of them")
    if epochs is not None or (kimg is None and p.epochs is not None):
        constant, falling = p.epochs if epochs is None else parse_epochs(epochs)
        return constant * num_images, falling * num_images
    total = round((p.kimg if kimg is None else kimg) * 1000)
    return total - total // 2, total // 2
