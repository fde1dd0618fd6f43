# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of runs that make images of label maps, and how the options of `ggdr translate train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings_pix2pix import PairSettings, resolve_direction
from ggdr.scripts.training.settings_translation import (
    TranslationSettings,
    chosen_width,
    resolve_crop,
    resolve_optim,
    resolve_workers,
    run_fields,
)
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.translation.config_base import NetworkConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.layout import layout_guides
from ggdr.translation.layout_config import LayoutConfig, OASISConfig, OASISDiscriminatorConfig, OASISGeneratorConfig
from ggdr.translation.presets import PRESETS, TranslationPreset

MOST_UPS, FEWEST_AT_START = 5, 4  # G doubles that often at most, from so many pixels up
MOST_LAYERS = 6  # D halves that often at most unless more are asked for


@dataclass(frozen=True)
class LayoutSettings(TranslationSettings):
    """Everything that decides what a run on label maps computes."""

    data: PairSettings
    G: OASISGeneratorConfig
    D: OASISDiscriminatorConfig
    optim: LayoutConfig
    labels: LabelClasses


def resolve_settings(
    command: Mapping[str, Any],
    data: PairedImages,
    *,
    host: str,
    default_metrics: str,
    num_processes: int,
    device_type: str,
    init_snapshot: str | None,
    start: Mapping[str, NetworkConfig] | None = None,
) -> LayoutSettings:
    """Fills in what the command line leaves open; see `settings_pix2pix.resolve_settings`.

    Args:
        data: with the classes of its label maps.
        host: the model's name.
    """
    p = PRESETS[host][command["cfg"]]
    crop = resolve_crop(command, p)
    networks = start or oasis_networks(command, p, crop.size, *(side.planes for side in data.sides))
    G, D = networks["G"], networks["D"]
    _check_crop(command, crop.size, G, D)
    optim = resolve_optim(command, p, OASISConfig, data.num_images, labelmix_weight=command["labelmix_weight"])
    guides = sorted(res for res in layout_guides(G, crop.size) if res > crop.size >> D.layers)
    return LayoutSettings(
        **run_fields(
            command,
            p,
            host=host,
            total_nimg=optim.total_nimg,
            default_metrics=default_metrics,
            num_processes=num_processes,
            device_type=device_type,
            init_snapshot=init_snapshot,
        ),
        data=PairSettings(
            str(command["data"]),
            resolve_direction(command),
            int(command["img_channels"]),
            data.num_images,
            data.fingerprint()[:16],
            resolve_workers(command, p),
        ),
        crop=crop,
        **networks,
        optim=optim,
        regularizers=resolve_regularizers(command, crop.size, guides),
        labels=data.sides[0].classes,
    )


def oasis_networks(
    command: Mapping[str, Any], p: TranslationPreset, size: int, classes: int, img_channels: int
) -> dict[str, NetworkConfig]:
    """G and D for label maps and images of `size` pixels, as options and preset say."""
    width, halvings = chosen_width(command, p), (size & -size).bit_length() - 1
    # As often as the side can be doubled to, and halved.
    ups = min(max((size // FEWEST_AT_START).bit_length() - 1, 1), max(halvings, 1), MOST_UPS)
    layers = command["d_layers"] or min(max(halvings, 1), MOST_LAYERS)
    return {
        "G": OASISGeneratorConfig(classes, img_channels, width, width, ups, command["norm"] or p.norm),
        "D": OASISDiscriminatorConfig(img_channels, classes, width, layers),
    }


def _check_crop(command: Mapping[str, Any], size: int, G: OASISGeneratorConfig, D: OASISDiscriminatorConfig) -> None:
    """Raises OptionError for a crop that the networks cannot halve as often as they do."""
    if size % 2**D.layers and command["d_layers"] is not None:
        text = f"a discriminator of {D.layers} layers takes multiples of {2**D.layers} pixels, and the crop has {size}"
        raise OptionError("--d-layers", f"{text}; give fewer layers, or another --crop")
    needed = 2 ** max(D.layers, G.ups)
    if size % needed:
        raise OptionError("--crop", f"the networks take multiples of {needed} pixels, got {size}")
