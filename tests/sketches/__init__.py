# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Kinds of generators and discriminators, sketched small from their papers, with the habits of code that people write.

Each generator takes z [N, 32, 1, 1] or an image [N, 3, 64, 64] and makes images [N, 3, 64, 64], which each
discriminator judges. None is trained: they are there for the layers that GGDR finds in them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.sketches.discriminators import DISCRIMINATORS, dcgan_d
from tests.sketches.generators import GENERATORS, dcgan_g
from tests.sketches.transformers import TRANSFORMERS
from tests.sketches.translators import SRGAN, TRANSLATORS

SKETCHED_G: dict[str, Callable[[], nn.Module]] = {**GENERATORS, **TRANSLATORS}
SKETCHED_D: dict[str, Callable[[], nn.Module]] = {**DISCRIMINATORS, **TRANSFORMERS}

Pair = tuple[nn.Module, nn.Module, Callable[[], object]]  # G, D, and a probe


def with_generator(name: str) -> Pair:
    """The generator of this name before a DCGAN's discriminator."""
    G, D = SKETCHED_G[name](), dcgan_d()
    x = torch.randn(2, 32, 1, 1)
    if name in TRANSLATORS:
        x = torch.randn(2, 3, 16, 16) if isinstance(G, SRGAN) else torch.randn(2, 3, 64, 64)
    return G, D, lambda: D(G(x))


def with_discriminator(name: str) -> Pair:
    """The discriminator of this name after a DCGAN's generator."""
    G, D = dcgan_g(), SKETCHED_D[name]()
    return G, D, lambda: D(G(torch.randn(2, 32, 1, 1)))
