# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The precision of products of float32 tensors: TF32 for a training step, float32 whatever the settings for the rest.

Since torch 2.9 each kind of operation has a setting of its own, `fp32_precision`. The older switches set those too,
but not the other way round: torch refuses to read an older switch where it disagrees with the settings. So here an
older switch is set first, where it can be read, and the settings behind it are set to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

PER_OPERATION = hasattr(torch.backends.mkldnn, "conv")


def allow_tf32_convolutions(allowed: bool) -> None:
    """Whether convolutions of float32 tensors on NVIDIA GPUs may round their factors to 10 bits, in this process."""
    torch.backends.cudnn.allow_tf32 = allowed  # sets those of each operation, too


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Inside, convolutions and matrix products of float32 tensors on a device are in float32, whatever the settings.

    Switched off are autocast, TF32 and bfloat16 products, and cuDNN's choice of algorithms by their speed, which can
    differ from run to run; afterwards all is as it was. What can be read of the settings before, in PyTorch's older or
    newer way, can be read inside and afterwards.
    """
    with torch.autocast(device.type, enabled=False), ExitStack() as stack:
        backends, cudnn = torch.backends, torch.backends.cudnn
        operations: tuple[Any, ...] = ()
        if PER_OPERATION:
            operations = backends.mkldnn.conv, backends.mkldnn.matmul
            if device.type == "cuda":
                operations = cudnn.conv, cudnn.rnn, backends.cuda.matmul
        for operation in operations:
            stack.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
        if device.type == "cuda":
            _set(stack, lambda: cudnn.benchmark, lambda value: setattr(cudnn, "benchmark", value), False)
            _set(stack, lambda: cudnn.deterministic, lambda value: setattr(cudnn, "deterministic", value), True)
            _set(stack, lambda: cudnn.allow_tf32, allow_tf32_convolutions, False)
        _set(stack, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
        for operation in operations:
            if operation.fp32_precision != "none":  # which means float32, too
                operation.fp32_precision = "ieee"
        yield


def _set(stack: ExitStack, get: Callable[[], Any], set_to: Callable[[Any], None], value: Any) -> None:
    """Changes a setting until the stack is left, unless torch cannot tell it: it disagrees with newer ones."""
    try:
        before = get()
    except RuntimeError:
        return
    if before != value:
        stack.callback(set_to, before)
        set_to(value)
