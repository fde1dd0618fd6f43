# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The networks that a run starts from: their settings, which become the run's, and whether they fit its data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.importing.provenance import imported_from, started_from
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.snapshot import config_from_snapshot
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.snapshot_kinds import refuse_translator
from ggdr.torch_utils.untrusted.text import printable


@dataclass(frozen=True)
class StartNetworks:
    """Settings of G and D, the file or run that they are from, and the file that their weights were imported from."""

    origin: str
    G: GeneratorConfig
    D: DiscriminatorConfig
    source: dict[str, Any] | None = None

    def has_channels(self, *, base: int | None = None, most: int | None = None) -> bool:
        """Whether a channel base or maximum, in place of the networks' own, gives the same feature maps."""
        return all(
            min((config.channel_base if base is None else base) // res, config.channel_max if most is None else most)
            == config.channels(res)
            for config in (self.G, self.D)
            for res in (2**i for i in range(2, config.img_resolution.bit_length()))
        )


def of_snapshot(snapshot: Snapshot) -> StartNetworks:
    """The networks of a snapshot.

    Raises:
        SnapshotError: it lacks one, or settings.
    """
    refuse_translator(snapshot)
    if "D" not in snapshot.networks:
        raise SnapshotError(
            f"{snapshot.path}: holds {', '.join(snapshot.networks)}, but no D; training goes on with both networks, so "
            "that it can only start from a snapshot that has a discriminator"
        )
    if not {"G", "G_ema"} & snapshot.networks.keys():
        raise SnapshotError(f"{snapshot.path}: holds {', '.join(snapshot.networks)}, but no generator")
    G = config_from_snapshot(snapshot, "G", GeneratorConfig)
    D = config_from_snapshot(snapshot, "D", DiscriminatorConfig)
    source = imported_from(snapshot.config) or started_from(snapshot.config)
    return StartNetworks(str(snapshot.path), G, D, source or None)


def of_options(stored: Mapping[str, Any], origin: str) -> StartNetworks:
    """The networks of a run, from its training_options.json; raises SnapshotError if that is damaged."""
    try:
        G, D = GeneratorConfig(**stored["G"]), DiscriminatorConfig(**stored["D"])
        return StartNetworks(origin, G, D, stored.get("init_source"))
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"{origin}: settings of G and D are missing or damaged: {printable(error)}") from error


def check_fits(start: StartNetworks, command: Mapping[str, Any], *, resolution: int, channels: int, c_dim: int) -> None:
    """Compares networks with what the user asks for.

    Args:
        command:    the options of `ggdr train` by parameter name; None where not given.
        resolution: of the dataset; also channels, and c_dim, its classes if it is used with labels.

    Raises:
        OptionError: they differ, with the option to change.
    """
    G, origin = start.G, start.origin
    if (resolution, channels) != (G.img_resolution, G.img_channels):
        convert = ["ggdr", "dataset", str(command["data"]), "NEW.zip", "--resolution", str(G.img_resolution)]
        convert += [] if G.img_channels == 3 else ["--channels", str(G.img_channels)]
        convert += ["--small", "upscale"] if resolution < G.img_resolution else []
        raise OptionError(
            "--data",
            f"its images are {resolution}x{resolution}x{channels}, and {origin} is for "
            f"{G.img_resolution}x{G.img_resolution}x{G.img_channels}; convert them: {shlex.join(convert)}",
        )
    if c_dim != G.c_dim:
        if G.c_dim == 0:
            raise OptionError("--cond", f"{origin} has no classes; leave --cond out")
        if c_dim == 0:
            raise OptionError("--cond", f"{origin} has {G.c_dim} classes; give --cond, with a dataset of as many")
        raise OptionError("--data", f"it has {c_dim} classes, and {origin} has {G.c_dim}; they must be the same")
    for name, part in (("channel_base", "base"), ("channel_max", "most")):
        value = command.get(name)
        if value is not None and not start.has_channels(**{part: value}):
            raise OptionError(
                "--" + name.replace("_", "-"),
                f"{origin} has {name} {getattr(G, name)} (this run: {value}); leave the option out to use the former",
            )
