# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of TF32, which PyTorch has in two ways that must not contradict each other."""

from __future__ import annotations

import pytest
import torch

from ggdr.torch_utils.float32 import PER_OPERATION, allow_tf32_convolutions, exact_float32
from ggdr.torch_utils.ops.self_check import SelfCheck, run_self_check

CUDNN, CUDA = torch.backends.cudnn, torch.backends.cuda
OLDER = {
    "convolutions": lambda: CUDNN.allow_tf32,
    "matrix products": lambda: CUDA.matmul.allow_tf32,
    "precision of them": torch.get_float32_matmul_precision,
    "benchmark": lambda: CUDNN.benchmark,
    "deterministic": lambda: CUDNN.deterministic,
}
OPERATIONS = []
if PER_OPERATION:
    ONEDNN = torch.backends.mkldnn
    OPERATIONS = [CUDNN.conv, CUDNN.rnn, CUDA.matmul, ONEDNN.conv, ONEDNN.matmul]
BEFORE = {  # what a program may have set
    "nothing": lambda: None,
    "no convolutions": lambda: allow_tf32_convolutions(False),
    "convolutions": lambda: allow_tf32_convolutions(True),
    "all, the older way": lambda: (allow_tf32_convolutions(True), torch.set_float32_matmul_precision("high")),
    "bfloat16 products": lambda: torch.set_float32_matmul_precision("medium"),
}
if PER_OPERATION:
    BEFORE["all, the newer way"] = lambda: setattr(torch.backends, "fp32_precision", "tf32")
    BEFORE["some, the newer way"] = lambda: setattr(CUDA.matmul, "fp32_precision", "tf32")
    BEFORE["none, the newer way"] = lambda: setattr(CUDNN.conv, "fp32_precision", "ieee")


def settings() -> dict[str, object]:
    """All that can be read."""
    found = {i: operation.fp32_precision for i, operation in enumerate(OPERATIONS)}
    for name, get in OLDER.items():
        try:
            found[name] = get()
        except RuntimeError:
            found[name] = "torch refuses: older and newer settings differ"
    return found


def unreadable(found: dict[str, object]) -> set[str]:
    return {name for name, value in found.items() if str(value).startswith("torch refuses")}


@pytest.fixture(params=BEFORE)
def before(request):
    generic = torch.backends.fp32_precision if PER_OPERATION else None
    kept = [operation.fp32_precision for operation in OPERATIONS]
    try:
        BEFORE[request.param]()
        yield settings()
    finally:
        if PER_OPERATION:
            torch.backends.fp32_precision = generic
        torch.set_float32_matmul_precision("highest")
        allow_tf32_convolutions(True)
        for operation, precision in zip(OPERATIONS, kept, strict=True):
            operation.fp32_precision = precision


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_settings_can_be_read_in_both_ways_and_are_as_before(before, device):
    with exact_float32(torch.device(device)):
        inside = settings()
    assert settings() == before
    assert unreadable(inside) <= unreadable(before)
    used = {"cpu": (3, 4), "cuda": (0, 1, 2)}[device] if PER_OPERATION else ()
    assert {inside[i] for i in used} <= {"none", "ieee"}
    if device == "cuda":
        assert inside["convolutions"] is False or "convolutions" in unreadable(before)
        assert inside["deterministic"] and not inside["benchmark"]


@pytest.mark.filterwarnings("ignore")
def test_settings_are_as_before_after_an_error():
    allow_tf32_convolutions(True)
    expected = settings()
    with pytest.raises(ZeroDivisionError), exact_float32(torch.device("cuda")):
        raise ZeroDivisionError
    assert settings() == expected


def test_operations_are_compared_in_float32_and_timed_as_the_program_runs(native_ops):
    torch.set_float32_matmul_precision("high")
    seen = []

    def function(x):
        seen.append(torch.get_float32_matmul_precision())
        return 2 * x

    check = SelfCheck("toy", function, lambda rng: [torch.ones(3, requires_grad=True)], ("cpu",), 1e-4)
    try:
        run_self_check(check, torch.device("cpu"), repeats=1)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["highest", "highest", "high", "high"]
