# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of pix2pix, and how the options of `ggdr translate train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings_translation import (
    Circumstances,
    GeneratorConfig,
    TranslationSettings,
    check_crop,
    discriminator_config,
    generator_config,
    guide_sizes,
    resolve_crop,
    resolve_optim,
    resolve_workers,
    run_fields,
)
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.translation.config import PatchDiscriminatorConfig, Pix2PixConfig
from ggdr.translation.data.datasets import DIRECTIONS, PairedImages
from ggdr.translation.presets import PRESETS, TranslationPreset

NAME = "pix2pix"


@dataclass(frozen=True)
class PairSettings:
    """The training set, and what was found in it."""

    path: str
    direction: str
    channels: int
    num_images: int
    fingerprint: str
    workers: int | None


def pair_settings(command: Mapping[str, Any], p: TranslationPreset, data: PairedImages) -> PairSettings:
    """Those of data that are open."""
    return PairSettings(
        str(command["data"]),
        resolve_direction(command),
        int(command["img_channels"]),
        data.num_images,
        data.fingerprint()[:16],
        resolve_workers(command, p),
    )


@dataclass(frozen=True)
class Pix2PixSettings(TranslationSettings):
    """Everything that decides what a run of pix2pix computes."""

    data: PairSettings
    G: GeneratorConfig
    D: PatchDiscriminatorConfig
    optim: Pix2PixConfig
    labels: LabelClasses | None = field(default=None, kw_only=True)  # of inputs that are label maps


def resolve_direction(command: Mapping[str, Any]) -> str:
    """AtoB unless another is given."""
    return command["direction"] or DIRECTIONS[0]


def resolve_settings(command: Mapping[str, Any], data: PairedImages, given: Circumstances) -> Pix2PixSettings:
    """Fills in what the command line leaves open.

    Args:
        command: the options of `ggdr translate train` by parameter name; None where not given.

    Raises:
        OptionError: a value that cannot be used, with the option's name.
    """
    p = PRESETS[NAME][command["cfg"]]
    crop = resolve_crop(command, p)
    channels = [side.planes for side in data.sides]
    networks = given.start or {
        "G": generator_config(command, p, crop.size, *channels),
        "D": discriminator_config(command, p, sum(channels)),
    }
    check_crop(command, crop.size, networks["D"])
    guides = guide_sizes(command, networks["G"], networks["D"], crop.size)
    weights = {name: command[name] for name in ("gan_weight", "l1_weight")}
    optim = resolve_optim(command, p, Pix2PixConfig, data.num_images, **weights)
    return Pix2PixSettings(
        **run_fields(command, p, given, host=NAME, total_nimg=optim.total_nimg),
        data=pair_settings(command, p, data),
        crop=crop,
        **networks,
        optim=optim,
        regularizers=resolve_regularizers(command, crop.size, guides),
        labels=data.sides[0].classes,
    )
