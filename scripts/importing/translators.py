# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Translators that others trained: one generator, or several files of networks that belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, save_snapshot
from ggdr.torch_utils.downloads import sha256_of
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.untrusted.state_dicts import ForeignNetworkError, State
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import ComboGANGeneratorConfig, NetworkConfig, UnetGeneratorConfig, config_from_json
from ggdr.translation.networks import build_network
from ggdr.translation.published import GENERATORS, NAME, assemble, name_domains
from ggdr.translation.weights import RecognizedNetwork, read_published, recognize

FILE = re.compile(rf"(?P<epoch>latest|\d{{1,9}})_net_(?P<name>{NAME.pattern})\.pth")


@dataclass
class ImportedTranslator:
    """A translator, as `ImportedNetworks` is a StyleGAN2.

    Attributes:
        kind:     what was read, for people.
        networks: state dicts by name.
        settings: of the snapshot.
        facts:    whatever else is worth keeping, as JSON.
        notes:    to tell the user.
    """

    kind: str
    networks: dict[str, State]
    settings: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def config(self) -> dict[str, Any]:
        """The settings as a snapshot stores them."""
        return dict(self.settings)

    @property
    def configs(self) -> dict[str, NetworkConfig]:
        """Those of the networks."""
        return {name: config_from_json(self.settings[name]) for name in self.networks if name in self.settings}


def from_state_dict(
    content: Mapping[str, Tensor],
    settings: Mapping[str, Any] | None = None,
    *,
    domains: Sequence[str] | None = None,
    dropout: bool | None = None,
) -> ImportedTranslator:
    """The one generator of a state dict.

    Args:
        settings: of the network, where a file beside it has them; else they are read off the weights.
        domains:  names of ComboGAN's.
        dropout:  see `assemble`.

    Raises:
        ForeignNetworkError: it is another network, or settings and weights do not fit.
    """
    try:
        known = None if settings is None else config_from_json(settings)
    except ValueError as error:
        raise ForeignNetworkError(f"the settings beside the state dict are of no network: {error}") from error
    found = recognize(content, known)
    if isinstance(found.config, ComboGANGeneratorConfig):
        names = name_domains(domains, found.config.domains)
        config = {"G": found.config.to_json(), "domains": list(names)}
        return ImportedTranslator("state dict of ComboGAN", {"G": found.weights}, config)
    if not isinstance(found.config, GENERATORS):
        raise ForeignNetworkError(
            f"a {found.config.network}, which makes no images by itself; expected a generator, or the folder with all "
            "networks (or each as --net NAME=FILE)"
        )
    if isinstance(known, UnetGeneratorConfig) and dropout is None:
        dropout = known.dropout
    return _assembled(f"state dict of a {found.config.network}", {"G": found}, domains, dropout)


def from_snapshot(snapshot: Snapshot) -> ImportedTranslator:
    """A snapshot of ours; its networks are built once to be sure of it.

    Raises:
        SnapshotError: they do not fit their settings, or there is no generator.
    """
    result = ImportedTranslator("snapshot", snapshot.networks, snapshot.config)
    try:
        configs = result.configs
    except ValueError as error:
        raise SnapshotError(f"{snapshot.path}: {printable(error)}") from error
    for name, config in configs.items():
        restore_network(lambda config=config: build_network(config), snapshot, name, "cpu")
    if not any(isinstance(config, (*GENERATORS, ComboGANGeneratorConfig)) for config in configs.values()):
        raise SnapshotError(f"{snapshot.path}: a snapshot without a generator")
    return result


def find_files(folder: Path) -> dict[str, Path]:
    """The networks of a folder of published files, by name: those of epoch `latest`, or else of the last.

    Raises:
        ForeignNetworkError: there are none.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := FILE.fullmatch(path.name)) and path.is_file():
            found.setdefault(match["epoch"], {})[match["name"]] = path
    if not found:
        raise ForeignNetworkError(
            "a folder without networks; expected files such as latest_net_G.pth or 200_net_G_A.pth"
        )
    files = found["latest" if "latest" in found else max(found, key=int)]
    return {name: files[name] for name in sorted(files, key=lambda name: (name[0] == "D", len(name), name))}


def import_translator(
    files: Mapping[str, Path],
    dest: Path,
    *,
    source: Path | None = None,
    domains: Sequence[str] | None = None,
    dropout: bool | None = None,
) -> tuple[ImportedTranslator, dict[str, Any]]:
    """Writes published networks, by their names, as one snapshot; returns them, and what it says of their origin.

    Args:
        source: the folder that they are from, if it is one.

    Raises:
        ForeignNetworkError, OSError: they cannot be read, or do not fit each other; `dest` stays as it was.
    """
    found = {}
    for name, path in files.items():
        try:
            found[name] = read_published(path)
        except ForeignNetworkError as error:
            raise ForeignNetworkError(f"{printable(path.name)}: {error}") from error
    result = _assembled("", found, domains, dropout)
    parts = {name: {"file": path.name, "sha256": sha256_of(path)} for name, path in files.items()}
    origin = {"format": result.kind, "files": parts}
    origin |= {} if source is None else {"file": source.resolve().name}
    save_snapshot(dest, result.networks, {**result.config(), "source": origin})
    return result, origin


def _assembled(
    kind: str, found: Mapping[str, RecognizedNetwork], domains: Sequence[str] | None, dropout: bool | None
) -> ImportedTranslator:
    whole = assemble(found, domains=domains, dropout=dropout)
    kind = kind or f"{whole.model}, {len(found)} published files"
    return ImportedTranslator(kind, whole.networks, whole.config(), notes=whole.notes)
