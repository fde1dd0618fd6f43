# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which network of a snapshot is exported, and what of it."""

from __future__ import annotations

from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.pictures import check_cutoff
from ggdr.stylegan2 import Discriminator, Generator
from ggdr.stylegan2.snapshot import discriminator_of, generator_of
from ggdr.stylegan2.weights.export_parts import discriminator_part, generator_part
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.export_formats import Part


def open_network(snapshot: Snapshot, part: str) -> Generator | Discriminator:
    """The network that a part is of; BadParameter if the snapshot does not hold it, or cannot be read."""
    if part == "discriminator":
        check_discriminator(snapshot, "--part")
    try:
        return discriminator_of(snapshot) if part == "discriminator" else generator_of(snapshot)
    except SnapshotError as error:
        raise bad_parameter(str(error), "--network") from error


def check_discriminator(snapshot: Snapshot, option: str) -> None:
    """BadParameter if there is no discriminator, which `option` asks for."""
    if "D" not in snapshot.networks:
        raise bad_parameter(f"{snapshot.path} holds {', '.join(snapshot.networks)}, but no D", option)


def open_part(
    snapshot: Snapshot, part: str, *, truncation_psi: float | None, truncation_cutoff: int | None, noise_mode: str
) -> Part:
    """The function to export; truncation and noise are those of a generator, and psi is None if it is an input.

    Raises:
        click.BadParameter: the snapshot does not hold the network or cannot be read, or the cutoff is too large.
    """
    net = open_network(snapshot, part)
    if part == "discriminator":
        return discriminator_part(net)
    check_cutoff(snapshot.path, net, truncation_cutoff)
    how = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff, "noise_mode": noise_mode}
    return generator_part(net, part, **how)


def describe_part(
    snapshot: Snapshot, part: Part, *, truncation_psi: float | None, truncation_cutoff: int | None, noise_mode: str
) -> dict[str, str]:
    """What a file of a part says of itself; texts, as ONNX wants them."""
    known = {
        "network": "StyleGAN2",
        "part": part.name,
        "snapshot": snapshot.path.name,
        "kimg": None if snapshot.nimg is None else f"{snapshot.nimg / 1000:g}",
    }
    if part.name in ("generator", "mapping"):
        known["truncation_psi"] = "input" if truncation_psi is None else f"{truncation_psi:g}"
        known["truncation_cutoff"] = None if truncation_cutoff is None else str(truncation_cutoff)
    if part.name in ("generator", "synthesis"):
        known["noise_mode"] = noise_mode
    if part.name == "discriminator":
        known["minibatch_std_group"] = str(part.module.config.mbstd_group_size)
    return {key: value for key, value in known.items() if value is not None}
