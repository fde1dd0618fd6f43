# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One domain more or less in ComboGAN's networks; what is there stays as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.translation.combogan_networks import ComboGANDiscriminator, ComboGANGenerator
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network

SHARED = ("shared_encoder.", "shared_decoder.")


def add_domain(
    G: ComboGANGenerator, D: Sequence[ComboGANDiscriminator], generator: torch.Generator
) -> tuple[ComboGANGenerator, list[ComboGANDiscriminator]]:
    """Networks of one more domain, the last, whose weights are drawn; those of G's others are copied.

    To train them alone: `ComboGANTask(..., frozen=range(n))`, on batches of which each has the new domain.
    Shared blocks see a plane more, with weights 0, so that they do for the other domains what they did.

    Args:
        D:         one for each domain; the new one is built as the first of them.
        generator: a CPU one, of the new weights.
    """
    config = replace(G.config, domains=G.config.domains + 1)
    old = {
        name: F.pad(x, (0, 0, 0, 0, 0, 1)) if name.startswith(SHARED) and x.ndim == 4 else x
        for name, x in G.state_dict().items()
    }
    larger = build_network(config)
    init_weights(larger, generator)
    larger.load_state_dict({**larger.state_dict(), **old}, strict=True)
    new = build_network(D[0].config)
    init_weights(new, generator)
    device = next(G.parameters()).device
    return larger.to(device), [*D, new.to(device)]


def remove_domain(
    G: ComboGANGenerator, D: Sequence[ComboGANDiscriminator], domain: int
) -> tuple[ComboGANGenerator, list[ComboGANDiscriminator]]:
    """Networks without a domain; those behind it move up by one number.

    What shared blocks saw of it, a plane of -1, goes into their biases, so that they do what they did but for rounding.

    Raises:
        ValueError: there is no such domain, or there are only two.
    """
    if not 0 <= domain < G.config.domains:
        raise ValueError(f"domain: expected one of 0 to {G.config.domains - 1}, got {domain}")
    config = replace(G.config, domains=G.config.domains - 1)
    smaller = build_network(config).to(next(G.parameters()).device)
    state = G.state_dict()
    smaller.load_state_dict({name: _without(domain, name, state) for name in smaller.state_dict()}, strict=True)
    return smaller, [net for i, net in enumerate(D) if i != domain]


def _without(domain: int, name: str, state: dict[str, Tensor]) -> Tensor:
    """A weight of the smaller generator."""
    first, *rest = name.split(".")
    if not name.startswith(SHARED):
        number = int(rest[0])
        return state[".".join([first, str(number + (number >= domain)), *rest[1:]])]
    weight = state.get(name.removesuffix("bias") + "weight", state[name])
    if weight.ndim < 4:
        return state[name]  # of a PReLU
    # Behind the feature maps, as many as come out, lie the planes.
    at = len(weight) + domain
    if name.endswith("bias"):
        return state[name] - weight[:, at].sum(dim=[1, 2])
    return torch.cat([weight[:, :at], weight[:, at + 1 :]], dim=1)
