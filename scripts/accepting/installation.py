# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps about the installation: the machine, `ggdr doctor`, and the compiled operations against float64."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from ggdr.scripts.accepting.commands import ggdr_command, run
from ggdr.scripts.accepting.roofline import this_gpu
from ggdr.scripts.accepting.step import Finding, Place, StepFailed
from ggdr.scripts.diagnosis.machine import find_tools, list_devices
from ggdr.scripts.training.hardware import describe_hardware
from ggdr.torch_utils.float32 import allow_tf32_convolutions, exact_float32
from ggdr.torch_utils.ops import set_ops
from ggdr.torch_utils.ops.self_check import SelfCheck, self_checks
from ggdr.torch_utils.ops.toolchain import output_of
from ggdr.torch_utils.timing import machine_peak
from ggdr.torch_utils.timing.gpus import GPUS

SMI_FIELDS = (
    "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem,pcie.link.gen.max,ecc.mode.current"
)
HALF_TOLERANCE_EPS = 8  # of a type with fewer bits: results and gradients are rounded a few times
GRAD_SCALE = 2.0**-6  # float16 holds the sums of gradients over a feature map then


def look_at_machine(place: Place) -> Finding:
    """Devices, compilers, libraries; and that the device multiplies at all."""
    a = torch.ones([64, 64], device=place.device)
    if (a @ a).sum().item() != 64**3:
        raise StepFailed("a product of matrices of ones is wrong")
    devices = list_devices()
    details = {"devices": devices, "tools": find_tools(), "hardware": describe_hardware()}
    figure = devices[0]["name"]
    if place.on_gpu:
        details["cudnn"] = torch.backends.cudnn.version()
        details["nccl"] = (
            ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None
        )
        details["nvidia_smi"] = output_of(["nvidia-smi", f"--query-gpu={SMI_FIELDS}", "--format=csv"])
        gpus = devices[1:]
        figure = f"{len(gpus)} x {gpus[0]['name']}, {gpus[0]['memory_gib']} GiB"
    return Finding(figure, details)


def run_doctor(place: Place) -> Finding:
    """`ggdr doctor`, which builds the operations, compares each with its reference and times it."""
    _, output = run(ggdr_command("doctor", "--device", place.device, "--json"))
    lines = output.splitlines()
    try:  # between lines about building, and warnings of torch
        report = json.loads("\n".join(lines[lines.index("{") : lines.index("}") + 1]))
    except ValueError:
        raise StepFailed("ggdr doctor printed no report") from None
    operations = report["operations"]
    works = [x for x in operations if x["state"] == "works"]
    (library,) = report["libraries"]
    built = f"built in {library['seconds']} s" if library["seconds"] is not None else library["state"]
    figure = f"{len(works)} of {len(operations)} operations work, {built}"
    if works:
        slowest = min(works, key=lambda x: x["speedup"])
        figure += f"; least speed-up {slowest['speedup']:.1f}x ({slowest['name']})"
    faults = [x["problem"] for x in report["problems"] if x["broken"]]
    if library["state"] not in ("built", "built now"):
        faults = faults or [x["problem"] for x in report["problems"]] or [f"the library is {library['state']}"]
    return Finding(figure, report, faults)


def compare_kernels(place: Place) -> Finding:
    """Each compiled operation in float32, float16 and bfloat16 against its reference in float64 on the CPU."""
    device = torch.device(place.device)
    found, worst, faults = {}, 0.0, []
    for check in self_checks():
        if device.type not in check.device_types:
            continue
        # Operations for CPUs alone are for float32 and bfloat16; those of GPUs take every type.
        types = [torch.float32, torch.float16, torch.bfloat16] if "cuda" in check.device_types else [torch.float32]
        for dtype in types:
            name = f"{check.name} {str(dtype).removeprefix('torch.')}"
            allowed = check.tolerance if dtype == torch.float32 else HALF_TOLERANCE_EPS * torch.finfo(dtype).eps
            try:
                error = _error(check, device, dtype)
            except RuntimeError as failure:
                faults.append(f"{name} fails: {str(failure).splitlines()[0]}")
                continue
            found[name] = {"error": error, "allowed": allowed}
            worst = max(worst, error / allowed)
            if not error <= allowed:
                faults.append(f"{name} is {error:.1e} of the largest value off float64, allowed are {allowed:.0e}")
    return Finding(f"{len(found)} compared; the worst at {worst:.2f} of what is allowed", {"errors": found}, faults)


def _error(check: SelfCheck, device: torch.device, dtype: torch.dtype) -> float:
    """The largest one of result and gradients, relative to the largest value of each."""
    rounded = [_as(x, dtype) for x in check.make_inputs(torch.Generator().manual_seed(0))]
    previous = set_ops("native")
    try:
        with exact_float32(device):
            actual = _derivatives(check, [_as(x, dtype, device) for x in rounded])
        set_ops("reference")
        # The gradient that is put in is that of the other side, as it was rounded there.
        expected = _derivatives(check, [_as(x, torch.float64, "cpu") for x in rounded], actual[0])
    finally:
        set_ops(previous)
    return max(_relative(a, b) for a, b in zip(actual, expected, strict=True))


def _as(x: object, dtype: torch.dtype, device: torch.device | str | None = None) -> object:
    """A tensor of floating point in another type and place, as a leaf; all else as it is."""
    if not isinstance(x, Tensor):
        return x
    to = dtype if x.is_floating_point() else x.dtype
    return x.detach().to(device=device, dtype=to).requires_grad_(x.requires_grad)


def _derivatives(check: SelfCheck, inputs: list, grad: Tensor | None = None) -> list[Tensor]:
    """The result, and the gradients of inputs that want one for GRAD_SCALE times `grad`, the result by default."""
    output = check.function(*inputs)
    wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    grad = output.detach() if grad is None else grad.to(output.device, output.dtype)
    return [output.detach(), *torch.autograd.grad(output, wanted, GRAD_SCALE * grad)]


def _relative(actual: Tensor, expected: Tensor) -> float:
    difference = (actual.double().cpu() - expected.double()).abs().max() / expected.abs().max().clamp(min=1e-30)
    return float("inf") if difference.isnan() else difference.item()


def measure_peaks(place: Place) -> Finding:
    """Rates of products and convolutions by type, and of copies in the device's memory."""
    device = torch.device(place.device)
    torch.backends.cudnn.benchmark = True
    rates = {}
    for name, dtype, tf32 in _kinds(place):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        allow_tf32_convolutions(tf32)
        rates[name] = {
            "matmul_tflop_per_sec": machine_peak.matmul_rate(device, dtype) / 1e12,
            "conv3x3_tflop_per_sec": machine_peak.conv_rate(device, dtype) / 1e12,
        }
    gb_per_sec = machine_peak.copy_rate(device) / 1e9
    details = {"rates": rates, "copy_gb_per_sec": gb_per_sec}
    name = "fp16" if place.on_gpu else "fp32"
    figure = f"{rates[name]['matmul_tflop_per_sec']:.3g} TFLOP/s in {name}, {gb_per_sec:.0f} GB/s"
    if place.on_gpu:
        key, is_known = this_gpu()
        gpu = GPUS[key]
        details["published"] = {
            "gpu": gpu.name,
            "is_this_card": is_known,
            "gb_per_sec": gpu.bandwidth / 1e9,
            "tflop_per_sec": {math: gpu.peak(math) / 1e12 for math in rates},
        }
        if is_known:
            of_math = rates[name]["matmul_tflop_per_sec"] * 1e12 / gpu.peak(name)
            figure += f": {of_math:.0%} and {gb_per_sec * 1e9 / gpu.bandwidth:.0%} of what is published"
    return Finding(figure, details)


def _kinds(place: Place) -> list[tuple[str, torch.dtype, bool]]:
    """Names, types, and whether float32 is rounded to TF32."""
    if not place.on_gpu:
        return [("fp32", torch.float32, False), ("bf16", torch.bfloat16, False)]
    halves = [("fp16", torch.float16, False), ("bf16", torch.bfloat16, False)]
    return [*halves, ("tf32", torch.float32, True), ("fp32", torch.float32, False)]
