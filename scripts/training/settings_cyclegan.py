# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of CycleGAN, and how the options of `ggdr translate train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggdr.scripts.options.translation import parse_cycle_weight
from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings_translation import (
    Circumstances,
    DomainSettings,
    GeneratorConfig,
    TranslationSettings,
    check_crop,
    discriminator_config,
    domain_settings,
    generator_config,
    guide_sizes,
    resolve_crop,
    resolve_optim,
    run_fields,
)
from ggdr.translation.config import CycleGANConfig, PatchDiscriminatorConfig
from ggdr.translation.cyclegan import SIDES
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.presets import PRESETS, TranslationPreset

NAME = "cyclegan"


@dataclass(frozen=True)
class CycleGANSettings(TranslationSettings):
    """Everything that decides what a run of CycleGAN computes."""

    data: DomainSettings
    G_A: GeneratorConfig
    G_B: GeneratorConfig
    D_A: PatchDiscriminatorConfig
    D_B: PatchDiscriminatorConfig
    optim: CycleGANConfig


def resolve_settings(command: Mapping[str, Any], data: UnpairedImages, given: Circumstances) -> CycleGANSettings:
    """Fills in what the command line leaves open.

    Args:
        command: the options of `ggdr translate train` by parameter name; None where not given.
        data:    of two domains.

    Raises:
        OptionError: a value that cannot be used, with the option's name.
    """
    p = PRESETS[NAME][command["cfg"]]
    crop = resolve_crop(command, p)
    channels = data.sides[0].channels
    networks = given.start or {
        **{f"G_{side}": generator_config(command, p, crop.size, channels, channels) for side in SIDES},
        **{f"D_{side}": discriminator_config(command, p, channels) for side in SIDES},
    }
    guides = []
    for side in SIDES:
        check_crop(command, crop.size, networks[f"D_{side}"])
        guides.append(guide_sizes(command, networks[f"G_{side}"], networks[f"D_{side}"], crop.size))
    common = [res for res in guides[0] if res in guides[1]]
    optim = _optim(command, p, data)
    return CycleGANSettings(
        **run_fields(command, p, given, host=NAME, total_nimg=optim.total_nimg),
        data=domain_settings(command, p, data),
        crop=crop,
        **networks,
        optim=optim,
        regularizers=resolve_regularizers(command, crop.size, common),
    )


def _optim(command: Mapping[str, Any], p: TranslationPreset, data: UnpairedImages) -> CycleGANConfig:
    forward, backward = (None, None) if command["cycle_weight"] is None else parse_cycle_weight(command["cycle_weight"])
    return resolve_optim(
        command,
        p,
        CycleGANConfig,
        data.num_images,
        gan_weight=command["gan_weight"],
        cycle_weight_A=forward,
        cycle_weight_B=backward,
        identity_weight=command["identity_weight"],
        pool_size=command["pool_size"],
    )
