# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks in the pickles of StyleGAN2-ADA, the StyleGAN3 release and GGDR; nothing in the file is run.

Such a file is a dict of G, D, G_ema and others. Each network is a tree of modules, of which the class's name, the
source text (never looked at) and all attributes were written down.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

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
from ggdr.stylegan2.weights.nvidia_pickle import NETWORK, load_published
from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError, Record
from ggdr.torch_utils.untrusted.state_dicts import separate_weights
from ggdr.torch_utils.untrusted.text import printable

MAX_MODULES = 2000  # a discriminator of 1024x1024 has 50
MAX_DEPTH = 8
SUPPORTED = "supported are StyleGAN2 networks of StyleGAN2-ADA PyTorch, the StyleGAN3 release and GGDR"

# Layers without activation; all others have leaky ReLU.
LINEAR = re.compile(r"(affine|embed|skip|out|b\d+_dec)")
# The layers whose outputs are clamped, if any are.
CLAMPED = re.compile(r"(conv0|conv1|conv|torgb|fromrgb)")


@dataclass(frozen=True)
class Module:
    """One module of a pickled network."""

    name: str  # dotted, "" for the network itself
    class_name: str
    attributes: dict[str, Any]
    tensors: State

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]


def read_published(path: str | os.PathLike) -> ImportedNetworks:
    """Reads the networks of a pickle.

    Raises:
        ForeignNetworkError: the file is damaged or hostile, or its networks are none that ours can represent.
        OSError: it cannot be read.
    """
    try:
        content = load_published(path)
    except InertPickleError as error:
        if (error.name or "").startswith("dnnlib.tflib"):
            raise ForeignNetworkError(f"a pickle of StyleGAN for TensorFlow; {SUPPORTED}") from error
        raise ForeignNetworkError(f"not a pickle of StyleGAN2 networks: {error}") from error
    if isinstance(content, Record):
        content = {"G_ema": content}
    if not isinstance(content, dict):
        raise ForeignNetworkError(f"a pickle of a {type(content).__name__}, not of networks; {SUPPORTED}")
    nets = {name: list(modules(content[name], name)) for name in ("G", "D", "G_ema") if content.get(name) is not None}
    if not nets:
        keys = ", ".join(printable(key, 40) for key in list(content)[:10])
        raise ForeignNetworkError(f"a pickle without G, D or G_ema (it has {keys or 'nothing'}); {SUPPORTED}")

    result = ImportedNetworks("pickle of StyleGAN2-ADA", {})
    for name in ("G_ema", "G"):
        if name in nets:
            _add_generator(result, nets[name], name)
    if "D" in nets:
        _add_discriminator(result, nets["D"])
    result.complete()
    if content.get("augment_pipe") is not None:
        _add_augmentation(result, content["augment_pipe"])
    return result


def modules(value: Any, what: str) -> Iterator[Module]:
    """All modules of a pickled network, each before the ones in it.

    Raises:
        ForeignNetworkError: it is something else, or deeper or larger than any.
    """
    # Visited one by one, and each record once: records may share parts, or hold themselves.
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    seen: set[int] = set()
    while stack:
        name, record, depth = stack.pop()
        where = f"{what}.{printable(name, 80)}" if name else what
        match record:
            case Record(name=kind, args=({"type": "class", "class_name": str(class_name), "state": dict(state)},)):
                pass
            case _:
                raise ForeignNetworkError(f"{where} is a {_kind(record)}, not a network; {SUPPORTED}")
        if kind != NETWORK or id(record) in seen or len(seen) >= MAX_MODULES or depth > MAX_DEPTH:
            raise ForeignNetworkError(f"{where} is not built as a network is; {SUPPORTED}")
        seen.add(id(record))
        groups = [state.get(key, {}) for key in ("_parameters", "_buffers", "_modules")]
        if not all(isinstance(group, dict) and all(isinstance(key, str) for key in group) for group in groups):
            raise ForeignNetworkError(f"{where} has no parameters, buffers and modules by name")
        tensors = {key: value for group in groups[:2] for key, value in group.items() if value is not None}
        if not all(isinstance(value, Tensor) for value in tensors.values()):
            raise ForeignNetworkError(f"{where} has parameters that are no tensors")
        yield Module(name, class_name, state, tensors)
        stack += [(f"{name}.{key}".lstrip("."), child, depth + 1) for key, child in groups[2].items()]


def _said(value: Any) -> str:
    """A value for a message; of a container only its type, since writing it out may take forever."""
    return printable(value, 40) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _kind(value: Any) -> str:
    return f"pickled {value.name}" if isinstance(value, Record) else type(value).__name__


def _state(net: list[Module]) -> State:
    """All tensors by dotted name."""
    return {f"{m.name}.{key}".lstrip("."): value for m in net for key, value in m.tensors.items()}


def _add_generator(result: ImportedNetworks, net: list[Module], name: str) -> None:
    by_name = {m.name: m for m in net}
    if "synthesis.input" in by_name:
        raise ForeignNetworkError(f"{name} is a StyleGAN3 generator; {SUPPORTED}")
    state = _state(net)
    settings = {
        "mapping_lr_multiplier": _number(by_name.get("mapping.fc0"), "bias_gain", 0.01),
        "conv_clamp": _conv_clamp(net, name),
        "num_half_res": _num_half_res(net),
    }
    config = generator_config(state, name, **settings)
    _check_layers(net, name, mapping_lr=config.mapping_lr_multiplier)
    weights, has_mean = generator_weights(state, config, name)
    if not has_mean:
        result.notes.append(f"{name} has no mean w; it was computed from 10,000 latents")
    result.add(name, weights)
    if result.G is not None and result.G != config:
        raise ForeignNetworkError(f"G and G_ema are of different settings: {config} and {result.G}")
    result.G = config


def _add_discriminator(result: ImportedNetworks, net: list[Module]) -> None:
    by_name = {m.name: m for m in net}
    state = _state(net)
    decoder = {name: value for name, value in state.items() if re.match(r"b\d{1,5}_dec\.", name)}
    state = {name: value for name, value in state.items() if name not in decoder}
    if not any(name.startswith("b4.") for name in state):
        raise ForeignNetworkError(f"D is a {printable(net[0].class_name, 80)} without a block b4; {SUPPORTED}")
    group_size = by_name["b4.mbstd"].attributes.get("group_size") if "b4.mbstd" in by_name else GROUP_SIZE
    if group_size is not None and not (type(group_size) is int and 0 < group_size <= 4096):
        raise ForeignNetworkError(f"D's minibatch-std group size is {_said(group_size)}")
    settings = {
        "mbstd_group_size": group_size,
        "conv_clamp": _conv_clamp(net, "D"),
        "num_half_res": _num_half_res(net),
    }
    config = discriminator_config(state, "D", **settings)
    # Ours maps labels at a hundredth of the learning rate, as published ones do.
    _check_layers(net, "D", mapping_lr=0.01)
    result.add("D", fit_weights(state, config, "D"))
    result.D = config
    if decoder:
        result.kind = "pickle of GGDR"
        result.add("ggdr", separate_weights(decoder, "the GGDR decoder"))
        result.guides = (max(int(name[1:].partition("_")[0]) for name in decoder),)


def _add_augmentation(result: ImportedNetworks, value: Any) -> None:
    """Keeps ADA's p for information, if it is there; augmentation itself is not part of a snapshot."""
    p = next(modules(value, "augment_pipe")).tensors.get("p")
    if p is not None and p.numel() == 1 and p.is_floating_point() and math.isfinite(p.item()):
        result.facts["augment_p"] = p.item()


# What the attributes say, against what our layers do.


def _check_layers(net: list[Module], what: str, *, mapping_lr: float) -> None:
    """Raises ForeignNetworkError where a layer is built alike, but computes something else than ours."""
    for m in net:
        expected: dict[str, Any] = {"use_noise": True}
        if m.name.startswith("mapping.fc"):
            expected |= {"activation": "lrelu", "bias_gain": mapping_lr}
        elif "weight" in m.tensors:
            expected |= {"activation": "linear" if LINEAR.fullmatch(m.leaf) else "lrelu", "bias_gain": 1}
            in_G = "synthesis." in m.name
            doubles = (in_G and m.leaf in ("conv0", "skip")) or m.leaf.endswith("_dec")
            halves = not in_G and m.leaf in ("conv1", "skip")
            expected |= {"up": 2 if doubles else 1, "down": 2 if halves else 1}
        for key, value in expected.items():
            found = m.attributes.get(key, value)
            if type(found) not in (str, int, float, bool) or found != value:
                raise ForeignNetworkError(
                    f"{what}.{printable(m.name, 80)} has {key} {_said(found)}; supported is {value}"
                )


def _number(module: Module | None, key: str, default: float) -> float:
    """A number among a module's attributes."""
    value = default if module is None else module.attributes.get(key, default)
    if type(value) not in (int, float) or not 0 < value <= 1e9:
        raise ForeignNetworkError(f"{module.name} has {key} {_said(value)}; expected a positive number")
    return float(value)


def _conv_clamp(net: list[Module], what: str) -> float | None:
    """The bound on activations that all convolutions have."""
    found = {m.attributes.get("conv_clamp") for m in _clamped(net)}
    if len(found) > 1:
        raise ForeignNetworkError(f"{what} has layers of several bounds on activations; supported is one of all layers")
    value = found.pop() if found else None
    return None if value is None else float(value)


def _clamped(net: list[Module]) -> Iterator[Module]:
    for m in net:
        value = m.attributes.get("conv_clamp")
        # The fromRGB layer at 4x4, which only "skip" discriminators have, is never clamped.
        if CLAMPED.fullmatch(m.leaf) and m.name != "b4.fromrgb" and "weight" in m.tensors:
            if value is not None and (type(value) not in (int, float) or not 0 < value <= 1e9):
                raise ForeignNetworkError(f"{printable(m.name, 80)} has conv_clamp {_said(value)}")
            yield m


def _num_half_res(net: list[Module]) -> int:
    """The number of resolutions that were trained in float16."""
    return sum(m.attributes.get("use_fp16") is True for m in net)
