# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How much memory a translation takes, estimated from a small one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.timing.live_memory import LiveMemory
from ggdr.translation.translator import Translator

PROBE = 64  # pixels of the side of the image that is translated to find out; more if the network halves more often
WORKSPACE = (
    1.8  # what convolutions take beside their inputs and outputs: 1.4 to 1.8 times as much was measured on a CPU
)


class _Watch(TorchDispatchMode):
    """Counts all tensors that operations inside return."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = LiveMemory()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.memory.see(x for x in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(x, Tensor))
        return out


def bytes_per_pixel(translator: Translator, source: str, target: str) -> float:
    """Memory that a translation takes on the device of the networks, beside them, for each pixel of the images.

    A small image is translated, and the tensors that are alive at once are counted. WORKSPACE is added for what
    convolutions take inside.
    """
    side = -(-PROBE // translator.multiple) * translator.multiple
    with _Watch() as watch:
        img = torch.zeros([1, translator.channels(source, target)[0], side, side])
        translator(img, source, target)
    return watch.memory.peak * WORKSPACE / side**2
