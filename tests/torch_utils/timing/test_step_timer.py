# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What of an iteration is timed, and how lazily regularised phases enter."""

from __future__ import annotations

import itertools

import pytest
import torch

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Phase, PhaseOutput
from ggdr.torch_utils.loop import LoopConfig
from ggdr.torch_utils.timing import step_timer
from ggdr.torch_utils.timing.step_timer import StepTimer

BATCH, INTERVAL = 4, 16
CONFIG = LoopConfig(1, BATCH, BATCH, 1, 1)


class ConvTask:
    """A 3x3 convolution of 3 to 5 channels: phase "D" trains it on images, "D_r1" on their x-flip."""

    def __init__(self) -> None:
        self.conv = torch.nn.Conv2d(3, 5, 3, padding=1)
        params = list(self.conv.parameters())
        optimizer = torch.optim.Adam(params, fused=True)
        self.ran: list[str] = []
        self.phases = [
            Phase("D", params, optimizer, lambda img, draws: self._losses("D", img), ("D",)),
            Phase(
                "D_r1",
                params,
                optimizer,
                lambda img, draws: self._losses("D_r1", img.flip(3)),
                ("D_r1",),
                interval=INTERVAL,
            ),
        ]

    def _losses(self, name: str, img: torch.Tensor) -> PhaseOutput:
        self.ran.append(name)
        return PhaseOutput({name: self.conv(img).square().mean(dim=[1, 2, 3])})

    def step_end(self, nimg, batch_size):
        self.ran.append("step_end")
        return {}


@pytest.fixture
def timer():
    img = torch.randn(BATCH, 3, 8, 8)
    return StepTimer(ConvTask(), itertools.repeat(img), CONFIG, ProcessGroup())


def test_lazy_phases_run_more_often_than_in_training_and_count_for_their_share(timer, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(step_timer.time, "perf_counter", lambda: float(next(ticks)))  # every piece takes a second
    timer.run(warm_up=True)
    timer.run(warm_up=True)
    assert timer.task.ran == ["D", "D_r1", "step_end"] * 2
    timer.task.ran.clear()
    for _ in range(8):
        timer.run()
    assert (timer.task.ran.count("D"), timer.task.ran.count("D_r1"), timer.task.ran.count("step_end")) == (8, 2, 8)
    expected = {"data": 1, "D": 1, "D_r1": 1 / INTERVAL, "step_end": 1}
    assert timer.seconds() == timer.fastest_seconds() == expected


def test_medians_are_of_timed_iterations_only(timer, monkeypatch):
    timer.task.phases.pop()
    timer = StepTimer(timer.task, timer.batches, CONFIG, timer.group)
    # Start, data, D, step end; iterations of 4, 8 and 36 seconds after one of 70.
    stamps = iter([0, 50, 60, 70] + [t for s in (1, 2, 9) for t in (100, 100 + s, 100 + 3 * s, 100 + 4 * s)])
    monkeypatch.setattr(step_timer.time, "perf_counter", lambda: float(next(stamps)))
    timer.run(warm_up=True)
    for _ in range(3):
        timer.run()
    assert timer.seconds() == {"data": 2, "D": 4, "step_end": 2}
    assert timer.fastest_seconds() == {"data": 1, "D": 2, "step_end": 1}


def test_flops_are_those_of_the_phase_over_its_interval(timer):
    forward = 2 * BATCH * 8 * 8 * 5 * 3 * 3 * 3
    # The images need no gradient, so forward and backward cost the same.
    assert timer.flops() == {"D": 2 * forward, "D_r1": 2 * forward / INTERVAL}
