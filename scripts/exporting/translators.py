# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which network of a translator's snapshot is exported, and between which domains."""

from __future__ import annotations

import click
from torch import nn

from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.translating.directions import Placed, choose_directions
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.export_formats import Part
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import config_from_json
from ggdr.translation.export_part import has_dropout, translator_part
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import translator_of
from ggdr.translation.translator import LayoutTranslator, Translator


def open_direction(snapshot: Snapshot, source: str | None, target: str | None) -> tuple[Translator, tuple[str, str]]:
    """A translator, and the domains between which it is exported.

    Raises:
        click.BadParameter: the snapshot cannot be read, or a domain is unknown or missing.
    """
    try:
        translator = translator_of(snapshot)
    except SnapshotError as error:
        raise bad_parameter(str(error), "--network") from error
    if source is None and len(translator.domains) > 2:
        text = f"{snapshot.path} is a {translator.model} of {len(translator.domains)} domains: say from which"
        raise click.MissingParameter(text, param_hint="'--from'", param_type="option")
    (direction,) = choose_directions(translator, snapshot.path, source, target, [Placed(str(snapshot.path), "")])
    return translator, direction


def open_translator_part(
    snapshot: Snapshot, source: str | None, target: str | None
) -> tuple[Part, dict[str, str], list[str]]:
    """The function to export, what its file says of itself, and notes on it; raises as `open_direction`."""
    translator, (source, target) = open_direction(snapshot, source, target)
    if isinstance(translator, LayoutTranslator):
        text = f"{snapshot.path} is of {translator.model}: expected a file of weights alone, .safetensors or .pt"
        raise bad_parameter(text, "--out")
    about = {"network": translator.model, "part": "generator", "snapshot": snapshot.path.name}
    about |= {} if snapshot.nimg is None else {"kimg": f"{snapshot.nimg / 1000:g}"}
    about |= {"from": source, "to": target}
    notes = []
    if has_dropout(translator, source):
        about["dropout"] = "off"
        notes.append("dropout is off in the file, and on in `ggdr translate apply`, so that its images differ")
    return translator_part(translator, source, target), about, notes


def open_translator_network(
    snapshot: Snapshot, part: str, source: str | None, target: str | None
) -> tuple[str, nn.Module]:
    """Name and network of the generator or discriminator of a direction; BadParameter if it is not there."""
    translator, (source, target) = open_direction(snapshot, source, target)
    kind = "D" if part == "discriminator" else "G"
    name = kind
    if translator.model == "CycleGAN":
        name = f"{kind}_{'AB'[translator.domains.index(source)]}"
    elif translator.model == "ComboGAN" and kind == "D":
        name = f"D_{translator.domains.index(target)}"
    settings = snapshot.config.get(name)
    if isinstance(translator, LayoutTranslator) and kind == "G":
        name = "G_ema"
    if name not in snapshot.networks:
        raise bad_parameter(f"{snapshot.path} holds {printable(', '.join(snapshot.networks))}, but no {name}", "--part")
    try:
        config = config_from_json(settings)
        return name, restore_network(lambda: build_network(config), snapshot, name, "cpu")
    except ValueError as error:
        raise bad_parameter(f"{snapshot.path}: {name}: {printable(error)}", "--network") from error
