# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published networks that belong together, as one translator under the names of our snapshots.

pix2pix is published as the networks G and D, CycleGAN as G_A, G_B, D_A and D_B. ComboGAN's are numbered: its encoders,
what they share, its decoders and what these share are G0, G1, ..., its discriminators D0, D1, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ggdr.torch_utils.untrusted.state_dicts import ForeignNetworkError, State
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import (
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    DecoderConfig,
    EncoderConfig,
    NetworkConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    SharedConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.weights import RecognizedNetwork

GENERATORS = (ResnetGeneratorConfig, UnetGeneratorConfig)
DISCRIMINATORS = (PatchDiscriminatorConfig, PixelDiscriminatorConfig)
MODELS = {
    "pix2pix": r"G|D",
    "CycleGAN": r"[GD]_[AB]",
    "ComboGAN": r"[GD](0|[1-9]\d{0,3})",
}
NAME = re.compile("|".join(f"(?:{pattern})" for pattern in MODELS.values()))  # of a published network


@dataclass
class PublishedTranslator:
    """Networks of one translator, under the names of our snapshots.

    Attributes:
        model:    what they were trained as: "pix2pix", "CycleGAN" or "ComboGAN".
        networks: state dicts by name.
        configs:  settings by the same names.
        domains:  names of the domains; None for pix2pix, which has none.
        notes:    what its weights do not tell, and what was left out.
    """

    model: str
    networks: dict[str, State]
    configs: dict[str, NetworkConfig]
    domains: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)

    def config(self) -> dict[str, Any]:
        """The settings as a snapshot stores them."""
        named = {} if self.domains is None else {"domains": list(self.domains)}
        return {**{name: config.to_json() for name, config in self.configs.items()}, **named}


def model_of(names: Sequence[str]) -> str:
    """What networks of these published names were trained as.

    Raises:
        ForeignNetworkError: they are of several models, or a name is of none.
    """
    models = {name: next((m for m, pattern in MODELS.items() if re.fullmatch(pattern, name)), None) for name in names}
    unknown = [name for name, model in models.items() if model is None]
    if unknown:
        raise ForeignNetworkError(
            f"no network is called {printable(unknown[0])}; expected G and D (pix2pix), G_A, G_B, D_A and D_B "
            "(CycleGAN), or G0, G1, ... and D0, D1, ... (ComboGAN)"
        )
    if len(set(models.values())) > 1:
        some = {model: name for name, model in models.items()}
        listed = ", ".join(f"{name} of {model}" for model, name in some.items())
        raise ForeignNetworkError(f"networks of several models: {listed}; expected those of one")
    return next(iter(models.values()))


def assemble(
    found: Mapping[str, RecognizedNetwork], *, domains: Sequence[str] | None = None, dropout: bool | None = None
) -> PublishedTranslator:
    """One translator of networks by their published names.

    Discriminators may be missing, all together.

    Args:
        domains: their names, in order; None: "A" and "B" of CycleGAN, "0", "1", ... of ComboGAN.
        dropout: whether U-Nets have dropout, which weights do not tell; None: as published, those of pix2pix.

    Raises:
        ForeignNetworkError: a network is missing or does not fit the others; says which.
    """
    if not found:
        raise ForeignNetworkError("no networks")
    model = model_of(list(found))
    configs = {name: network.config for name, network in found.items()}
    networks = {name: network.weights for name, network in found.items()}
    notes = [f"{name}: {note}" for name, network in found.items() for note in network.notes]
    if model == "ComboGAN":
        configs, networks = _combogan(configs, networks)
        result = PublishedTranslator(model, networks, configs, name_domains(domains, configs["G"].domains), notes)
    elif model == "CycleGAN":
        _check_cyclegan(configs)
        result = PublishedTranslator(model, networks, configs, name_domains(domains, 2, "AB"), notes)
    else:
        if domains is not None:
            raise ForeignNetworkError("pix2pix has no names of domains; CycleGAN and ComboGAN have")
        _check_pix2pix(configs)
        result = PublishedTranslator(model, networks, configs, None, notes)
    _set_dropout(result, dropout)
    return result


def _set_dropout(result: PublishedTranslator, dropout: bool | None) -> None:
    """Gives U-Nets the dropout that they were trained with, as far as that is known."""
    unets = {name: c for name, c in result.configs.items() if isinstance(c, UnetGeneratorConfig)}
    if dropout is not None and not unets:
        raise ForeignNetworkError("weights of a U-Net alone do not tell whether it has dropout, and there is none")
    has_dropout = result.model == "pix2pix" if dropout is None else dropout
    for name, config in unets.items():
        result.configs[name] = replace(config, dropout=has_dropout)
    if unets and dropout is None:
        taken = "taken to have it" if has_dropout else "taken to have none"
        result.notes.append(f"weights do not tell whether a U-Net has dropout; as published, it is {taken}")


def name_domains(names: Sequence[str] | None, num: int, unnamed: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of so many domains; where there are none, those of `unnamed`, or "0", "1", ...

    Raises:
        ForeignNetworkError: they are others in number, or not all different.
    """
    if names is None:
        return tuple(unnamed or map(str, range(num)))
    if len(names) != num or len(set(names)) != num:
        raise ForeignNetworkError(f"domains: expected {num} different names, got {', '.join(names)}")
    return tuple(names)


def _expect(configs: Mapping[str, NetworkConfig], name: str, kinds: tuple[type[NetworkConfig], ...]) -> Any:
    """A network's settings, if it is of one of these kinds."""
    config = configs[name]
    if not isinstance(config, kinds):
        expected = " or a ".join(kind.network for kind in kinds)
        raise ForeignNetworkError(f"{name} is a {config.network}, expected a {expected}")
    return config


def _require(names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ForeignNetworkError(f"there is no {' and no '.join(missing)} beside {', '.join(names)}")


def _check_pix2pix(configs: Mapping[str, NetworkConfig]) -> None:
    _require(list(configs), ["G"])
    G = _expect(configs, "G", GENERATORS)
    if "D" not in configs:
        return
    D = _expect(configs, "D", DISCRIMINATORS)
    both = G.in_channels + G.out_channels
    if D.in_channels != both:
        raise ForeignNetworkError(
            f"D takes images of {D.in_channels} channels, expected {both}: pix2pix' D is given input and output of G "
            "together; the generator can be had without it"
        )


def _check_cyclegan(configs: Mapping[str, NetworkConfig]) -> None:
    _require(list(configs), ["G_A", "G_B"])
    a, b = (_expect(configs, name, GENERATORS) for name in ("G_A", "G_B"))
    if (a.in_channels, a.out_channels) != (b.out_channels, b.in_channels):
        raise ForeignNetworkError(
            f"G_A makes {a.out_channels} channels of {a.in_channels}, and G_B {b.out_channels} of {b.in_channels}; "
            "expected the same the other way round"
        )
    if "D_A" not in configs and "D_B" not in configs:
        return
    _require(list(configs), ["D_A", "D_B"])
    for name, G in (("D_A", a), ("D_B", b)):
        D = _expect(configs, name, DISCRIMINATORS)
        if D.in_channels != G.out_channels:
            raise ForeignNetworkError(f"{name} takes images of {D.in_channels} channels, expected {G.out_channels}")


def _combogan(
    configs: Mapping[str, NetworkConfig], networks: Mapping[str, State]
) -> tuple[dict[str, NetworkConfig], dict[str, State]]:
    """The one generator of all of G0, G1, ..., and the discriminators under our names."""
    in_order = {kind: sorted((n for n in configs if n[0] == kind), key=lambda name: int(name[1:])) for kind in "GD"}
    for kind, names in in_order.items():
        _require(list(configs), [f"{kind}{i}" for i in range(int(names[-1][1:]) if names else 0)])
    parts: dict[str, list[str]] = {"encoder": [], "shared_encoder": [], "decoder": [], "shared_decoder": []}
    kinds = {EncoderConfig: "encoder", DecoderConfig: "decoder", SharedConfig: "shared_"}
    for name in in_order["G"]:
        part = kinds[type(_expect(configs, name, tuple(kinds)))]
        if part == "shared_":
            part += "decoder" if parts["decoder"] else "encoder"
        if any(parts[later] for later in list(parts)[list(parts).index(part) + 1 :]):
            raise ForeignNetworkError(
                f"{name} is a {configs[name].network} behind G's decoders; expected encoders first"
            )
        parts[part].append(name)
    return {"G": _combogan_config(configs, parts), **_numbered(configs, in_order["D"], len(parts["encoder"]))}, {
        "G": {
            f"{prefix}.{key}": value
            for part, names in parts.items()
            for i, name in enumerate(names)
            for prefix in [part if part.startswith("shared") else f"{part}s.{i}"]
            for key, value in networks[name].items()
        },
        **{f"D_{i}": networks[name] for i, name in enumerate(in_order["D"])},
    }


def _numbered(configs: Mapping[str, NetworkConfig], names: Sequence[str], num: int) -> dict[str, NetworkConfig]:
    """The settings of the discriminators of so many domains, or of none, under our names."""
    if names and len(names) != num:
        raise ForeignNetworkError(f"expected a discriminator for each of {num} domains, got {', '.join(names)}")
    return {f"D_{name[1:]}": _expect(configs, name, (ComboGANDiscriminatorConfig,)) for name in names}


def _combogan_config(configs: Mapping[str, NetworkConfig], parts: Mapping[str, list[str]]) -> ComboGANGeneratorConfig:
    """The settings of the generator whose parts are these networks."""
    num = len(parts["encoder"])
    if num < 2 or len(parts["decoder"]) != num:
        raise ForeignNetworkError(
            f"expected an encoder and a decoder for each of two domains or more, got {num} encoders and "
            f"{len(parts['decoder'])} decoders"
        )
    for part, names in parts.items():
        if part.startswith("shared") and len(names) > 1:
            raise ForeignNetworkError(f"{' and '.join(names)} are both shared by all domains; expected one of them")
        other = next((name for name in names if configs[name] != configs[names[0]]), None)
        if other is not None:
            raise ForeignNetworkError(f"{names[0]} and {other}, two {part}s, are built differently")
    encoder, decoder = configs[parts["encoder"][0]], configs[parts["decoder"][0]]
    shared = {part: configs[names[0]] for part, names in parts.items() if part.startswith("shared") and names}
    result = ComboGANGeneratorConfig(
        encoder.in_channels,
        encoder.channels,
        encoder.blocks,
        decoder.blocks,
        *(shared[part].blocks if part in shared else 0 for part in ("shared_encoder", "shared_decoder")),
        domains=num,
    )
    expected = {
        "decoder": result.decoder,
        "shared_encoder": result.shared_encoder,
        "shared_decoder": result.shared_decoder,
    }
    for part, config in {"decoder": decoder, **shared}.items():
        if config != expected[part]:
            name = parts[part][0]
            raise ForeignNetworkError(
                f"{name} does not fit {parts['encoder'][0]}: it is {config}, expected {expected[part]}"
            )
    return result
