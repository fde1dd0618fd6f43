# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Translators from snapshot files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.data.label_maps import LabelClasses, classes_from_json
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.snapshot_kinds import holds_translator, refuse_stylegan2
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import (
    ComboGANGeneratorConfig,
    NetworkConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.layout_config import CCFPSEGeneratorConfig, OASISGeneratorConfig
from ggdr.translation.networks import build_network
from ggdr.translation.translator import (
    CYCLEGAN_DOMAINS,
    CCFPSETranslator,
    ComboGANTranslator,
    CycleGANTranslator,
    LayoutTranslator,
    OASISTranslator,
    Pix2PixTranslator,
    Translator,
    numbered,
)

GENERATORS = (ResnetGeneratorConfig, UnetGeneratorConfig)
DISCRIMINATORS = (PatchDiscriminatorConfig,)
# What makes images of label maps, by the kind of its generator.
LAYOUT_TRANSLATORS: dict[type[NetworkConfig], type[LayoutTranslator]] = {
    OASISGeneratorConfig: OASISTranslator,
    CCFPSEGeneratorConfig: CCFPSETranslator,
}
# Whose generator it is; others are pix2pix'.
MODELS_BY_GENERATOR = {
    ComboGANGeneratorConfig.network: "combogan",
    OASISGeneratorConfig.network: "oasis",
    CCFPSEGeneratorConfig.network: "cc-fpse",
}
MAX_NAME = 100  # characters of a domain's name


def load_translator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Translator:
    """The generators of a snapshot of image translation.

    Example:
        >>> translate = load_translator("network-snapshot-000080.safetensors")
        >>> img = translate(torch.zeros(1, 3, 90, 130))  # [1, 3, 90, 130] float32 in [-1, 1]
        >>> img = translate(torch.zeros(1, 3, 90, 130), "summer", "winter")  # of several domains

    Raises:
        SnapshotError: the file is missing, damaged, or no snapshot of a translation between kinds of images.
    """
    return translator_of(load_snapshot(path), device)


def translator_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Translator:
    """The generators of a snapshot that has been read; raises as `load_translator`."""

    def restored(key: str, config: NetworkConfig) -> nn.Module:
        return restore_network(lambda: build_network(config), snapshot, key, device)

    if "G_A" in snapshot.config:
        configs = {key: _config(snapshot, key, GENERATORS) for key in ("G_A", "G_B")}
        domains = domain_names(snapshot, CYCLEGAN_DOMAINS)
        try:
            return CycleGANTranslator(*(restored(key, config) for key, config in configs.items()), domains)
        except ValueError as error:
            raise SnapshotError(f"{snapshot.path}: {error}") from error
    config = _config(snapshot, "G", (*GENERATORS, ComboGANGeneratorConfig, *LAYOUT_TRANSLATORS))
    if isinstance(config, ComboGANGeneratorConfig):
        return ComboGANTranslator(restored("G", config), domain_names(snapshot, numbered(config.domains)))
    labels = label_classes(snapshot, config)
    if type(config) not in LAYOUT_TRANSLATORS:
        return Pix2PixTranslator(restored("G", config), labels)
    if labels is None:
        raise SnapshotError(f"{snapshot.path}: does not say which classes its label maps have")
    return LAYOUT_TRANSLATORS[type(config)](restored("G_ema", config), labels)


def model_of(snapshot: Snapshot) -> str | None:
    """The model whose generators a snapshot holds, as `ggdr translate train --model` calls it, whoever trained them.

    None of what holds none.
    """
    if not holds_translator(snapshot.config):
        return None
    if "G_A" in snapshot.config:
        return "cyclegan"
    G = snapshot.config.get("G")
    if not isinstance(G, Mapping):
        return None
    return MODELS_BY_GENERATOR.get(str(G.get("network")), "pix2pix")


def domain_names(snapshot: Snapshot, unnamed: Sequence[str]) -> tuple[str, ...]:
    """What a snapshot calls its domains, text that anyone can have written; `unnamed` where it says nothing.

    Raises:
        SnapshotError: what stands there are no names, or other numbers of them.
    """
    stored = snapshot.config.get("domains", list(unnamed))
    is_named = isinstance(stored, list) and all(isinstance(name, str) and name for name in stored)
    names = tuple(printable(name, MAX_NAME) for name in stored) if is_named else ()
    if len(set(names)) != len(unnamed) or len(names) != len(unnamed):
        shown = printable(repr(stored), 80)
        raise SnapshotError(f"{snapshot.path}: domains: expected {len(unnamed)} different names, got {shown}")
    return names


def label_classes(snapshot: Snapshot, G: NetworkConfig) -> LabelClasses | None:
    """The classes of the label maps that a generator takes; None of one that takes images.

    Raises:
        SnapshotError: what stands there are no classes, or not as many as the generator has channels.
    """
    stored = snapshot.config.get("labels")
    try:
        labels = None if stored is None else classes_from_json(stored)
    except ValueError as error:
        raise SnapshotError(f"{snapshot.path}: classes of label maps are damaged: {printable(error)}") from error
    if labels is not None and labels.num != G.in_channels:
        raise SnapshotError(f"{snapshot.path}: label maps of {labels.num} classes, and a G of {G.in_channels} channels")
    return labels


def network_configs(
    snapshot: Snapshot, kinds: Mapping[str, tuple[type[NetworkConfig], ...]]
) -> dict[str, NetworkConfig]:
    """The settings of networks, to train them further, by name.

    Raises:
        SnapshotError: one is missing, or of another kind than those given.
    """
    return {key: _config(snapshot, key, allowed) for key, allowed in kinds.items()}


def _config(snapshot: Snapshot, key: str, kinds: tuple[type[NetworkConfig], ...]) -> NetworkConfig:
    refuse_stylegan2(snapshot)
    if key not in snapshot.config:
        held = printable(", ".join(snapshot.networks)) or "no networks"
        raise SnapshotError(
            f"{snapshot.path}: holds {held}, but no {key}; to translate takes the generators of a model, to train it "
            "further all its networks"
        )
    try:
        config = config_from_json(snapshot.config.get(key))
    except ValueError as error:
        reason = printable(error)
        raise SnapshotError(
            f"{snapshot.path}: settings of {key} describe no network of image translation: {reason}"
        ) from error
    if not isinstance(config, kinds):
        expected = " or ".join(kind.network for kind in kinds)
        raise SnapshotError(f"{snapshot.path}: {key} is a {config.network}, expected a {expected}")
    return config
