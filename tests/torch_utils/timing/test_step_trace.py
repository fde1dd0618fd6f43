# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What of an iteration is traced, and how lazily regularised phases enter."""

from __future__ import annotations

import pytest
import torch

from ggdr.torch_utils.gan import Phase, PhaseOutput
from ggdr.torch_utils.loop import LoopConfig
from ggdr.torch_utils.timing.gpus import GPUS, LAUNCH_SECONDS, plain_name
from ggdr.torch_utils.timing.operations import Operation, Piece
from ggdr.torch_utils.timing.step_trace import StepTrace, TracedPiece, trace_step, usable_meta_device

BATCH, INTERVAL, FLOAT = 4, 16, 4
SIDE = 64


class ConvTask:
    """A 1x1 convolution of 8 channels; phases "D" and "D_r1", which rests, do the same."""

    def __init__(self, group) -> None:
        self.conv = torch.nn.Conv2d(8, 8, 1, bias=False, device=group.device)
        self.rng = torch.Generator(group.device).manual_seed(1)
        params = list(self.conv.parameters())
        optimizer = torch.optim.Adam(params, fused=True)
        self.phases = [
            Phase("D", params, optimizer, lambda img, draws: self._losses("D", img), ("D",)),
            Phase(
                "D_r1", params, optimizer, lambda img, draws: self._losses("D_r1", img), ("D_r1",), interval=INTERVAL
            ),
        ]

    def _losses(self, name, img):
        with torch.autocast(img.device.type, enabled=False):
            noise = torch.randn([BATCH, 1, SIDE, SIDE], device=img.device, generator=self.rng)
            return PhaseOutput({name: (self.conv(img) + noise).square().mean(dim=[1, 2, 3])})

    def step_end(self, nimg, batch_size):
        self.conv.weight.detach().mul_(0.5)
        return {}


@pytest.fixture(scope="module")
def trace() -> StepTrace:
    def batch():
        return torch.empty(BATCH, 8, SIDE, SIDE, device="meta")

    return trace_step(ConvTask, batch, LoopConfig(1, BATCH, BATCH, 1, 1), tf32=True)


def of(trace, name):
    return [x for x in trace.pieces if x.name == name]


def test_every_part_of_an_iteration_is_a_piece_and_lazy_phases_count_for_their_share(trace):
    assert [(x.name, x.share) for x in trace.pieces] == [
        ("D", 1),
        ("D_r1", 1 / INTERVAL),
        ("optimizer", 1),
        ("optimizer", 1 / INTERVAL),
        ("step_end", 1),
    ]
    forward = 2 * BATCH * SIDE**2 * 8 * 8
    for name in ("D", "D_r1"):  # the images need no gradient
        operations = of(trace, name)[0].piece.operations
        assert sum(x.flops for x in operations) == 2 * forward
        assert {x.math for x in operations if x.flops} == {"tf32"}
        assert not any("adam" in x.name for x in operations)
    for x in of(trace, "optimizer"):
        assert "_fused_adam_" in [operation.name for operation in x.piece.operations]
    (end,) = of(trace, "step_end")
    assert end.piece.operations == [Operation("mul_", 1, 2 * 64 * FLOAT, 0, "fp32")]


def test_memory_of_weights_gradients_and_moments_is_told_apart(trace):
    assert (trace.weights, trace.grads) == (512, 512)  # 64 floats are less than a block
    assert trace.moments == 3 * 512  # and a number of steps
    image = BATCH * 8 * SIDE**2 * FLOAT
    # Images, the convolution's result with noise, and what passes while its square's gradient is found.
    assert 3 * image < trace.peak < 7 * image
    assert trace.peak == max(x.piece.peak for x in trace.pieces)


def test_a_kernel_takes_the_longer_of_moving_bytes_and_of_arithmetic_and_a_launch():
    gpu = GPUS["a100"]
    slow_memory = Operation("add", 1, 2_039_000_000, 1, "fp32")  # a millisecond
    arithmetic = Operation("mm", 2, 1, 312_000_000_000, "fp16")
    single = Operation("mm", 1, 1, 19_500_000_000, "fp32")
    piece = TracedPiece("D", 1.0, Piece([slow_memory, arithmetic, single]))
    assert piece.roofline_seconds(gpu) == pytest.approx(3e-3)
    assert piece.launch_seconds() == pytest.approx(4 * LAUNCH_SECONDS)
    lazy = TracedPiece("D_r1", 0.25, piece.piece)
    total = StepTrace([piece, lazy], 0, 0, 0, 0).seconds(gpu)
    assert total == pytest.approx(1.25 * (3e-3 + 4 * LAUNCH_SECONDS))


def test_types_without_tensor_cores_run_at_the_rate_of_float32():
    assert GPUS["v100"].peak("bf16") == GPUS["v100"].peak("tf32") == GPUS["v100"].fp32
    for name, gpu in GPUS.items():
        assert name == plain_name(name)
        assert gpu.fp32 <= gpu.peak("tf32") <= gpu.peak("fp16")
        assert 100e9 < gpu.bandwidth < 1e13 and 8 < gpu.memory_gb < 200


def test_generators_and_autocast_of_the_meta_device_are_there_inside_only():
    before = torch.Generator, torch.autocast
    with pytest.raises(ZeroDivisionError), usable_meta_device():
        assert torch.Generator("meta").device == torch.Generator().device == torch.device("cpu")
        with torch.autocast("meta", enabled=False):
            raise ZeroDivisionError
    assert (torch.Generator, torch.autocast) == before
