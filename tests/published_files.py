# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Writes our networks into pickles of the structure that StyleGAN2-ADA, the StyleGAN3 release and GGDR give theirs."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator, DiscriminatorBlock, DiscriminatorEpilogue
from ggdr.stylegan2.generator import Generator, SynthesisBlock, SynthesisLayer, ToRGBLayer
from ggdr.stylegan2.layers import Conv2dLayer, FullyConnectedLayer

SOURCE = "raise SystemExit('module_src was executed')\n"

Tweak = Callable[[str, dict[str, Any]], None]  # changes the attributes of the module of one dotted name


def _reconstruct_persistent_obj(meta):
    raise SystemExit("a network was reconstructed by its own code")


class EasyDict(dict):
    """A dict that pickles under its own name."""


@contextmanager
def _their_modules() -> Iterator[None]:
    """Names of functions and classes under which pickle can find them, while it writes."""
    modules = {}
    for path, thing in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        modules[path] = ModuleType(path)
        setattr(modules[path], thing.__name__, thing)
        thing.__module__ = path
    modules["dnnlib"] = ModuleType("dnnlib")
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class Pickled:
    """A module that pickles as their classes do: class name, source text, and all attributes."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.meta = EasyDict(type="class", version=6, module_src=SOURCE, class_name=class_name, state=state)

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def module_state(
    parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], modules: Mapping[str, Pickled], **attributes: Any
) -> dict[str, Any]:
    """What nn.Module keeps in its __dict__."""
    return {
        "training": False,
        "_parameters": OrderedDict(parameters),
        "_buffers": OrderedDict(buffers),
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": OrderedDict(),
        "_is_full_backward_hook": None,
        "_modules": OrderedDict(modules),
        **attributes,
        "_init_args": (),
        "_init_kwargs": EasyDict(attributes),
    }


def pickled(net: nn.Module, tweak: Tweak = lambda name, state: None, name: str = "") -> Pickled:
    """A network of ours as one of theirs."""
    children = {key: pickled(child, tweak, f"{name}.{key}".lstrip(".")) for key, child in net.named_children()}
    if isinstance(net, DiscriminatorEpilogue) and net.mbstd_num_channels > 0:
        size = dict(group_size=net.mbstd_group_size, num_channels=net.mbstd_num_channels)
        children["mbstd"] = Pickled("MinibatchStdLayer", module_state({}, {}, {}, **size))
    parameters = {key: nn.Parameter(p.detach().clone()) for key, p in net._parameters.items() if p is not None}
    parameters |= {key: None for key, p in net._parameters.items() if p is None}
    buffers = {key: value.clone() for key, value in net._buffers.items()}
    state = module_state(parameters, buffers, children, **_attributes(net))
    tweak(name, state)
    return Pickled(type(net).__name__, state)


def _attributes(net: nn.Module) -> dict[str, Any]:
    if isinstance(net, FullyConnectedLayer):
        return {"activation": net.act, "weight_gain": np.float64(net.weight_gain), "bias_gain": net.bias_gain}
    if isinstance(net, SynthesisLayer):
        return {"use_noise": True, "up": net.up, "activation": "lrelu", "conv_clamp": net.conv_clamp, "padding": 1}
    if isinstance(net, ToRGBLayer):
        return {"conv_clamp": net.conv_clamp, "weight_gain": np.float64(net.weight_gain)}
    if isinstance(net, Conv2dLayer):
        size = {"up": net.up, "down": net.down, "weight_gain": np.float64(net.weight_gain)}
        return {"activation": net.act, "conv_clamp": net.conv_clamp, **size}
    if isinstance(net, SynthesisBlock | DiscriminatorBlock):
        return {"resolution": net.res, "architecture": net.architecture, "use_fp16": net.res >= 16}
    if isinstance(net, Generator | Discriminator):
        return {"c_dim": net.config.c_dim, "img_resolution": net.config.img_resolution, "epilogue": torch.float32}
    return {}


def with_decoder(D: Discriminator, decoder: nn.Module, tweak: Tweak = lambda name, state: None) -> Pickled:
    """A discriminator with GGDR's decoder layers among its modules."""

    def add(name: str, state: dict[str, Any]) -> None:
        tweak(name, state)
        if name == "":
            for key, layer in decoder.named_children():
                state["_modules"][key] = pickled(layer)
                state["_modules"][key].meta["state"] |= {"activation": "linear", "up": 2, "down": 1, "conv_clamp": None}

    return pickled(D, add)


def augment_pipe(p: float) -> Pickled:
    return Pickled("AugmentPipe", module_state({}, {"p": torch.tensor(p)}, {}, xflip=1.0))


def write_pickle(path: Path, content: Any, *, protocol: int = 4) -> Path:
    """Writes any content, such as {"G": pickled(G), "D": None}."""
    with _their_modules(), open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def small_networks(
    *,
    res: int = 16,
    c_dim: int = 0,
    img_channels: int = 3,
    G_architecture: str = "skip",
    D_architecture: str = "resnet",
) -> tuple[Generator, Discriminator]:
    """Networks in which everything shows in the image: noise, class, truncation, biases."""
    torch.manual_seed(0)
    size = dict(img_resolution=res, img_channels=img_channels, c_dim=c_dim, channel_base=64, channel_max=8)
    size |= dict(conv_clamp=256.0, num_half_res=1 if res == 16 else 2)
    G = Generator(GeneratorConfig(**size, architecture=G_architecture, z_dim=6, w_dim=5, mapping_num_layers=2))
    D = Discriminator(DiscriminatorConfig(**size, architecture=D_architecture, mbstd_group_size=2))
    for net in (G, D):
        net.eval().requires_grad_(False)
        for value in net.parameters():
            if value.ndim < 2:
                value.add_(torch.randn_like(value) * 0.5)
    G.mapping.w_avg.normal_()
    return G, D
