# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of ComboGAN, and how the options of `ggdr translate train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.translation import COMBOGAN_BLOCKS, WEIGHT, parse_cycle_weight
from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings_translation import (
    LARGE,
    Circumstances,
    DomainSettings,
    TranslationSettings,
    domain_settings,
    resolve_crop,
    resolve_optim,
    run_fields,
)
from ggdr.translation.config import (
    ComboGANConfig,
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    NetworkConfig,
)
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.generators import AT_LEAST, MULTIPLE
from ggdr.translation.presets import PRESETS, TranslationPreset

NAME = "combogan"
FEWER_BLOCKS = (3, 3)  # of encoders and of decoders below LARGE pixels


@dataclass(frozen=True)
class ComboGANSettings(TranslationSettings):
    """Everything that decides what a run of ComboGAN computes.

    Attributes:
        frozen: names of the domains that stay as they are; the one that is trained is the last. Empty: all are trained.
        D:      of each domain.
    """

    data: DomainSettings
    frozen: tuple[str, ...]
    G: ComboGANGeneratorConfig
    D: ComboGANDiscriminatorConfig
    optim: ComboGANConfig


def resolve_settings(command: Mapping[str, Any], data: UnpairedImages, given: Circumstances) -> ComboGANSettings:
    """Fills in what the command line leaves open.

    Args:
        command: the options of `ggdr translate train` by parameter name; None where not given.
        data:    with the domains in the order of the networks; with `always`, that one alone is trained.

    Raises:
        OptionError: a value that cannot be used, with the option's name.
    """
    p = PRESETS[NAME][command["cfg"]]
    crop = resolve_crop(command, p)
    if crop.size % MULTIPLE or crop.size < AT_LEAST:
        raise OptionError("--crop", f"{NAME} takes multiples of {MULTIPLE} from {AT_LEAST} up, got {crop.size}")
    networks = given.start or _networks(command, p, crop.size, len(data.domains))
    optim = _optim(command, p, data)
    return ComboGANSettings(
        **run_fields(command, p, given, host=NAME, total_nimg=optim.total_nimg),
        data=domain_settings(command, p, data),
        frozen=() if data.always is None else tuple(name for name in data.names if name != data.names[data.always]),
        crop=crop,
        **networks,
        optim=optim,
        regularizers=resolve_regularizers(command, crop.size, _guide_sizes(networks, crop.size)),
    )


def _networks(command: Mapping[str, Any], p: TranslationPreset, size: int, domains: int) -> dict[str, NetworkConfig]:
    channels = p.channels if command["channels"] is None else command["channels"]
    few = {} if size >= LARGE else dict(zip(COMBOGAN_BLOCKS, FEWER_BLOCKS, strict=False))
    blocks = few | {name: command[name] for name in COMBOGAN_BLOCKS if command[name] is not None}
    layers = ComboGANDiscriminatorConfig.layers if command["d_layers"] is None else command["d_layers"]
    try:
        G = ComboGANGeneratorConfig(channels=channels, **blocks, domains=domains)
    except ValueError as error:
        raise OptionError("--data", f"more domains than {NAME} takes: {error}") from error
    return {"G": G, "D": ComboGANDiscriminatorConfig(channels, layers)}


def _guide_sizes(networks: Mapping[str, NetworkConfig], size: int) -> list[int]:
    """Sides of the feature maps of a decoder's stages that are larger than the smallest of D, rising."""
    smallest = size
    for _ in range(networks["D"].layers):
        smallest = smallest // 2 + 1
    stages = [size // MULTIPLE] if networks["G"].decoder_blocks else []
    return [res for res in (*stages, size // 2, size) if res > smallest]


def _optim(command: Mapping[str, Any], p: TranslationPreset, data: UnpairedImages) -> ComboGANConfig:
    if p.each and p.epochs is not None:
        # A domain that is trained alone has a part in each iteration, as both of two have.
        num = len(data.domains) if data.always is None else 2
        p = replace(p, epochs=(p.epochs[0] * num, p.epochs[1] * num))
    return resolve_optim(
        command,
        p,
        ComboGANConfig,
        data.num_images,
        cycle_weight=_cycle_weight(command["cycle_weight"]),
        **{name: command[name] for name in ("identity_weight", "latent_weight", "forward_weight", "pool_size")},
    )


def _cycle_weight(text: str | None) -> float | None:
    """One weight: domains are drawn in any order, so that no cycle is the forward one."""
    if text is not None and "," in text:
        raise OptionError("--cycle-weight", f"expected one weight for {NAME}, from 0 to {WEIGHT.max:g}; got {text!r}")
    return None if text is None else parse_cycle_weight(text)[0]
