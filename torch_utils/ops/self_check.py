# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The list of compiled operations, and a short check of each against its reference.

A module that has a compiled operation ends with

    register_self_check("name", function, make_inputs)

and that is all that `ggdr doctor` needs to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.ops import build

DEFAULT_TOLERANCE = 1e-4  # of the largest value; float32 sums in another order differ by less than a tenth of it


class SelfCheck(NamedTuple):
    """How one operation is tried out."""

    name: str
    function: Callable[..., Tensor]  # the public function; it takes the compiled kernel or the reference
    make_inputs: Callable[[torch.Generator], Sequence[Any]]  # its arguments, tensors float32 on the CPU
    device_types: tuple[str, ...]
    tolerance: float


class CheckResult(NamedTuple):
    """What came of it: the largest error of results and gradients, relative to the largest value of each."""

    error: float
    speedup: float  # time of the reference / time of the compiled operation, forward and backward


_CHECKS: dict[str, SelfCheck] = {}


def register_self_check(
    name: str,
    function: Callable[..., Tensor],
    make_inputs: Callable[[torch.Generator], Sequence[Any]],
    *,
    device_types: Sequence[str] = ("cpu", "cuda"),
    tolerance: float = DEFAULT_TOLERANCE,
) -> None:
    """Adds an operation to the list.

    Args:
        name:         the function's, with its variant if there are several.
        function:     the public function, or a lambda that gives it its keyword arguments.
        make_inputs:  its positional arguments, drawn from a generator. Tensors are float32 on the CPU, of a size
                      that training uses; those with requires_grad take part in the comparison of gradients.
        device_types: where it has compiled kernels.
        tolerance:    largest error that is allowed, relative to the largest value.
    """
    _CHECKS[name] = SelfCheck(name, function, make_inputs, tuple(device_types), tolerance)


def self_checks() -> list[SelfCheck]:
    """All compiled operations by name; imports the modules of this package."""
    package = importlib.import_module(__package__)
    for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
        importlib.import_module(module.name)
    return [_CHECKS[name] for name in sorted(_CHECKS)]


def run_self_check(check: SelfCheck, device: torch.device, *, repeats: int = 5) -> CheckResult:
    """Compares a compiled operation with its reference on one device, and times both.

    Raises:
        BuildError: the operations of this device cannot be built.
        RuntimeError: the operation fails.
    """
    inputs = [_on(device, x) for x in check.make_inputs(torch.Generator().manual_seed(0))]
    results: dict[str, list[Tensor]] = {}
    times: dict[str, list[float]] = {"native": [], "reference": []}
    previous = build.set_ops("native")
    try:
        with exact_float32(device):  # TF32 in a reference would be an error larger than what is allowed
            for mode in times:
                build.set_ops(mode)
                results[mode] = _forward_and_backward(check, inputs)
        for _ in range(repeats):  # in turns, so that a busy machine slows down both alike
            for mode in times:
                build.set_ops(mode)
                _synchronize(device)
                start = time.perf_counter()
                _forward_and_backward(check, inputs)
                _synchronize(device)
                times[mode].append(time.perf_counter() - start)
    finally:
        build.set_ops(previous)
    pairs = zip(results["native"], results["reference"], strict=True)
    ratios = [slow / fast for slow, fast in zip(times["reference"], times["native"], strict=True)]
    return CheckResult(max(_relative_error(a, b) for a, b in pairs), statistics.median(ratios))


def _forward_and_backward(check: SelfCheck, inputs: Sequence[Any]) -> list[Tensor]:
    """The result, and the gradients of half its squared norm."""
    output = check.function(*inputs)
    wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    return [output.detach(), *torch.autograd.grad(output, wanted, output.detach())]


def _on(device: torch.device, x: Any) -> Any:
    return x.detach().to(device).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over largest value; infinite if a number is not finite on one side alone."""
    if actual.shape != expected.shape:
        return float("inf")
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30)
    return float("inf") if error.isnan() else error.item()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
