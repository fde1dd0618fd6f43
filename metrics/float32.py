# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that does not depend on the settings of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Inside, convolutions and matrix products of float32 tensors on a device are in float32, whatever the settings.

    Switched off are autocast, TF32 and bfloat16 products, and cuDNN's choice of algorithms by their speed, which can
    differ from run to run; afterwards all is as it was.
    """
    with torch.autocast(device.type, enabled=False), _settings(device):
        yield


@contextmanager
def _settings(device: torch.device) -> Iterator[None]:
    """Sets what is not as wanted, and puts it back."""
    changed = []
    for owner, name, wanted, accepted in _wanted(device):
        value = getattr(owner, name)
        if value not in accepted:
            changed.append((owner, name, value))
            setattr(owner, name, wanted)
    try:
        yield
    finally:
        for owner, name, value in changed:
            setattr(owner, name, value)


def _wanted(device: torch.device) -> list[tuple[object, str, object, tuple[object, ...]]]:
    """Settings: where, name, the value to set, and the values that may stay."""
    backends = torch.backends
    cudnn, matmul = backends.cudnn, backends.cuda.matmul
    per_operation = hasattr(backends.mkldnn, "conv")  # since torch 2.9; the older switches are views of these
    if device.type == "cpu":
        owners = [backends.mkldnn.conv, backends.mkldnn.matmul] if per_operation else []
    elif device.type == "cuda":
        owners = [cudnn.conv, matmul] if per_operation else []
    else:
        return []
    wanted = [(owner, "fp32_precision", "ieee", ("ieee", "none")) for owner in owners]
    if device.type == "cuda":
        wanted += [(cudnn, "benchmark", False, (False,)), (cudnn, "deterministic", True, (True,))]
        if not per_operation:
            wanted += [(cudnn, "allow_tf32", False, (False,)), (matmul, "allow_tf32", False, (False,))]
    return wanted
