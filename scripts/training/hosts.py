# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The kinds of models that training commands know by name: the one list of them."""

from __future__ import annotations

from collections.abc import Mapping

from ggdr.scripts.options.translation import MODELS
from ggdr.scripts.training.host import Host
from ggdr.scripts.training.host_combogan import ComboGANHost
from ggdr.scripts.training.host_cyclegan import CycleGANHost
from ggdr.scripts.training.host_layout import CC_FPSE, OASIS
from ggdr.scripts.training.host_pix2pix import Pix2PixHost
from ggdr.scripts.training.host_stylegan2 import StyleGAN2Host
from ggdr.scripts.training.resume import host_of_snapshot
from ggdr.torch_utils.checkpoint import Snapshot
from ggdr.translation.config import ComboGANGeneratorConfig
from ggdr.translation.layout_config import CCFPSEGeneratorConfig, OASISGeneratorConfig

HOSTS: dict[str, Host] = {
    host.name: host for host in (StyleGAN2Host(), Pix2PixHost(), CycleGANHost(), ComboGANHost(), OASIS, CC_FPSE)
}
# Of snapshots that do not say which host trained them, by the kind of their G; others are pix2pix'.
_BY_GENERATOR = {
    ComboGANGeneratorConfig.network: "combogan",
    OASISGeneratorConfig.network: "oasis",
    CCFPSEGeneratorConfig.network: "cc-fpse",
}


def translator_host(snapshot: Snapshot) -> Host | None:
    """The host of a snapshot that translates images; None of a generator's, or of what is neither.

    That of its run; without a run, the one whose G is such a network.
    """
    name, G = host_of_snapshot(snapshot), snapshot.config.get("G")
    if name in MODELS:
        return HOSTS[name]
    if not isinstance(G, Mapping) or "network" not in G:
        return None
    return HOSTS[_BY_GENERATOR.get(G["network"], "pix2pix")]
