# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One domain more or less in a snapshot of ComboGAN."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.combogan_domains import add_domain, remove_domain
from ggdr.translation.combogan_networks import ComboGANDiscriminator, ComboGANGenerator
from ggdr.translation.config import ComboGANDiscriminatorConfig, ComboGANGeneratorConfig, NetworkConfig
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import domain_names, model_of, network_configs
from ggdr.translation.translator import numbered

# What snapshots of other models are called in messages, by the names that `model_of` gives.
OTHERS = {
    "pix2pix": "a pix2pix",
    "cyclegan": "a CycleGAN (cyclegan)",
    "oasis": "an OASIS (oasis)",
    "cc-fpse": "a CC-FPSE (cc-fpse)",
}
NUMBERED = re.compile(r"(.+)_(\d+)")  # networks of one domain: D_0, ggdr_0


def combogan_configs(snapshot: Snapshot) -> tuple[ComboGANGeneratorConfig, ComboGANDiscriminatorConfig]:
    """Settings of a snapshot's generator, and of all its discriminators.

    Raises:
        SnapshotError: it is of another model, one is missing or of another kind, or discriminators differ.
    """
    model = model_of(snapshot)
    if model in OTHERS:
        raise SnapshotError(f"{snapshot.path}: is {OTHERS[model]}, expected a ComboGAN")
    G = network_configs(snapshot, {"G": (ComboGANGeneratorConfig,)})["G"]
    kinds = {f"D_{i}": (ComboGANDiscriminatorConfig,) for i in range(G.domains)}
    first, *others = network_configs(snapshot, kinds).values()
    if any(config != first for config in others):
        raise SnapshotError(f"{snapshot.path}: its discriminators have different settings")
    return G, first


def combogan_names(snapshot: Snapshot) -> list[str]:
    """What the domains of a snapshot are called; raises SnapshotError as `combogan_configs` and `domain_names` do."""
    return list(domain_names(snapshot, numbered(combogan_configs(snapshot)[0].domains)))


def with_domain(snapshot: Snapshot, name: str, generator: torch.Generator) -> Snapshot:
    """The snapshot with one more domain, the last, whose weights are drawn; see `combogan_domains.add_domain`.

    Raises:
        SnapshotError: it is none of ComboGAN, or damaged.
        ValueError: it has a domain of this name.
    """
    G, D, names = _restored(snapshot)
    if name in names:
        raise ValueError(f"{snapshot.path} has a domain {name!r} already; its domains are {_listed(names)}")
    return _changed(snapshot, *add_domain(G, D, generator), [*names, name], lambda number: number)


def without_domain(snapshot: Snapshot, name: str) -> Snapshot:
    """The snapshot without a domain; those behind it move up, in the settings of its run, too.

    Raises:
        SnapshotError: it is none of ComboGAN, or damaged.
        ValueError: it has no such domain, or only two.
    """
    G, D, names = _restored(snapshot)
    if name not in names:
        raise ValueError(f"{snapshot.path} has no domain {name!r}; its domains are {_listed(names)}")
    if len(names) == 2:
        raise ValueError(f"{snapshot.path} has two domains, {_listed(names)}, and needs both")
    gone = names.index(name)
    smaller = _changed(
        snapshot,
        *remove_domain(G, D, gone),
        [each for each in names if each != name],
        lambda number: None if number == gone else number - (number > gone),
    )
    training = snapshot.config.get("training")
    if not isinstance(training, Mapping):
        return smaller
    return replace(smaller, config={**smaller.config, "training": _training(training, gone, smaller.config["G"])})


def _restored(snapshot: Snapshot) -> tuple[ComboGANGenerator, list[ComboGANDiscriminator], list[str]]:
    """G, the discriminators, and the names of their domains."""
    G, D = combogan_configs(snapshot)

    def restored(key: str, config: NetworkConfig) -> Any:
        return restore_network(lambda: build_network(config), snapshot, key, "cpu")

    return restored("G", G), [restored(f"D_{i}", D) for i in range(G.domains)], combogan_names(snapshot)


def _changed(
    snapshot: Snapshot,
    G: ComboGANGenerator,
    D: Sequence[ComboGANDiscriminator],
    names: list[str],
    number: Callable[[int], int | None],
) -> Snapshot:
    """The snapshot with these networks.

    Args:
        number: what becomes of a domain's number; None where it is gone.
    """
    networks: dict[str, dict[str, Tensor]] = {}
    for key, state in snapshot.networks.items():
        match = NUMBERED.fullmatch(key)
        new = number(int(match[2])) if match else None
        if match is None or new is not None:
            networks[key if match is None else f"{match[1]}_{new}"] = state
    nets = {"G": G, **{f"D_{i}": net for i, net in enumerate(D)}}
    kept = {key: value for key, value in snapshot.config.items() if not re.fullmatch(r"D_\d+", key)}
    settings = {name: net.config.to_json() for name, net in nets.items()}
    states = {name: net.state_dict() for name, net in nets.items()}
    return Snapshot(snapshot.path, {**kept, **settings, "domains": names}, {**networks, **states})


def _training(training: Mapping[str, Any], gone: int, G: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run as if it had not had a domain, nor left any as it was."""
    data = training.get("data")
    if isinstance(data, Mapping):
        lists = {name: data[name] for name in ("domains", "num_images") if isinstance(data.get(name), (list, tuple))}
        data = {**data, **{name: [x for i, x in enumerate(items) if i != gone] for name, items in lists.items()}}
    return {**training, "G": G, "frozen": [], **({} if data is None else {"data": data})}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(printable(name, 100) for name in names)
