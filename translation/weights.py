# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published networks of image translation: what they are is read off the names and shapes of their weights.

CycleGAN and pix2pix are published as `latest_net_G.pth` and the like, ComboGAN as one file for each encoder, decoder,
group of shared blocks, and discriminator; all are plain state dicts. Code in a file is not run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.untrusted.state_dicts import (
    ForeignNetworkError,
    State,
    describe_misfits,
    separate_weights,
    tensors_of,
)
from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file
from ggdr.translation.config import (
    ComboGANDiscriminatorConfig,
    DecoderConfig,
    EncoderConfig,
    NetworkConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    SharedConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.networks import build_network

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
COUNT = ".num_batches_tracked"
EXPECTED = (
    "a ResNet or U-Net generator, a patch or pixel discriminator, or ComboGAN's encoder, decoder, shared blocks or "
    "discriminator"
)


@dataclass
class RecognizedNetwork:
    """A network in a file of others.

    Attributes:
        config:  what it is. Weights do not tell whether a U-Net has dropout; here it has, as pix2pix is published.
        weights: in the names and shapes of ours, float32 (counts of batches int64).
        notes:   what was left out.
    """

    config: NetworkConfig
    weights: State
    notes: list[str] = field(default_factory=list)

    def build(self) -> nn.Module:
        """The network with these weights, in evaluation mode."""
        net = build_network(self.config)
        net.load_state_dict(self.weights, strict=True)
        return net.eval()


def read_published(path: str | os.PathLike) -> RecognizedNetwork:
    """The network in a file of `torch.save`, in its format of today or the one before.

    Raises:
        ForeignNetworkError: it is damaged, holds more than tensors, or no network of ours; the message names no file.
        OSError:             it cannot be opened.
    """
    try:
        content = read_tensor_file(path)
    except TensorFileError as error:
        raise ForeignNetworkError(str(error).removeprefix(f"{os.fspath(path)}: ")) from error
    return recognize(content)


def is_translator(content: Any) -> bool:
    """Whether this is a state dict with the names of a network of image translation."""
    try:
        _kind(tensors_of(content, "the file"))
    except ForeignNetworkError:
        return False
    return True


def recognize(content: Any, config: NetworkConfig | None = None) -> RecognizedNetwork:
    """The network of a state dict, also where DataParallel or torch.compile wrapped it.

    Args:
        content: tensors by name, as anyone can have written them.
        config:  what it is, where that is known.

    Raises:
        ForeignNetworkError: it is no state dict of a network of ours, or not of this one; says why.
    """
    state = tensors_of(content, "the file")
    notes: list[str] = []
    if config is not None:
        return RecognizedNetwork(config, _fitted(state, config), notes)
    state, num_left_out = _without_instance_statistics(state)
    if num_left_out:
        notes.append(f"{num_left_out} running statistics of instance norms, which they do not use, are left out")
    kind = _kind(state)
    try:
        config = kind(state)
    except ForeignNetworkError:
        raise
    except ValueError as error:
        raise ForeignNetworkError(f"no network of ours: {error}") from error
    return RecognizedNetwork(config, _fitted(state, config), notes)


def _without_instance_statistics(state: State) -> tuple[State, int]:
    """Leaves out what instance norms before PyTorch 0.4 kept: running statistics without a scale beside them."""
    kept = {}
    for name, value in state.items():
        layer, _, last = name.rpartition(".")
        if last not in STATISTICS or f"{layer}.weight" in state:
            kept[name] = value
    return kept, len(state) - len(kept)


def _fitted(state: State, config: NetworkConfig) -> State:
    """The weights in float32 and in the order of ours, with counts of batches where an old file has none."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build_network(config).state_dict().items()}
    counts = [name for name in shapes if name.endswith(COUNT)]
    wrong = describe_misfits(
        {name: value for name, value in state.items() if name not in counts},
        {name: shape for name, shape in shapes.items() if name not in counts},
    )
    if wrong:
        raise ForeignNetworkError(f"looks like a {config.network}, but differs from one of its size; tensors {wrong}")
    weights = separate_weights({name: state[name] for name in shapes if name not in counts}, "the file")
    for name in counts:
        count = state.get(name, torch.zeros([], dtype=torch.int64))
        if count.shape != torch.Size([]) or count.dtype != torch.int64:
            raise ForeignNetworkError(f"{name} is {count.dtype} {list(count.shape)} instead of one of torch.int64")
        weights[name] = count.clone()
    return {name: weights[name] for name in shapes}


# What a network is, by names that no other kind has, and its settings.


def _kind(state: Mapping[str, Tensor]) -> Any:
    """The function that reads the settings of such a network."""
    by_mark = {
        "model_gray.0.0.weight": _combogan_discriminator,
        "net.0.weight": _pixel_discriminator,
        "model.model.0.weight": _unet_generator,
        "model.0.conv_block.1.weight": _decoder,
    }
    kind = next((kind for mark, kind in by_mark.items() if mark in state), None)
    if kind is _decoder:
        cout, cin = _shape(state, "model.0.conv_block.1.weight")[:2]
        return _shared if cin > cout else _decoder
    if kind is not None:
        return kind
    is_activation = {i for i in (2, 3) if f"model.{i}.weight" in state and state[f"model.{i}.weight"].numel() == 1}
    if "model.1.weight" in state:
        return _encoder if 3 in is_activation else _resnet_generator
    if "model.0.weight" in state:
        # A decoder without residual blocks begins with the convolution that comes after them.
        return _decoder if 2 in is_activation else _patch_discriminator
    raise ForeignNetworkError(f"no network of image translation that is known; expected {EXPECTED}")


def _resnet_generator(state: Mapping[str, Tensor]) -> ResnetGeneratorConfig:
    channels, in_channels = _shape(state, "model.1.weight")[:2]
    blocks = _num_blocks(state)
    return ResnetGeneratorConfig(
        in_channels,
        _shape(state, f"model.{blocks + 17}.weight")[0],
        channels,
        blocks,
        norm="batch" if "model.2.weight" in state else "instance",
        dropout=blocks > 0 and "model.10.conv_block.5.weight" not in state,
    )


def _unet_generator(state: Mapping[str, Tensor]) -> UnetGeneratorConfig:
    channels, in_channels = _shape(state, "model.model.0.weight")[:2]
    return UnetGeneratorConfig(
        in_channels,
        _shape(state, "model.model.3.weight")[1],
        channels,
        downs=max(name.split(".").count("model") for name in state) - 1,
        norm="batch" if "model.model.1.model.2.weight" in state else "instance",
    )


def _patch_discriminator(state: Mapping[str, Tensor]) -> PatchDiscriminatorConfig:
    channels, in_channels = _shape(state, "model.0.weight")[:2]
    num_convs = sum(value.ndim == 4 for value in state.values())
    norm = "batch" if "model.3.weight" in state else "instance"
    return PatchDiscriminatorConfig(in_channels, channels, num_convs - 2, norm)


def _pixel_discriminator(state: Mapping[str, Tensor]) -> PixelDiscriminatorConfig:
    channels, in_channels = _shape(state, "net.0.weight")[:2]
    return PixelDiscriminatorConfig(in_channels, channels, "batch" if "net.3.weight" in state else "instance")


def _encoder(state: Mapping[str, Tensor]) -> EncoderConfig:
    channels, in_channels = _shape(state, "model.1.weight")[:2]
    return EncoderConfig(in_channels, channels, _num_blocks(state))


def _decoder(state: Mapping[str, Tensor]) -> DecoderConfig:
    blocks = _num_blocks(state)
    out_channels, channels = _shape(state, f"model.{blocks + 7}.weight")[:2]
    return DecoderConfig(out_channels, channels, blocks)


def _shared(state: Mapping[str, Tensor]) -> SharedConfig:
    width, with_planes = _shape(state, "model.0.conv_block.1.weight")[:2]
    return SharedConfig(width // 4, _num_blocks(state), with_planes - width)


def _combogan_discriminator(state: Mapping[str, Tensor]) -> ComboGANDiscriminatorConfig:
    layers = len({m[1] for name in state if (m := re.match(r"model_gray\.(\d{1,3})\.", name))}) - 1
    return ComboGANDiscriminatorConfig(_shape(state, "model_gray.0.0.weight")[0], layers)


def _num_blocks(state: Mapping[str, Tensor]) -> int:
    """Residual blocks of a sequence of layers."""
    return len({m[1] for name in state if (m := re.match(r"model\.(\d{1,3})\.conv_block\.", name))})


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size:
    """That of a convolution's weight."""
    if name not in state or state[name].ndim != 4:
        got = "none" if name not in state else f"one of shape {list(state[name].shape)}"
        raise ForeignNetworkError(f"expected a convolution {name} [out, in, height, width], got {got}")
    return state[name].shape
