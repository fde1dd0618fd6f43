# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Times the training loop's iterations, piece by piece."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, GANTask, Phase
from ggdr.torch_utils.loop import DEVICE_CHECK_STEPS, Counters, LoopConfig, PhaseRunner, StatsSum, always
from ggdr.torch_utils.timing.flops import count_flops

LAZY_EVERY = 4  # phases that rest for longer run this often, so that a few iterations time them more than once


class StepTimer:
    """Runs a host's iterations as `torch_utils.loop.train` does, without reports and files, and times their pieces.

    The pieces are "data" (waiting for the loader and what the host makes of its batch), each phase by its name, and
    "step_end" (moving average, controllers, the look for NaN). On a GPU the time stamps are taken by the GPU, which is
    not made to wait for them.

    Args:
        task:    the host.
        batches: as `ggdr.torch_utils.loop.train` takes them.
        config:  batch sizes.
    """

    def __init__(self, task: GANTask, batches: Iterator[Batch], config: LoopConfig, group: ProcessGroup) -> None:
        self.task, self.batches, self.group = task, batches, group
        self.runner = PhaseRunner(task, config, group, StatsSum(group.device))
        self.intervals = {"data": 1, **{phase.name: phase.interval for phase in task.phases}, "step_end": 1}
        self._at = Counters()
        self._stamps: list[list[tuple[str, Any]]] = []

    def run(self, *, warm_up: bool = False) -> None:
        """One iteration; for warming up with every phase in it, and not timed.

        Raises:
            NonFiniteError: a loss or gradient became NaN or infinite.
        """
        stamps: list[tuple[str, Any]] = []

        def done(name: str) -> None:
            stamps.append((name, self._stamp()))

        done("")
        batch = next(self.batches)
        done("data")
        self.runner.iteration(batch, self._at, due=always if warm_up else _often, done=done)
        if self.group.device.type == "cpu" or self._at.step % DEVICE_CHECK_STEPS == 0:
            self.runner.check_finite()
        done("step_end")
        if not warm_up:
            self._stamps.append(stamps)

    def seconds(self) -> dict[str, float]:
        """Median time of each piece, over its interval: the pieces add up to the mean time of an iteration."""
        return {name: statistics.median(times) / self.intervals[name] for name, times in self._times().items()}

    def fastest_seconds(self) -> dict[str, float]:
        """The same from the shortest time of each piece: far below the median on a machine that others use too."""
        return {name: min(times) / self.intervals[name] for name, times in self._times().items()}

    def flops(self) -> dict[str, float]:
        """FLOPs of each phase over its interval (see `count_flops`), by running each once more."""
        batch = next(self.batches)
        found = {}
        for phase in self.task.phases:
            count = count_flops(lambda phase=phase: self.runner.run(phase, batch, 0))
            found[phase.name] = count / phase.interval
        return found

    def _stamp(self) -> Any:
        if self.group.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _times(self) -> dict[str, list[float]]:
        """Seconds of each piece in each timed iteration that had it."""
        on_gpu = self.group.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.group.device)
        times: dict[str, list[float]] = {name: [] for name in self.intervals}
        for stamps in self._stamps:
            for (_, before), (name, after) in pairwise(stamps):
                times[name].append(before.elapsed_time(after) / 1000 if on_gpu else after - before)
        return times


def _often(phase: Phase, step: int) -> bool:
    """As the loop does, but a phase that rests for longer runs every LAZY_EVERY iterations."""
    return step % min(phase.interval, LAZY_EVERY) == 0
