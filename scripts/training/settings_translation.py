# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the settings of all models of `ggdr translate train` have in common, and how options become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.translation import parse_epochs
from ggdr.scripts.training.judging_segmenter import SegmenterSettings, resolve_segmenter
from ggdr.scripts.training.regularizers import chosen_regularizers
from ggdr.scripts.training.settings import (
    RunSettings,
    allowed_skips,
    resolve_batch_gpu,
    resolve_metrics,
    resolve_patience,
    resolve_precision,
)
from ggdr.torch_utils.loop import LoopConfig
from ggdr.translation.attachment import guide_layers
from ggdr.translation.config import (
    HostConfig,
    NetworkConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.networks import build_network
from ggdr.translation.presets import TranslationPreset

UNET_DOWNS = (5, 8)  # fewest and most that are taken from the size of the images
LARGE = 256  # pixels, from which on a ResNet has 9 blocks in place of 6

GeneratorConfig = ResnetGeneratorConfig | UnetGeneratorConfig


@dataclass(frozen=True)
class TranslationSettings(RunSettings):
    """Everything that decides what a run computes; a model adds its networks, each a field.

    Attributes:
        metrics_data: what metrics are measured on, if it is not the data.
        segmenter:    what judges translations of label maps, if metrics ask for it.
    """

    metrics_data: str | None
    crop: CropConfig
    optim: HostConfig
    segmenter: SegmenterSettings | None = field(default=None, kw_only=True)

    @property
    def detector_files(self) -> dict[str, str]:
        return {} if self.segmenter is None else {"segmenter": self.segmenter.name}

    @property
    def networks(self) -> dict[str, NetworkConfig]:
        """Settings of the networks, by the names that snapshots have."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, NetworkConfig)}

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings; networks as `config_from_json` takes them."""
        return {**super().to_json(), **{name: config.to_json() for name, config in self.networks.items()}}


@dataclass(frozen=True)
class Circumstances:
    """What settings depend on beside options and data.

    Attributes:
        default_metrics: what is measured if the options do not say it.
        init_snapshot:   the snapshot that the weights come from, or None.
        start:           its networks, which come before those of preset and command line.
    """

    default_metrics: str
    num_processes: int
    device_type: str
    init_snapshot: str | None = None
    start: Mapping[str, NetworkConfig] | None = None


@dataclass(frozen=True)
class DomainSettings:
    """The training set of a model without pairs, and what was found in it.

    Attributes:
        domains:    names, in order.
        num_images: of each.
    """

    path: str
    channels: int
    domains: tuple[str, ...]
    num_images: tuple[int, ...]
    fingerprint: str
    workers: int | None


def domain_settings(command: Mapping[str, Any], p: TranslationPreset, data: UnpairedImages) -> DomainSettings:
    """Those of data that are open."""
    return DomainSettings(
        str(command["data"]),
        data.sides[0].channels,
        tuple(data.names),
        tuple(len(domain.files) for domain in data.domains),
        data.fingerprint()[:16],
        resolve_workers(command, p),
    )


def resolve_workers(command: Mapping[str, Any], p: TranslationPreset) -> int | None:
    """Processes that decode images."""
    return p.workers if command["workers"] is None else command["workers"]


def resolve_crop(command: Mapping[str, Any], p: TranslationPreset) -> CropConfig:
    """What becomes of an image."""
    return CropConfig(command["crop"] or p.crop, command["enlarge"], command["fit"], command["mirror"])


def resolve_lengths(command: Mapping[str, Any], p: TranslationPreset, num_images: int) -> tuple[int, int]:
    """Images with a constant learning rate, and with one that falls.

    Args:
        num_images: in an epoch.
    """
    kimg, epochs = command["kimg"], command["epochs"]
    if kimg is not None and epochs is not None:
        raise OptionError("--epochs", "and --kimg both say how long to train; give one of them")
    if epochs is not None or (kimg is None and p.epochs is not None):
        constant, falling = p.epochs if epochs is None else parse_epochs(epochs)
        return constant * num_images, falling * num_images
    total = round((p.kimg if kimg is None else kimg) * 1000)
    return total - total // 2, total // 2


def resolve_optim(
    command: Mapping[str, Any], p: TranslationPreset, config: type[HostConfig], num_images: int, **weights: Any
) -> HostConfig:
    """Losses and optimisers, of the kind `config`.

    Args:
        num_images: in an epoch.
        weights:    settings that only this kind has; None where not given.

    Raises:
        OptionError: the weights of all losses are 0.
    """
    constant, falling = resolve_lengths(command, p, num_images)
    given = {"gan_loss": command["gan_loss"], "lr": p.lr if command["lr"] is None else command["lr"], **weights}
    try:
        return config(constant, falling, **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise OptionError("--gan-weight", str(error)) from error


def run_fields(
    command: Mapping[str, Any], p: TranslationPreset, given: Circumstances, *, host: str, total_nimg: int
) -> dict[str, Any]:
    """The fields of RunSettings but for regularisers, and `metrics_data`.

    Raises:
        OptionError: a batch does not split, the device lacks a precision, or metrics are not what they should be.
    """
    batch = p.batch if command["batch"] is None else command["batch"]
    tick, snap = command["tick"], command["snap"]
    precision = resolve_precision(command["precision"], given.device_type)
    metrics = resolve_metrics(given.default_metrics if command["metrics"] is None else command["metrics"])
    return {
        "host": host,
        "cfg": command["cfg"],
        "loop": LoopConfig(
            total_nimg=total_nimg,
            batch=batch,
            batch_gpu=resolve_batch_gpu(batch, None, given.num_processes),
            tick_nimg=round((p.tick_kimg if tick is None else tick) * 1000),
            snap_ticks=p.snap_ticks if snap is None else snap,
            max_skips=allowed_skips(precision),
        ),
        "precision": precision,
        "num_processes": given.num_processes,
        "seed": command["seed"],
        "init_snapshot": given.init_snapshot,
        "init_source": None,
        "metrics": metrics,
        "metrics_data": None if command["metrics_data"] is None else str(command["metrics_data"]),
        "segmenter": resolve_segmenter(command["segmenter"], metrics),
        "patience": resolve_patience(command["patience"], metrics),
        "deterministic": command["deterministic"],
    }


def generator_config(
    command: Mapping[str, Any], p: TranslationPreset, size: int, in_channels: int, out_channels: int
) -> GeneratorConfig:
    """A generator for images of `size` pixels, as options and preset say."""
    kind = command["generator"] or p.generator
    of_other = {"unet": "blocks", "resnet": "downs"}[kind]
    if command[of_other] is not None:
        raise OptionError(f"--{of_other}", f"has no meaning for --generator {kind}")
    dropout = p.dropout if command["dropout"] is None else command["dropout"]
    rest = (chosen_width(command, p), _depth(command, kind, size), command["norm"] or p.norm, dropout)
    return {"unet": UnetGeneratorConfig, "resnet": ResnetGeneratorConfig}[kind](in_channels, out_channels, *rest)


def discriminator_config(
    command: Mapping[str, Any], p: TranslationPreset, in_channels: int
) -> PatchDiscriminatorConfig:
    """A discriminator as options and preset say."""
    layers = PatchDiscriminatorConfig.layers if command["d_layers"] is None else command["d_layers"]
    return PatchDiscriminatorConfig(in_channels, chosen_width(command, p), layers, command["norm"] or p.norm)


def check_crop(command: Mapping[str, Any], size: int, D: PatchDiscriminatorConfig) -> None:
    """Raises OptionError for images that are too small for a discriminator."""
    if size >= 3 * 2**D.layers:
        return
    takes = f"a discriminator of {D.layers} layers takes images from {3 * 2**D.layers} pixels up"
    if command["d_layers"] is not None:
        raise OptionError("--d-layers", f"{takes}, and they are of {size}; give fewer layers, or a larger --crop")
    raise OptionError("--crop", f"{takes}, got {size}; fewer --d-layers take smaller ones")


def guide_sizes(command: Mapping[str, Any], G: GeneratorConfig, D: PatchDiscriminatorConfig, size: int) -> list[int]:
    """Sides of the feature maps of G that are larger than the smallest of D, rising; none without regularisers."""
    if not chosen_regularizers(command):
        return []
    with torch.device("meta"):
        net = build_network(G)
    try:
        guides = guide_layers(net, size)
    except ValueError as error:
        if command["downs"] is not None:
            raise OptionError("--downs", f"{error}; give fewer, or --no-ggdr") from error
        raise OptionError("--crop", f"{error}; --no-ggdr takes any size") from error
    return sorted(res for res in guides if res > size >> D.layers)


def chosen_width(command: Mapping[str, Any], p: TranslationPreset) -> int:
    """Feature maps of the first layers of G and D."""
    return p.channels if command["channels"] is None else command["channels"]


def _depth(command: Mapping[str, Any], kind: str, size: int) -> int:
    """How often a U-Net halves images of `size` pixels, or how many blocks a ResNet has."""
    if kind == "resnet":
        return (9 if size >= LARGE else 6) if command["blocks"] is None else command["blocks"]
    # As often as the side of the images can be halved.
    fewest, most = UNET_DOWNS
    return min(max((size & -size).bit_length() - 1, fewest), most) if command["downs"] is None else command["downs"]
