# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The kinds of models that training commands know by name: the one list of them."""

from __future__ import annotations

from ggdr.scripts.options.translation import MODELS
from ggdr.scripts.training.host import Host
from ggdr.scripts.training.host_combogan import ComboGANHost
from ggdr.scripts.training.host_cyclegan import CycleGANHost
from ggdr.scripts.training.host_layout import CC_FPSE, OASIS
from ggdr.scripts.training.host_pix2pix import Pix2PixHost
from ggdr.scripts.training.host_stylegan2 import StyleGAN2Host
from ggdr.scripts.training.resume import host_of_snapshot
from ggdr.torch_utils.checkpoint import Snapshot
from ggdr.translation.snapshot import model_of

HOSTS: dict[str, Host] = {
    host.name: host for host in (StyleGAN2Host(), Pix2PixHost(), CycleGANHost(), ComboGANHost(), OASIS, CC_FPSE)
}


def translator_host(snapshot: Snapshot) -> Host | None:
    """The host of a snapshot that translates images; None of a generator's, or of what is neither.

    That of its run; without a run, as where it was imported, that of its networks.
    """
    name = host_of_snapshot(snapshot)
    return HOSTS.get(name if name in MODELS else model_of(snapshot))
