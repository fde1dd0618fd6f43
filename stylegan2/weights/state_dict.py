# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from plain state dicts in the names of ours, as `ggdr export` and training loops write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.weights.common import (
    GROUP_SIZE,
    ForeignNetworkError,
    ImportedNetworks,
    State,
    discriminator_config,
    fit_weights,
    generator_config,
    generator_weights,
)
from ggdr.torch_utils.untrusted.state_dicts import bare_name, tensors_of
from ggdr.torch_utils.untrusted.text import printable

G_MARK, D_MARK = "synthesis.b4.const", "b4.fc.weight"
NAMES = ("G_ema", "G", "D")  # of the networks in a checkpoint


def is_plain(content: Any) -> bool:
    """Whether this is a state dict of a generator or discriminator, or a dict of such under the names of ours."""
    return _holds_network(content) or bool(_networks(content))


def from_plain(content: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> ImportedNetworks:
    """The networks of a state dict, or of a checkpoint {"G_ema": ..., "G": ..., "D": ...} of state dicts.

    Args:
        content:  tensors by name, or state dicts by network; whatever else a checkpoint holds is left out.
        settings: of the one network, where they are known; else they are read off the shapes, and those that shapes
                  do not tell are the usual ones.

    Raises:
        ForeignNetworkError: it is no network of ours, or settings and weights do not fit.
    """
    if _holds_network(content):
        result = ImportedNetworks("state dict", {})
        state = tensors_of(content, "the state dict")
        if G_MARK in state:
            _add_generator(result, "G_ema", state, "the generator", settings)
        else:
            _add_discriminator(result, state, "the discriminator", settings)
    else:
        result, settings = ImportedNetworks("checkpoint of state dicts", {}), None
        for name, value in _networks(content).items():
            if name == "D":
                _add_discriminator(result, tensors_of(value, name), name, None)
            else:
                _add_generator(result, name, tensors_of(value, name), name, None)
        result.complete()
    if settings is None:
        result.notes.append(
            "settings that weights do not tell are the usual ones: clamping none, the mapping's learning rate 0.01, "
            "minibatch-std groups of 4"
        )
    return result


def _holds_network(content: Any) -> bool:
    """Whether it has the names of a generator's or discriminator's weights."""
    names = (name for name in content if isinstance(name, str)) if isinstance(content, dict) else ()
    return any(bare_name(name) in (G_MARK, D_MARK) for name in names)


def _networks(content: Any) -> dict[str, Any]:
    """The networks of a checkpoint, in the order of NAMES."""
    found = content if isinstance(content, dict) else {}
    return {name: found[name] for name in NAMES if _holds_network(found.get(name))}


def _add_generator(
    result: ImportedNetworks, name: str, state: State, what: str, settings: Mapping[str, Any] | None
) -> None:
    config = _config(GeneratorConfig, settings) or generator_config(state, what)
    if result.G is not None and result.G != config:
        raise ForeignNetworkError("G and G_ema are of different sizes")
    weights, has_mean = generator_weights(state, config, what)
    if not has_mean:
        result.notes.append(f"the file has no mean w of {what}; it was computed from 10,000 latents")
    result.add(name, weights)
    result.G = config


def _add_discriminator(result: ImportedNetworks, state: State, what: str, settings: Mapping[str, Any] | None) -> None:
    result.D = _config(DiscriminatorConfig, settings) or discriminator_config(state, what, mbstd_group_size=GROUP_SIZE)
    result.add("D", fit_weights(state, result.D, what))


def _config(kind: type, settings: Mapping[str, Any] | None) -> Any:
    try:
        return None if settings is None else kind(**settings)
    except (TypeError, ValueError) as error:
        reason = printable(error)
        raise ForeignNetworkError(f"the settings beside the state dict are of no network: {reason}") from error
