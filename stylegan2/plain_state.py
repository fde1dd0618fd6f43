# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from plain state dicts in the names of ours, as `ggdr export` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stylegan2.config import DiscriminatorConfig, GeneratorConfig
from stylegan2.imported import (
    GROUP_SIZE,
    ForeignNetworkError,
    ImportedNetworks,
    discriminator_config,
    fitted,
    generator_config,
    generator_weights,
)
from torch_utils.printable import printable

G_MARK, D_MARK = "synthesis.b4.const", "b4.fc.weight"


def is_plain(content: Any) -> bool:
    """Whether this is a state dict of a generator or discriminator."""
    return isinstance(content, dict) and (G_MARK in content or D_MARK in content)


def from_plain(state: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> ImportedNetworks:
    """The network of a state dict.

    Args:
        state:    tensors by name.
        settings: of the network, where they are known; else they are read off the shapes, and those that shapes
                  do not tell are the usual ones.

    Raises:
        ForeignNetworkError: it is no network of ours, or settings and weights do not fit.
    """
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise ForeignNetworkError("the state dict holds more than tensors by name")
    result = ImportedNetworks("state dict", {})
    if G_MARK in state:
        config = _config(GeneratorConfig, settings) or generator_config(state, "the generator")
        weights, has_mean = generator_weights(state, config, "the generator")
        if not has_mean:
            result.notes.append("the file has no mean w; it was computed from 10,000 latents")
        result.G = config
        result.add("G_ema", weights)
    else:
        usual = {"mbstd_group_size": GROUP_SIZE}
        result.D = _config(DiscriminatorConfig, settings) or discriminator_config(state, "the discriminator", **usual)
        result.add("D", fitted(state, result.D, "the discriminator"))
    if settings is None:
        result.notes.append(
            "settings that weights do not tell are the usual ones: clamping none, the mapping's learning rate 0.01, "
            "minibatch-std groups of 4"
        )
    return result


def _config(kind: type, settings: Mapping[str, Any] | None) -> Any:
    try:
        return None if settings is None else kind(**settings)
    except (TypeError, ValueError) as error:
        reason = printable(error)
        raise ForeignNetworkError(f"the settings beside the state dict are of no network: {reason}") from error
