# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Traces the training loop's iterations on the meta device, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, GANTask, Phase
from ggdr.torch_utils.loop import Counters, LoopConfig, PhaseRunner, StatsSum, always
from ggdr.torch_utils.timing.gpus import LAUNCH_SECONDS, Gpu
from ggdr.torch_utils.timing.live_memory import tensor_bytes
from ggdr.torch_utils.timing.operations import OperationTrace, Piece

META = torch.device("meta")
OPTIMIZER, STEP_END = "optimizer", "step_end"


@dataclass(frozen=True)
class TracedPiece:
    """A part of an iteration: a phase by its name, OPTIMIZER (the steps of all phases) or STEP_END.

    Attributes:
        share: how much of it an iteration has on average: 1 / interval of a lazily regularised phase.
    """

    name: str
    share: float
    piece: Piece

    def roofline_seconds(self, gpu: Gpu) -> float:
        """Of its kernels, each at the speed of the memory or of the arithmetic."""
        return sum(gpu.seconds(x.num_bytes, x.flops, x.math) for x in self.piece.operations)

    def launch_seconds(self) -> float:
        """Of its launches, each LAUNCH_SECONDS."""
        return sum(x.kernels for x in self.piece.operations) * LAUNCH_SECONDS

    def seconds(self, gpu: Gpu) -> float:
        return self.roofline_seconds(gpu) + self.launch_seconds()


@dataclass(frozen=True)
class StepTrace:
    """An iteration with all phases in it.

    Attributes:
        pieces:  in the order in which they run; the optimiser's steps are one for each phase, all called OPTIMIZER.
        weights: bytes of networks and of all else that is trained.
        grads:   bytes of gradients, which stay until the phase's next step.
        moments: bytes of the optimisers' state.
        peak:    most bytes that were alive at once; what the three above do not explain are features and the like.
    """

    pieces: list[TracedPiece]
    weights: int
    grads: int
    moments: int
    peak: int

    def seconds(self, gpu: Gpu) -> float:
        """Of a mean iteration."""
        return sum(x.share * x.seconds(gpu) for x in self.pieces)


def trace_step(
    build: Callable[[ProcessGroup], GANTask], make_batch: Callable[[], Batch], config: LoopConfig, *, tf32: bool
) -> StepTrace:
    """Runs two iterations of a task on the meta device, and traces the second.

    Args:
        build:      the task on a group's device. Its optimisers are Adam, with `exp_avg` and `exp_avg_sq`.
        make_batch: a batch on the meta device.
        tf32:       whether convolutions of float32 tensors multiply in TF32.
    """
    group = ProcessGroup(device=META)
    with usable_meta_device(), OperationTrace(tf32=tf32) as trace:
        task = build(group)
        batch = make_batch()
        runner = PhaseRunner(task, config, group, StatsSum(META))
        for optimizer in _optimizers(task):
            _fill_moments(optimizer)
        runner.iteration(batch, Counters(), due=always)
        trace.pieces.clear()
        _iterate(runner, batch, trace)
    optimizers = _optimizers(task)
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    params = [p for optimizer in optimizers for settings in optimizer.param_groups for p in settings["params"]]
    networks = [net for net in vars(task).values() if isinstance(net, torch.nn.Module)]
    return StepTrace(
        _traced_pieces(task, trace),
        weights=tensor_bytes([*params, *(x for net in networks for x in (*net.parameters(), *net.buffers()))]),
        grads=tensor_bytes(p.grad for p in params if p.grad is not None),
        moments=tensor_bytes(x for state in states for x in state.values()),
        peak=max(piece.peak for piece in trace.pieces.values()),
    )


def _optimizers(task: GANTask) -> list[torch.optim.Optimizer]:
    """Each once, though phases share them."""
    return list({id(phase.optimizer): phase.optimizer for phase in task.phases}.values())


def _iterate(runner: PhaseRunner, batch: Batch, trace: OperationTrace) -> None:
    """One iteration of all phases; their pieces are called as they are, and "NAME optimizer"."""
    current = ""

    def due(phase: Phase, step: int) -> bool:
        nonlocal current
        current = phase.name
        trace.begin(current)
        return True

    handles = []
    for optimizer in _optimizers(runner.task):
        handles.append(optimizer.register_step_pre_hook(lambda *args: trace.begin(_of_optimizer(current))))
        handles.append(optimizer.register_step_post_hook(lambda *args: trace.begin(current)))
    try:
        runner.iteration(batch, Counters(), due=due, done=lambda name: trace.begin(STEP_END))
    finally:
        for handle in handles:
            handle.remove()


def _of_optimizer(phase: str) -> str:
    return f"{phase} {OPTIMIZER}"


def _traced_pieces(task: GANTask, trace: OperationTrace) -> list[TracedPiece]:
    found = [TracedPiece(phase.name, 1 / phase.interval, trace.pieces[phase.name]) for phase in task.phases]
    found += [
        TracedPiece(OPTIMIZER, 1 / phase.interval, trace.pieces[_of_optimizer(phase.name)]) for phase in task.phases
    ]
    return [*found, TracedPiece(STEP_END, 1, trace.pieces[STEP_END])]


def _fill_moments(optimizer: torch.optim.Optimizer) -> None:
    """Adam's state as after its first step, which the fused one takes on no meta device."""
    for settings in optimizer.param_groups:
        for p in settings["params"]:
            state = {"step": torch.zeros([], device=p.device)}
            optimizer.state[p] = state | {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}


@contextmanager
def usable_meta_device() -> Iterator[None]:
    """Lets code that makes generators for its device, and turns off autocast there, run on the meta device.

    torch has neither for it. Inside, both are those of the CPU; they have no part in what is computed.
    """

    def of_cpu(device: Any) -> Any:
        return "cpu" if torch.device(device).type == "meta" else device

    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Generator:
            return super().__new__(cls, of_cpu(device))

    class Autocast(torch.autocast):
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(of_cpu(device_type), *args, **kwargs)

    before = torch.Generator, torch.autocast
    torch.Generator, torch.autocast = Generator, Autocast
    try:
        yield
    finally:
        torch.Generator, torch.autocast = before
