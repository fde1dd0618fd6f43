# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What some GPUs can do at most, as their makers publish it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LAUNCH_SECONDS = 5e-6  # assumed for each kernel: what PyTorch takes to launch one, within a factor of two


@dataclass(frozen=True)
class Gpu:
    """Published peaks, of dense matrices without sparsity.

    Attributes:
        name:      in full.
        memory_gb: its size, in GB.
        bandwidth: of its memory, in bytes a second.
        fp32:      FLOP/s without tensor cores.
        tensor:    FLOP/s of tensor cores by type of their factors ("fp16", "bf16", "tf32"), with sums in float32; what
                   is missing runs at `fp32`.
    """

    name: str
    memory_gb: float
    bandwidth: float
    fp32: float
    tensor: Mapping[str, float]

    def math(self, asked: str) -> str:
        """The type in which it multiplies where a program asks for one: "fp32" for what its tensor cores lack."""
        return asked if asked in self.tensor else "fp32"

    def peak(self, math: str) -> float:
        """FLOP/s of products in a type: "fp32", or a key that `tensor` may have."""
        return self.tensor.get(math, self.fp32)

    def seconds(self, num_bytes: int, flops: int, math: str) -> float:
        """The roofline's time of a kernel: moving its bytes or doing its arithmetic, whichever takes longer."""
        return max(num_bytes / self.bandwidth, flops / self.peak(math))


def _gpu(name: str, memory_gb: float, gb_per_sec: float, fp32: float, **tensor: float) -> Gpu:
    """Rates in TFLOP/s."""
    return Gpu(name, memory_gb, gb_per_sec * 1e9, fp32 * 1e12, {math: rate * 1e12 for math, rate in tensor.items()})


GPUS: dict[str, Gpu] = {
    # NVIDIA H100 data sheet and "NVIDIA H100 Tensor Core GPU Architecture" (2022); half of the sparse rates.
    "h100": _gpu("H100 SXM", 80, 3350, 66.9, fp16=989.4, bf16=989.4, tf32=494.7),
    # NVIDIA H200 data sheet: an H100 with other memory.
    "h200": _gpu("H200 SXM", 141, 4800, 66.9, fp16=989.4, bf16=989.4, tf32=494.7),
    # NVIDIA A100 data sheet, 80GB SXM.
    "a100": _gpu("A100 80GB SXM", 80, 2039, 19.5, fp16=312, bf16=312, tf32=156),
    # NVIDIA V100 data sheet, SXM2 of 32 GB.
    "v100": _gpu("V100 SXM2", 32, 900, 15.7, fp16=125),
    # "NVIDIA Ada GPU Architecture" (2022); fp16 with sums in float32.
    "rtx4090": _gpu("RTX 4090", 24, 1008, 82.6, fp16=165.2, bf16=165.2, tf32=82.6),
    # "NVIDIA Ampere GA102 GPU Architecture" (2020); fp16 with sums in float32.
    "rtx3090": _gpu("RTX 3090", 24, 936, 35.6, fp16=71, bf16=71, tf32=35.6),
    # NVIDIA T4 data sheet; its bandwidth from "NVIDIA Turing GPU Architecture" (2018).
    "t4": _gpu("T4", 16, 320, 8.1, fp16=65),
    # NVIDIA L4 data sheet; half of the sparse rates.
    "l4": _gpu("L4", 24, 300, 30.3, fp16=121, bf16=121, tf32=60),
}


def plain_name(text: str) -> str:
    """ "RTX 4090" as GPUS has it."""
    return "".join(c for c in text.lower() if c.isalnum())


# What the driver calls the cards whose peaks are above. Its names of others, also of ones that only sound alike (PCIe
# and NVL cards, laptops, slices of a card), have other peaks.
DRIVER_NAMES = {
    "H100 80GB HBM3": "h100",
    "H200": "h200",
    "A100-SXM4-80GB": "a100",
    "V100-SXM2-32GB": "v100",
    "V100-SXM2-16GB": "v100",
    "GeForce RTX 4090": "rtx4090",
    "GeForce RTX 3090": "rtx3090",
    "T4": "t4",
    "L4": "l4",
}


def recognise_gpu(name: str) -> str | None:
    """The key in GPUS of a card by the driver's name of it, as "NVIDIA H200"; None where its peaks are not there."""
    for maker in ("NVIDIA ", "Tesla "):
        name = name.removeprefix(maker)
    return DRIVER_NAMES.get(name)
