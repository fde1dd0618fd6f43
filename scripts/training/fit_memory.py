# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`--batch-gpu auto`: how many images of a batch fit a GPU's memory in one forward, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch

from ggdr.scripts.errors import CliError
from ggdr.scripts.training.host import Host
from ggdr.scripts.training.settings import RunSettings
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import PhaseRunner, StatsSum

# Of a GPU's memory, in a trial: what PyTorch does not count (cuBLAS, nccl), and gaps between tensors in a long run.
HELD_BACK = 0.08
TRIAL_STEPS = 2  # from the second on the optimisers' moments are there from the start


def fitting_settings(host: Host, settings: RunSettings, data: Any, group: ProcessGroup) -> RunSettings:
    """The settings with the largest forward that fits the memory of each process' GPU; on CPUs all as they are.

    To be called on every process.

    Raises:
        CliError: none of those that the host can choose from fits.
    """
    return settings if group.device.type == "cpu" else largest_that_fits(host, settings, data, group)


def largest_that_fits(host: Host, settings: RunSettings, data: Any, group: ProcessGroup) -> RunSettings:
    """`fitting_settings`, on any device."""
    for choice, trial in host.memory_trials(settings):
        fits = _fits(host, trial, data, group.device)
        gc.collect()  # a task holds itself, in cycles
        if group.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(group.device)  # the run reports its own
        if not group.any(not fits):
            return choice
    least = choice.loop.batch_gpu
    raise CliError(
        f"--batch-gpu: not even {least} images in a forward fit the GPU's memory. What takes less: "
        f"{host.memory_advice(choice)}"
    )


def _fits(host: Host, settings: RunSettings, data: Any, device: torch.device) -> bool:
    """Whether all phases of a run fit; the trial is one process', so that none waits for another that fails."""
    alone = ProcessGroup(device=device)
    try:
        with _less_memory(device):
            task = host.build(settings, data, alone)
            runner = PhaseRunner(task, settings.loop, alone, StatsSum(device))
            with closing(host.batches(settings, data, alone, 0)) as batches:
                batch = next(batches)
            for _ in range(TRIAL_STEPS):
                for phase in task.phases:
                    runner.run(phase, batch, 0)
    except torch.OutOfMemoryError:
        return False
    return True


@contextmanager
def _less_memory(device: torch.device) -> Iterator[None]:
    """Inside, PyTorch takes no more of a GPU than a run should."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_per_process_memory_fraction(1 - HELD_BACK, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
