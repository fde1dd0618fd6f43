# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from snapshot files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.untrusted.state_dicts import describe_misfits
from ggdr.torch_utils.untrusted.text import printable

Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig)


def config_from_snapshot(snapshot: Snapshot, key: str, config_type: type[Config]) -> Config:
    """The settings stored under `key` ("G" or "D"); raises SnapshotError if they are missing or malformed."""
    stored: Any = snapshot.config.get(key)
    try:
        return config_type(**stored)
    except (TypeError, ValueError) as error:
        reason = printable(error)
        raise SnapshotError(f"{snapshot.path}: settings of {key} do not describe a StyleGAN2: {reason}") from error


def load_generator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Generator:
    """The averaged generator of a snapshot, in float32 and evaluation mode.

    Example:
        >>> G = load_generator("network-snapshot-001000.safetensors")
        >>> img = G(torch.randn(4, G.z_dim))  # [4, C, H, W] float32, about [-1, 1]

    Raises:
        SnapshotError: the file is missing, damaged, or no StyleGAN2 snapshot.
    """
    return generator_of(load_snapshot(path), device)


def load_discriminator(path: str | os.PathLike, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot, in float32 and evaluation mode; raises as `load_generator`."""
    return discriminator_of(load_snapshot(path), device)


def generator_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Generator:
    """The averaged generator of a snapshot that has been read; raises as `load_generator`."""
    config = config_from_snapshot(snapshot, "G", GeneratorConfig)
    return _restored(lambda: Generator(config), snapshot, "G_ema", device)


def discriminator_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot that has been read; raises as `load_generator`."""
    config = config_from_snapshot(snapshot, "D", DiscriminatorConfig)
    return _restored(lambda: Discriminator(config), snapshot, "D", device)


Net = TypeVar("Net", bound=nn.Module)


class ShapesOnly(TorchFunctionMode):
    """Networks built inside have weights on the meta device: no memory is taken, and no number drawn in vain.

    `torch.device("meta")` does the same, but for the first random number or division it imports a second's worth of
    PyTorch's compiler.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.randn, torch.zeros, torch.full):
            return torch.empty(args[0] if isinstance(args[0], (list, tuple)) else args, device="meta")
        if func in (Tensor.div, Tensor.__truediv__) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _restored(build: Callable[[], Net], snapshot: Snapshot, key: str, device: torch.device | str) -> Net:
    """A network with the weights of one state dict of a snapshot."""
    if key not in snapshot.networks:
        names = printable(", ".join(snapshot.networks))
        raise SnapshotError(f"{snapshot.path}: holds {names}, but no {key}")
    with ShapesOnly():
        net = build()
    stored = snapshot.networks[key]
    wrong = describe_misfits(stored, {name: tensor.shape for name, tensor in net.state_dict().items()})
    if wrong:
        raise SnapshotError(f"{snapshot.path}: weights of {key} do not fit their settings: {wrong}")
    # Copies, as the stored tensors are views of a file that may change.
    weights = {name: tensor.to(device, torch.float32, copy=True) for name, tensor in stored.items()}
    net.load_state_dict(weights, strict=True, assign=True)
    return net.eval().requires_grad_(False)
