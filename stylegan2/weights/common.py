# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from elsewhere: their settings, read off the names and shapes of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.layers import MappingNetwork
from ggdr.torch_utils.ops import set_ops
from ggdr.torch_utils.ops.upfirdn2d import setup_filter
from ggdr.torch_utils.restore import ShapesOnly
from ggdr.torch_utils.untrusted.state_dicts import ForeignNetworkError, State, describe_misfits, separate_weights

RESOLUTIONS = tuple(2**i for i in range(2, 14))
NUM_MEAN_LATENTS, MEAN_BATCH = 10_000, 250  # for the mean w, where a file has none
GROUP_SIZE = 4  # of minibatch standard deviation, where a file says nothing


@dataclass
class ImportedNetworks:
    """What a file of someone else's holds, in the names of ours.

    Attributes:
        kind:     what the file is, for people.
        networks: state dicts, float32, by name: some of "G", "D", "G_ema", "ggdr".
        G, D:     settings; D's are None where there is no D.
        guides:   resolutions that a GGDR decoder predicts.
        settings: of a snapshot, which come before all that is read off the weights.
        facts:    whatever else is worth keeping, as JSON.
        notes:    to tell the user.
    """

    kind: str
    networks: dict[str, State]
    G: GeneratorConfig | None = None
    D: DiscriminatorConfig | None = None
    guides: tuple[int, ...] = ()
    settings: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, state: State) -> None:
        """Takes in a network; what it shares with another is copied, as files of tensors cannot say that."""
        taken = {value.data_ptr() for other in self.networks.values() for value in other.values()}
        self.networks[name] = {key: v.clone() if v.data_ptr() in taken else v for key, v in state.items()}

    def complete(self, average: str = "G_ema", current: str = "G") -> None:
        """Takes G in place of a missing G_ema, which messages call by the names given, and compares G with D.

        Raises:
            ForeignNetworkError: G's images are not D's.
        """
        if "G" in self.networks and "G_ema" not in self.networks:
            self.networks["G_ema"] = self.networks.pop("G")
            self.notes.append(f"there is no {average}; {current} is used in its place")
        if self.G is None or self.D is None:
            return
        for name in ("img_resolution", "img_channels", "c_dim"):
            of_g, of_d = getattr(self.G, name), getattr(self.D, name)
            if of_g != of_d:
                raise ForeignNetworkError(f"G and D differ in {name}: {of_g} and {of_d}")

    def config(self) -> dict[str, Any]:
        """The settings as a snapshot stores them."""
        if self.settings is not None:
            return dict(self.settings)
        config: dict[str, Any] = {name: asdict(c) for name, c in (("G", self.G), ("D", self.D)) if c is not None}
        if self.guides:
            config["training"] = {"regularizers": {"ggdr": {"guide_res": list(self.guides), "weight": 10.0}}}
        return config


# Settings.


def generator_config(state: Mapping[str, Tensor], what: str, **settings: Any) -> GeneratorConfig:
    """The settings of a generator, from its weights.

    Args:
        state:    with the names of ours, of any values.
        what:     the network is called in messages.
        settings: what shapes do not tell, as mapping_lr_multiplier.

    Raises:
        ForeignNetworkError: no settings describe it.
    """
    resolutions = _resolutions(state, "synthesis.", what)
    channels = {res: _side(state, f"synthesis.b{res}.conv1.weight", 0, what) for res in resolutions}
    num_layers = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in state)
    w_dim = _side(state, f"mapping.fc{max(num_layers - 1, 0)}.weight", 0, what)
    c_dim = _side(state, "mapping.embed.weight", 1, what) if "mapping.embed.weight" in state else 0
    top = resolutions[-1]
    return _config(
        GeneratorConfig,
        what,
        img_resolution=top,
        img_channels=_side(state, f"synthesis.b{top}.torgb.weight", 0, what),
        c_dim=c_dim,
        architecture=_architecture("synthesis.b4.torgb.weight" in state, "synthesis.b8.skip.weight" in state),
        z_dim=_side(state, "mapping.fc0.weight", 1, what) - (w_dim if c_dim else 0),
        w_dim=w_dim,
        mapping_num_layers=num_layers,
        **_channel_table(channels, what),
        **settings,
    )


def discriminator_config(state: Mapping[str, Tensor], what: str, **settings: Any) -> DiscriminatorConfig:
    """The settings of a discriminator, from its weights; arguments and errors as of `generator_config`."""
    resolutions = _resolutions(state, "", what)
    top = resolutions[-1]
    channels = {res: _side(state, f"b{res}.conv0.weight", 1, what) for res in resolutions[1:]}
    channels = {4: _side(state, "b4.conv.weight", 0, what), **channels}
    return _config(
        DiscriminatorConfig,
        what,
        img_resolution=top,
        img_channels=_side(state, f"b{top}.fromrgb.weight", 1, what),
        c_dim=_side(state, "mapping.embed.weight", 1, what) if "mapping.embed.weight" in state else 0,
        architecture=_architecture("b4.fromrgb.weight" in state, f"b{top}.skip.weight" in state),
        mbstd_num_channels=_side(state, "b4.conv.weight", 1, what) - channels[4],
        **_channel_table(channels, what),
        **settings,
    )


def _resolutions(state: Mapping[str, Tensor], prefix: str, what: str) -> list[int]:
    """Those of the blocks, from 4 up, without a gap."""
    found = {int(m[1]) for name in state if (m := re.match(re.escape(prefix) + r"b(\d{1,18})\.", name))}
    expected = [res for res in RESOLUTIONS if res <= max(found, default=0)]
    if sorted(found) != expected or len(expected) < 2:
        blocks = ", ".join(f"b{res}" for res in sorted(found)[:12]) or "none"
        raise ForeignNetworkError(
            f"{what} is no StyleGAN2 network: expected blocks b4, b8 and so on up to the image's size, found {blocks}"
        )
    return expected


def _side(state: Mapping[str, Tensor], name: str, dim: int, what: str) -> int:
    """One side of one tensor."""
    if name not in state or state[name].ndim <= dim:
        raise ForeignNetworkError(f"{what} has no {name} as StyleGAN2 networks have")
    return state[name].shape[dim]


def _architecture(skip: bool, resnet: bool) -> str:
    return "skip" if skip else "resnet" if resnet else "orig"


def _channel_table(channels: Mapping[int, int], what: str) -> dict[str, int]:
    """The smallest channel_base and channel_max with min(channel_base // res, channel_max) feature maps."""
    base, most = max(res * num for res, num in channels.items()), max(channels.values())
    wrong = {res: num for res, num in channels.items() if num != min(base // res, most)}
    if wrong:
        table = ", ".join(f"{num} at {res}x{res}" for res, num in channels.items())
        raise ForeignNetworkError(
            f"{what} has feature maps that no channel base and channel max give ({table}); "
            "supported are min(channel base / resolution, channel max)"
        )
    return {"channel_base": base, "channel_max": most}


def _config(kind: type, what: str, **settings: Any) -> Any:
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ForeignNetworkError(f"{what} is no network of ours: {error}") from error


# Weights.


def fit_weights(
    state: Mapping[str, Tensor], config: GeneratorConfig | DiscriminatorConfig, what: str, *, filled: bool = False
) -> State:
    """The weights in float32 and in the order of ours.

    Args:
        filled: whether the resampling filters, which are always [1, 3, 3, 1], and the constant noise, which early
                networks drew for each image, may be missing, and are put in.

    Raises:
        ForeignNetworkError: names or shapes differ from those of a network of these settings, or a filter from
                             [1, 3, 3, 1].
    """
    with ShapesOnly():
        net = Generator(config) if isinstance(config, GeneratorConfig) else Discriminator(config)
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    absent = {k: s for k, s in shapes.items() if filled and k not in state and k.endswith(("_filter", "noise_const"))}
    # Before anything is put in: a small file may speak of a large network.
    check_shapes(state, {name: shape for name, shape in shapes.items() if name not in absent}, what)
    state = {**_usual(absent), **state}
    resample_filter = setup_filter([1, 3, 3, 1])
    for name, value in state.items():
        if name.endswith("resample_filter") and not torch.allclose(value.float(), resample_filter, atol=1e-6):
            raise ForeignNetworkError(
                f"{what} resamples with another filter than [1, 3, 3, 1] ({name}), and no other is supported"
            )
    return separate_weights({name: state[name] for name in shapes}, what)


def _usual(shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Resampling filters, and random noise that stays the same."""
    rng = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=rng) if name.endswith("noise_const") else setup_filter([1, 3, 3, 1])
        for name, shape in shapes.items()
    }


def check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raises ForeignNetworkError unless names and shapes are exactly these."""
    wrong = describe_misfits(state, shapes)
    if wrong:
        raise ForeignNetworkError(f"{what} differs from a StyleGAN2 network of its size; tensors {wrong}")


def generator_weights(
    state: Mapping[str, Tensor], config: GeneratorConfig, what: str, *, filled: bool = False
) -> tuple[State, bool]:
    """`fit_weights`, with the mean w computed if there is none; and whether it was there."""
    has_mean = "mapping.w_avg" in state
    if not has_mean:
        state = {**state, "mapping.w_avg": torch.zeros(config.w_dim)}
    weights = fit_weights(state, config, what, filled=filled)
    if not has_mean:
        weights["mapping.w_avg"] = mean_w(weights, config)
    return weights, has_mean


@torch.no_grad()
def mean_w(state: Mapping[str, Tensor], config: GeneratorConfig) -> Tensor:
    """The mean of the mapped latents of 10,000 seeded z, [w_dim]; where there are classes, these are drawn evenly.

    For generators that were stored without their running mean.
    """
    mapping = MappingNetwork(
        config.z_dim,
        config.c_dim,
        config.w_dim,
        None,
        num_layers=config.mapping_num_layers,
        lr_multiplier=config.mapping_lr_multiplier,
    )
    prefix = "mapping."
    mapping.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and k != "mapping.w_avg"}
    )
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(config.w_dim)
    # Compiled operations would save nothing here, and may take a minute to build.
    previous = set_ops("reference")
    try:
        for start in range(0, NUM_MEAN_LATENTS, MEAN_BATCH):
            z = torch.randn([MEAN_BATCH, config.z_dim], generator=generator)
            c = torch.zeros([MEAN_BATCH, config.c_dim])
            if config.c_dim > 0:
                rows = torch.arange(MEAN_BATCH)
                c[rows, (start + rows) % config.c_dim] = 1
            total += mapping(z, c).sum(dim=0)
    finally:
        set_ops(previous)
    return total / NUM_MEAN_LATENTS
