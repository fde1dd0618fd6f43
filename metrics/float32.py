# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that does not depend on the settings of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

# Since torch 2.9 each kind of operation has its own setting, of which the older switches are views.
PER_OPERATION = hasattr(torch.backends.mkldnn, "conv")


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Inside, convolutions and matrix products of float32 tensors on a device are in float32, whatever the settings.

    Switched off are autocast, TF32 and bfloat16 products, and cuDNN's choice of algorithms by their speed, which can
    differ from run to run; afterwards all is as it was.
    """
    with torch.autocast(device.type, enabled=False), ExitStack() as stack:
        backends, cudnn = torch.backends, torch.backends.cudnn
        if device.type == "cuda":
            _set(stack, cudnn, "benchmark", False)
            _set(stack, cudnn, "deterministic", True)
        if PER_OPERATION:
            owners = {"cpu": (backends.mkldnn.conv, backends.mkldnn.matmul), "cuda": (cudnn.conv, backends.cuda.matmul)}
            for owner in owners.get(device.type, ()):
                if owner.fp32_precision != "none":  # which means float32, too
                    _set(stack, owner, "fp32_precision", "ieee")
        else:
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
            _set(stack, cudnn, "allow_tf32", False)
        yield


def _set(stack: ExitStack, owner: object, name: str, value: object) -> None:
    """Changes a setting until the stack is left."""
    before = getattr(owner, name)
    if before != value:
        stack.callback(setattr, owner, name, before)
        setattr(owner, name, value)
