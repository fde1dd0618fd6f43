# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of runs that make images of label maps, and how the options of `ggdr translate train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings_pix2pix import PairSettings, pair_settings
from ggdr.scripts.training.settings_translation import (
    Circumstances,
    TranslationSettings,
    chosen_width,
    resolve_crop,
    resolve_optim,
    run_fields,
)
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.translation.config_base import NetworkConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.layout import layout_guides
from ggdr.translation.layout_config import (
    CCFPSEConfig,
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    LayoutConfig,
    OASISConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)
from ggdr.translation.presets import PRESETS, TranslationPreset

MOST_UPS, FEWEST_AT_START = 5, 4  # G doubles that often at most, from so many pixels up
LAYERS = {"oasis": (1, 6), "cc-fpse": (4, 5)}  # how often D halves at least, and at most unless more is asked for
NOISE_SHARE = 4  # of `channels` one in so many are CC-FPSE's noise
# Losses and optimisers, and the weight that is theirs alone.
OPTIMS = {"oasis": (OASISConfig, "labelmix_weight"), "cc-fpse": (CCFPSEConfig, "feature_weight")}

LayoutGeneratorConfig = OASISGeneratorConfig | CCFPSEGeneratorConfig
LayoutDiscriminatorConfig = OASISDiscriminatorConfig | CCFPSEDiscriminatorConfig


@dataclass(frozen=True)
class LayoutSettings(TranslationSettings):
    """Everything that decides what a run on label maps computes."""

    data: PairSettings
    G: LayoutGeneratorConfig
    D: LayoutDiscriminatorConfig
    optim: LayoutConfig
    labels: LabelClasses


def resolve_settings(
    command: Mapping[str, Any], data: PairedImages, given: Circumstances, *, host: str
) -> LayoutSettings:
    """Fills in what the command line leaves open; see `settings_pix2pix.resolve_settings`.

    Args:
        data: with the classes of its label maps.
        host: the model's name.
    """
    p = PRESETS[host][command["cfg"]]
    crop = resolve_crop(command, p)
    networks = given.start or layout_networks(host, command, p, crop.size, *(side.planes for side in data.sides))
    G, D = networks["G"], networks["D"]
    _check_crop(command, crop.size, G, D)
    config, weight = OPTIMS[host]
    own = {**p.optim, weight: p.optim.get(weight) if command[weight] is None else command[weight]}
    optim = resolve_optim(command, p, config, data.num_images, **own)
    guides = sorted(res for res in layout_guides(G, crop.size) if res > crop.size >> D.layers)
    return LayoutSettings(
        **run_fields(command, p, given, host=host, total_nimg=optim.total_nimg),
        data=pair_settings(command, p, data),
        crop=crop,
        **networks,
        optim=optim,
        regularizers=resolve_regularizers(command, crop.size, guides),
        labels=data.sides[0].classes,
    )


def layout_networks(
    host: str, command: Mapping[str, Any], p: TranslationPreset, size: int, classes: int, img_channels: int
) -> dict[str, NetworkConfig]:
    """G and D for label maps and images of `size` pixels, as options and preset say.

    Raises:
        OptionError: D is to halve less often than it has to.
    """
    width, halvings = chosen_width(command, p), (size & -size).bit_length() - 1
    # As often as the side can be doubled to, and halved.
    ups = min(max((size // FEWEST_AT_START).bit_length() - 1, 1), max(halvings, 1), MOST_UPS)
    fewest, most = LAYERS[host]
    # CC-FPSE's three scales are the finer, the fewer layers there are; a map of one pixel is of no use to them.
    possible = halvings - (host == "cc-fpse" and size == 2**halvings)
    layers = min(max(possible, fewest), most) if command["d_layers"] is None else command["d_layers"]
    if layers < fewest:
        raise OptionError("--d-layers", f"{host} compares at three scales: expected {fewest} or more, got {layers}")
    norm = command["norm"] or p.norm
    if host == "oasis":
        G = OASISGeneratorConfig(classes, img_channels, width, width, ups, norm)
        return {"G": G, "D": OASISDiscriminatorConfig(img_channels, classes, width, layers)}
    G = CCFPSEGeneratorConfig(classes, img_channels, width, max(width // NOISE_SHARE, 1), ups, norm)
    return {"G": G, "D": CCFPSEDiscriminatorConfig(img_channels, classes, width, layers)}


def _check_crop(command: Mapping[str, Any], size: int, G: LayoutGeneratorConfig, D: LayoutDiscriminatorConfig) -> None:
    """Raises OptionError for a crop that the networks cannot halve as often as they do."""
    if size % 2**D.layers and command["d_layers"] is not None:
        text = f"a discriminator of {D.layers} layers takes multiples of {2**D.layers} pixels, and the crop has {size}"
        raise OptionError("--d-layers", f"{text}; give fewer layers, or another --crop")
    needed = 2 ** max(D.layers, G.ups)
    if size % needed:
        raise OptionError("--crop", f"the networks take multiples of {needed} pixels, got {size}")
