# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks from the state dicts of snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.untrusted.state_dicts import describe_misfits
from ggdr.torch_utils.untrusted.text import printable

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


def restore_network(build: Callable[[], Net], snapshot: Snapshot, key: str, device: torch.device | str) -> Net:
    """A network with the weights of one state dict of a snapshot, in float32 and evaluation mode.

    Args:
        build: makes it, with any weights.
        key:   of the state dict, as "G_ema".

    Raises:
        SnapshotError: there is no such state dict, or it does not fit.
    """
    if key not in snapshot.networks:
        names = printable(", ".join(snapshot.networks))
        raise SnapshotError(f"{snapshot.path}: holds {names}, but no {key}")
    with ShapesOnly():
        net = build()
    stored = snapshot.networks[key]
    own = net.state_dict()
    counts = [name for name, tensor in own.items() if not tensor.is_floating_point()]  # of batches, in batch norms
    wrong = describe_misfits(
        {name: tensor for name, tensor in stored.items() if name not in counts},
        {name: tensor.shape for name, tensor in own.items() if name not in counts},
    )
    if not wrong and any(name not in stored or not _is_alike(stored[name], own[name]) for name in counts):
        wrong = "counts of batches are missing, or are none"
    if wrong:
        raise SnapshotError(f"{snapshot.path}: weights of {key} do not fit their settings: {wrong}")
    # Copies, as the stored tensors are views of a file that may change.
    weights = {
        name: tensor.to(device, tensor.dtype if name in counts else torch.float32, copy=True)
        for name, tensor in stored.items()
    }
    net.load_state_dict(weights, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def _is_alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype
