# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files of networks that others wrote, of whatever kind, as snapshots of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors

from ggdr.decoder import FeatureDecoder
from ggdr.scripts.importing.translators import ImportedTranslator, from_snapshot, from_state_dict
from ggdr.stylegan2.snapshot import discriminator_of, generator_of
from ggdr.stylegan2.weights.common import ForeignNetworkError, ImportedNetworks, check_shapes
from ggdr.stylegan2.weights.nvidia import read_published
from ggdr.stylegan2.weights.rosinality import NAMESPACE, from_rosinality, is_rosinality
from ggdr.stylegan2.weights.state_dict import from_plain, is_plain
from ggdr.torch_utils.checkpoint import SNAPSHOT_FORMAT, STATE_FORMAT, SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.downloads import sha256_of
from ggdr.torch_utils.restore import ShapesOnly
from ggdr.torch_utils.snapshot_kinds import holds_translator
from ggdr.torch_utils.untrusted.json_text import MAX_BYTES, parse_json
from ggdr.torch_utils.untrusted.regular_files import open_regular, read_regular
from ggdr.torch_utils.untrusted.text import printable
from ggdr.torch_utils.untrusted.torch_files import LEGACY, ZIP, TensorFileError, read_tensor_file
from ggdr.translation.weights import is_translator


def read_foreign(
    path: Path, *, domains: Sequence[str] | None = None, dropout: bool | None = None
) -> ImportedNetworks | ImportedTranslator:
    """The networks of a file, whatever wrote it; code in it is not run.

    Args:
        domains, dropout: of a translator; see `from_state_dict`.

    Raises:
        ForeignNetworkError: it holds none that ours can represent, or is damaged; or it is no translator and something
                             of one was given. The message names no file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        start = file.read(16)
    about = {"domains": domains, "dropout": dropout}
    if start.startswith((ZIP, LEGACY)):
        result = _from_torch_file(path, about)
    elif start[8:9] == b"{" and path.suffix == ".safetensors":
        result = _from_safetensors(path, about)
    else:
        result = read_published(path)
    if isinstance(result, ImportedTranslator):
        return result
    _refuse_given(result.kind, about)
    _check_decoder(result)
    return result


def import_file(
    source: Path,
    dest: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    domains: Sequence[str] | None = None,
    dropout: bool | None = None,
) -> tuple[ImportedNetworks | ImportedTranslator, dict[str, Any]]:
    """Writes the networks of a file as a snapshot; returns them, and what it says about their origin.

    Args:
        url:    where the file was downloaded from.
        sha256: of the file; None: not computed yet.
        domains, dropout: as of `read_foreign`.

    Raises:
        ForeignNetworkError, OSError: as `read_foreign`; `dest` stays as it was.
    """
    result = read_foreign(source, domains=domains, dropout=dropout)
    config = result.config()
    origin = {"file": source.name, "sha256": sha256 or sha256_of(source), "format": result.kind, **result.facts}
    origin |= {} if url is None else {"url": url}
    # A copied snapshot may have been imported before.
    origin |= {"source": config["source"]} if "source" in config else {}
    save_snapshot(dest, result.networks, {**config, "source": origin})
    return result, origin


def _refuse_given(kind: str, about: Mapping[str, Any]) -> None:
    """ForeignNetworkError where something was given that only translators have."""
    given = [name for name, value in about.items() if value is not None]
    if given:
        raise ForeignNetworkError(f"{kind}: {given[0]} is for state dicts of image translation")


def _from_torch_file(path: Path, about: Mapping[str, Any]) -> ImportedNetworks | ImportedTranslator:
    try:
        content = read_tensor_file(path, records=(NAMESPACE,))
    except TensorFileError as error:
        raise ForeignNetworkError(str(error).removeprefix(f"{path}: ")) from error
    if is_rosinality(content):
        return from_rosinality(content)
    if is_plain(content):
        return from_plain(content, _settings_beside(path))
    if isinstance(content, dict) and content.get("format") == STATE_FORMAT:
        raise ForeignNetworkError("a training state; the networks of its run are in network-snapshot-*.safetensors")
    translator = _from_translator(content, path, about)
    if translator is None:
        raise ForeignNetworkError(
            "a file of torch.save, but neither a checkpoint of stylegan2-pytorch (g_ema, d) nor state dicts of "
            "ours (G_ema, G, D), and no network of image translation (latest_net_G.pth)"
        )
    return translator


def _from_translator(content: Any, path: Path, about: Mapping[str, Any]) -> ImportedTranslator | None:
    """The generator of a state dict that is one of image translation, or that stands beside the settings of one."""
    settings = _settings_beside(path) or {}
    known = settings if "network" in settings else None
    return from_state_dict(content, known, **about) if known is not None or is_translator(content) else None


def _from_safetensors(path: Path, about: Mapping[str, Any]) -> ImportedNetworks | ImportedTranslator:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            is_snapshot = (file.metadata() or {}).get("format") == SNAPSHOT_FORMAT
            content = {} if is_snapshot else {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:  # damaged headers end in errors of several libraries
        raise ForeignNetworkError(f"a damaged safetensors file: {printable(error)}") from error
    if is_snapshot:
        return _from_snapshot(path, about)
    if is_plain(content):
        return from_plain(content, _settings_beside(path))
    translator = _from_translator(content, path, about)
    if translator is None:
        raise ForeignNetworkError("a safetensors file, but neither a snapshot nor a state dict of ours")
    return translator


def _settings_beside(path: Path) -> dict[str, Any] | None:
    """What `ggdr export` writes beside a state dict."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        settings = parse_json(read_regular(beside, MAX_BYTES))["settings"]
        return dict(settings)
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = printable(error)
        raise ForeignNetworkError(f"{beside.name} beside it holds no settings of a network: {reason}") from error


def _from_snapshot(path: Path, about: Mapping[str, Any]) -> ImportedNetworks | ImportedTranslator:
    """A snapshot of ours, built once to be sure of it."""
    _refuse_given("a snapshot", about)
    try:
        snapshot = load_snapshot(path)
        if holds_translator(snapshot.config):
            return from_snapshot(snapshot)
        G = generator_of(snapshot) if "G_ema" in snapshot.networks else None
        D = discriminator_of(snapshot) if "D" in snapshot.networks else None
    except SnapshotError as error:
        raise ForeignNetworkError(str(error).removeprefix(f"{path}: ")) from error
    if G is None and D is None:
        raise ForeignNetworkError("a snapshot without G_ema and D")
    return ImportedNetworks("snapshot", snapshot.networks, G and G.config, D and D.config, settings=snapshot.config)


def _check_decoder(result: ImportedNetworks) -> None:
    """Leaves out a GGDR decoder that ours cannot be loaded with."""
    if result.D is None or not result.guides:
        return
    D, weights = result.D, result.networks["ggdr"]
    (guide,) = result.guides
    try:
        sizes = [2**i for i in range(2, D.img_resolution.bit_length())]
        if guide not in sizes:
            raise ForeignNetworkError(f"it predicts maps of {guide}x{guide} pixels")
        channels = result.G.channels(guide) if result.G is not None else weights[f"b{guide}_dec.weight"].shape[0]
        encoder = {f"b{2 * res}": (D.channels(res), res, res) for res in sizes[:-1]}
        with ShapesOnly():
            decoder = FeatureDecoder(encoder, {"guide": (channels, guide, guide)})
        check_shapes(weights, {name: t.shape for name, t in decoder.state_dict().items()}, "the GGDR decoder")
    except (LookupError, ValueError) as error:
        del result.networks["ggdr"]
        result.guides = ()
        result.notes.append(f"the GGDR decoder is left out, since ours is built otherwise: {error}")
