# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Whether the tensors of a file are those of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ggdr.torch_utils.untrusted.text import printable

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # types that weights may be stored in


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


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
