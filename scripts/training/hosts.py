# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The kinds of models that training commands know by name: the one list of them."""

from __future__ import annotations

from ggdr.scripts.training.host import Host
from ggdr.scripts.training.host_cyclegan import CycleGANHost
from ggdr.scripts.training.host_pix2pix import Pix2PixHost
from ggdr.scripts.training.host_stylegan2 import StyleGAN2Host

HOSTS: dict[str, Host] = {host.name: host for host in (StyleGAN2Host(), Pix2PixHost(), CycleGANHost())}
