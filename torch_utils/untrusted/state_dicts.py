# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""State dicts that others wrote, and whether their tensors are those of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ggdr.torch_utils.untrusted.text import printable

State = dict[str, Tensor]

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # types that weights may be stored in


class ForeignNetworkError(ValueError):
    """Networks that ours cannot represent, or a file that does not hold what was expected."""


def bare_name(name: str) -> str:
    """A weight's name without what DataParallel ("module.") and torch.compile ("_orig_mod.") put before it."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", name)


def tensors_of(value: Any, what: str) -> State:
    """A state dict, under bare names.

    Raises:
        ForeignNetworkError: `value`, called `what` in messages, is none.
    """
    if not isinstance(value, dict) or not value or not all(isinstance(t, Tensor) for t in value.values()):
        raise ForeignNetworkError(f"{what} is no state dict of tensors by name")
    if not all(isinstance(name, str) for name in value):
        raise ForeignNetworkError(f"{what} has names that are no text")
    return {bare_name(name): t for name, t in value.items()}


def describe_misfits(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> str:
    """How tensors differ from those of a network in names, shapes or types; empty if they do not."""
    wrong = {
        "missing": [name for name in shapes if name not in state],
        "unexpected": [printable(name) for name in state if name not in shapes],
        "of another shape": [
            f"{name} {list(state[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in state and state[name].shape != torch.Size(shape)
        ],
        "of another type": [
            f"{name} {state[name].dtype} instead of {torch.float32}"
            for name in shapes
            if name in state and state[name].dtype not in FLOATS
        ],
    }
    return "; ".join(f"{kind}: {_some(names)}" for kind, names in wrong.items() if names)


def separate_weights(state: Mapping[str, Tensor], what: str) -> State:
    """The weights in float32, contiguous and each in a memory of its own.

    Raises:
        ForeignNetworkError: they share memory in the file, so that they would be more than it is.
    """
    used = Counter[int]()
    for value in state.values():
        used[value.untyped_storage().data_ptr()] += value.nbytes
    if any(used[value.untyped_storage().data_ptr()] > value.untyped_storage().nbytes() for value in state.values()):
        raise ForeignNetworkError(f"{what} has layers that share one memory")
    return {name: _alone(value.float()) for name, value in state.items()}


def _alone(value: Tensor) -> Tensor:
    """Contiguous, and not a part of something larger."""
    whole = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
    return value if whole else value.contiguous().clone()


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
