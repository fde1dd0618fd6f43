# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The training loop: runs a host's phases, and saves, reports and stops at the right moments."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, GANTask, Panel, Phase, batch_size, part
from ggdr.torch_utils.runlog import SPEED_KEY
from ggdr.torch_utils.stop_signals import stop_signals
from ggdr.torch_utils.timing.memory import memory_gib

DEVICE_CHECK_STEPS = 4  # iterations between looks at numbers that are still on a GPU
STATE_SECONDS = 600  # the state is saved at ticks that end this long after the last save


@dataclass(frozen=True)
class LoopConfig:
    """How long, in what pieces, and how often to report. All counts in images are of all processes together.

    An image is one sample of the data, whatever that is.
    """

    total_nimg: int
    batch: int
    batch_gpu: int  # images in one forward of one process; the rest is accumulated
    tick_nimg: int
    snap_ticks: int
    max_skips: int = 0  # optimiser steps in a row that a phase may leave out for a gradient that is not finite


@dataclass
class Counters:
    """Where a run is."""

    nimg: int = 0
    step: int = 0


class TrainLog(Protocol):
    """Where the loop reports; see ggdr.torch_utils.runlog.RunLog."""

    def info(self, msg: str) -> None: ...
    def scalars(self, nimg: int, values: Mapping[str, float]) -> None: ...
    def progress(
        self, nimg: int, *, tick: float | None = None, sec_per_kimg: float | None = None, **fields: float
    ) -> None: ...


class NonFiniteError(RuntimeError):
    """A loss or gradient became NaN or infinite."""


class StatsSum:
    """Sums (on the device) and counts of reported values since the last tick."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, float] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Adds values of any shape, without gradient."""
        total = values.float().sum() if values.ndim else values.float()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def state(self, group: ProcessGroup) -> dict[str, Tensor]:
        """Sum and count of each value, [2] float64, over all ranks; to be called on all, with the same names."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names]).double()
        counts = torch.tensor([self._counts[name] for name in names], dtype=torch.float64)
        table = group.sum_(torch.stack([sums, counts.to(self.device)], dim=1)).cpu()
        return {name: pair.clone() for name, pair in zip(names, table, strict=True)}

    def load_state(self, state: Mapping[str, Tensor], group: ProcessGroup) -> None:
        """Rank 0 goes on with the sums of all, the others from zero, so that the sum over ranks is right."""
        share = float(group.is_main)
        self._sums = {name: (pair[0] * share).float().to(self.device) for name, pair in state.items()}
        self._counts = {name: pair[1].item() * share for name, pair in state.items()}

    def means(self, group: ProcessGroup) -> dict[str, float]:
        """Mean of each value over all ranks; to be called on all."""
        return {name: (total / count).item() for name, (total, count) in self.state(group).items()}

    def latest(self, name: str) -> float:
        """Mean of one value on this rank so far; NaN if there is none."""
        count = self._counts.get(name, 0)
        return self._sums[name].item() / count if count else math.nan

    def clear(self) -> None:
        self._sums.clear()
        self._counts.clear()


def run_panels(task: GANTask) -> list[Panel]:
    """Panels of all values that a run of `task` reports: the host's, and between them those that the loop adds."""
    often = [phase.name for phase in task.phases if phase.interval == 1]
    rarely = [phase.name for phase in task.phases if phase.interval > 1]
    return [
        *(Panel(f"loss/{name}", name, "Losses", "loss", headline=True) for name in often),
        *task.panels,
        Panel(SPEED_KEY, "time", "Training time", "seconds per kimg", axis="zero"),
        *(Panel(f"loss/{name}", name, "Regularisation losses", "loss", detail=True, axis="log") for name in rarely),
        *(
            Panel(f"grad_norm/{x.name}", x.name, "Gradient norms", "L2 norm", detail=True, axis="log")
            for x in task.phases
        ),
        Panel("memory/cpu_gib", "process", "Memory", "GiB", detail=True, axis="zero"),
        Panel("memory/gpu_gib", "GPU, peak", "Memory", "GiB", detail=True, axis="zero"),
    ]


def is_due(phase: Phase, step: int) -> bool:
    """Whether a phase runs in an iteration."""
    return step % phase.interval == 0


def always(phase: Phase, step: int) -> bool:
    """In place of `is_due`: all phases run in every iteration."""
    return True


class PhaseRunner:
    """Runs iterations of a task: each phase's forward and backward in parts, average, check, step; then `step_end`."""

    def __init__(self, task: GANTask, config: LoopConfig, group: ProcessGroup, stats: StatsSum) -> None:
        self.task, self.config, self.group, self.stats = task, config, group, stats
        self.rounds = config.batch // group.world // config.batch_gpu
        if config.batch_gpu * self.rounds * group.world != config.batch:
            raise ValueError(
                f"batch {config.batch} does not split into {group.world} process(es) x a whole number of "
                f"batch-gpu {config.batch_gpu}"
            )
        self._checked: set[str] = set()
        self._unread: list[tuple[str, int, Tensor]] = []
        self._skips: dict[str, int] = {}
        for phase in task.phases:
            for p in phase.params:
                p.requires_grad_(False)

    def iteration(
        self,
        batch: Batch,
        at: Counters,
        *,
        due: Callable[[Phase, int], bool] = is_due,
        done: Callable[[str], None] = lambda name: None,
    ) -> dict[str, float]:
        """One iteration on this rank's share of a batch; moves `at` on.

        Args:
            due:  whether a phase runs in a step.
            done: called with the name of each phase after it.

        Returns:
            What the task's `step_end` reports.

        Raises:
            ValueError: the batch holds another number of samples; a phase's losses lack one of its terms, or depend
                on nothing that it trains.
        """
        share = self.config.batch // self.group.world
        if batch_size(batch) != share:
            raise ValueError(f"expected {share} samples in this process' share of a batch, got {batch_size(batch)}")
        for phase in self.task.phases:
            if due(phase, at.step):
                self.run(phase, batch, at.nimg)
                done(phase.name)
        at.nimg += self.config.batch
        at.step += 1
        return self.task.step_end(at.nimg, self.config.batch)

    def run(self, phase: Phase, batch: Batch, nimg: int) -> None:
        """One optimiser step of `phase` on this rank's share of the batch."""
        draws = None
        if phase.draw is not None:
            draws = phase.draw(self.config.batch, self.group.world * self.rounds)
            draws = part(draws, slice(self.group.rank, None, self.group.world))
        for p in phase.params:
            p.requires_grad_(True)
        phase.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros([], device=self.group.device)
        for i in range(self.rounds):
            share = slice(i, None, self.rounds)
            out = phase.losses(part(batch, share), part(draws, share))
            _check_terms(phase, out.losses)
            terms = {name: term.mean() for name, term in out.losses.items()}
            loss = reduce(add, terms.values())
            if not loss.requires_grad:
                raise _no_gradient(phase)
            _add_gradients(loss * (phase.interval * phase.loss_scale / self.rounds), phase.params)
            total += loss.detach() / self.rounds
            self._report(phase, {name: term.detach() for name, term in terms.items()}, out.observed)
        for p in phase.params:
            p.requires_grad_(False)
        grads = [p.grad for p in phase.params if p.grad is not None]
        if not grads:
            raise _no_gradient(phase)
        if phase.loss_scale != 1:
            torch._foreach_mul_(grads, 1 / phase.loss_scale)
        self.group.average_gradients_(phase.params, check=phase.name not in self._checked)
        self._checked.add(phase.name)
        grad_norm = torch.stack(torch._foreach_norm(grads)).norm()
        self.stats.add(f"grad_norm/{phase.name}", grad_norm)
        self._unread.append((phase.name, nimg, torch.stack([total, grad_norm])))
        _step_if(phase.optimizer, grad_norm.isfinite())

    def _report(self, phase: Phase, terms: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> None:
        """Adds a phase's terms, the sum of those that make up its loss, and what it observed to the statistics."""
        self.stats.add(f"loss/{phase.name}", reduce(add, (terms[name] for name in phase.terms)))
        for name, term in terms.items():
            self.stats.add(f"loss_term/{name}", term)
        for name, value in observed.items():
            self.stats.add(name, value)

    def check_finite(self) -> None:
        """Looks at the losses and gradients since the last check.

        Raises:
            NonFiniteError: one was NaN or infinite, more often in a row than `max_skips` allows.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        # Summed over ranks, so that every rank stops.
        values = self.group.sum_(torch.stack([value for _, _, value in unread])).tolist()
        for (name, nimg, _), (loss, grad_norm) in zip(unread, values, strict=True):
            if math.isfinite(loss) and math.isfinite(grad_norm):
                self._skips[name] = 0
                continue
            self._skips[name] = self._skips.get(name, 0) + 1
            if self._skips[name] > self.config.max_skips:
                what, value = ("gradient norm", grad_norm) if math.isfinite(loss) else ("loss", loss)
                step = nimg // self.config.batch
                raise NonFiniteError(f"{what} of phase {name} became {value} in step {step}, at {nimg} images")


def _check_terms(phase: Phase, losses: Mapping[str, Tensor]) -> None:
    """Raises ValueError if a phase's losses lack one of the terms that it declares."""
    missing = [name for name in phase.terms if name not in losses]
    if missing:
        there = ", ".join(losses) or "none"
        raise ValueError(f"phase {phase.name}: its losses lack {', '.join(missing)}; they are {there}")


def _no_gradient(phase: Phase) -> ValueError:
    """What to raise where a phase has nothing to learn from."""
    return ValueError(f"phase {phase.name}: its losses depend on no parameter that it trains")


def _add_gradients(loss: Tensor, params: Sequence[Parameter]) -> None:
    """Adds a loss's gradients to those of parameters; None stays where it does not depend on them.

    As `backward`, but without gradients of what else requires one, such as the images of R1.
    """
    taken: set[int] = set()
    for p, grad in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
        if grad is None:
            continue
        total = grad if p.grad is None else p.grad + grad
        # Each has its own, as the loop writes to them, laid out as the parameter, as optimisers on lists need it.
        if id(total) in taken or not _is_laid_out_as(total, p):
            total = torch.empty_like(p, requires_grad=False).copy_(total)
        taken.add(id(total))
        p.grad = total


def _is_laid_out_as(x: Tensor, other: Tensor) -> bool:
    """Whether tensors of one shape lie in memory alike; strides along a single element say nothing."""
    strides = x.stride(), other.stride()
    return strides[0] == strides[1] or all(n == 1 or a == b for n, a, b in zip(x.shape, *strides, strict=True))


def _step_if(optimizer: Optimizer, is_finite: Tensor) -> None:
    """Takes an optimiser's step, or leaves parameters and moments alone where the gradient is not finite.

    Args:
        is_finite: [] bool, on the device.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # torch's protocol with its gradient scaler, which fused optimisers follow on the device: the host never waits.
        optimizer.found_inf = is_finite.logical_not().float()
        optimizer.step()
    elif is_finite:
        optimizer.step()


def train(
    task: GANTask,
    batches: Iterator[Batch],
    config: LoopConfig,
    *,
    log: TrainLog,
    save_state: Callable[[dict[str, Any]], None],
    on_snapshot: Callable[[int], None],
    on_saved: Callable[[int, Callable[[], bool]], bool] = lambda nimg, is_stopped: True,
    is_over: Callable[[], bool] = lambda: False,
    group: ProcessGroup | None = None,
    resume: Mapping[str, Any] | None = None,
) -> bool:
    """Trains until `config.total_nimg` images, or until SIGINT, SIGTERM or SIGHUP.

    Args:
        task:        what it trains.
        batches:     this rank's shares of the data's batches, nests of tensors [batch/world, ...], from where `resume`
                     stopped.
        log:         what it reports goes here.
        save_state:  called with the loop's and the task's state, to be given back as `resume`.
        on_snapshot: called with nimg at the start of a new run (not of a resumed one), every `snap_ticks` ticks, and
                     at the end.
        on_saved:    called with nimg when the state of a snapshot is saved, and at the start of a resumed run, for what
                     may take long. It gives up soon after the function that it is given says so; returns whether it
                     came to its end, the same on every rank.
        is_over:     asked after `on_saved` came to its end, on every rank; once it says so, the same on all, the run
                     has come to its end.
        resume:      a state that `save_state` was given; the task has to be given its part by the caller.

    Returns:
        Whether the run came to its end; False if a signal stopped it.

    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite; nothing is saved then.
        ValueError:     what `PhaseRunner.iteration` raises.
    """
    group = group or ProcessGroup()
    stats = StatsSum(group.device)
    runner = PhaseRunner(task, config, group, stats)
    headline = [panel for panel in run_panels(task) if panel.headline]
    at = Counters()
    if resume is not None:
        at = Counters(**resume["counters"])
        stats.load_state(resume["stats"], group)
    else:
        on_snapshot(0)

    def save() -> None:
        save_state({"counters": asdict(at), "stats": stats.state(group), "task": task.state()})

    with stop_signals() as stop:
        is_saved = is_complete = True
        is_stopped = resume is not None and not on_saved(at.nimg, stop.is_set)
        done = at.nimg >= config.total_nimg or (resume is not None and not is_stopped and is_over())
        saved_time = tick_time = time.monotonic()
        timed_from = at.nimg
        while not (is_stopped or done):
            report = runner.iteration(next(batches), at)

            # A look at the device makes it wait, so on a GPU it is taken only now and then.
            done = at.nimg >= config.total_nimg
            is_whole = _crossed(at.nimg, config.batch, config.tick_nimg)
            tick_ends = done or is_whole
            looks = group.device.type == "cpu" or at.step % DEVICE_CHECK_STEPS == 0
            if not (tick_ends or looks or (group.world == 1 and stop.is_set())):
                continue
            runner.check_finite()
            is_saved = False
            if tick_ends:
                now = time.monotonic()
                rate = (now - tick_time) * 1000 / (at.nimg - timed_from)
                log.scalars(at.nimg, {**stats.means(group), **report, SPEED_KEY: rate, **memory_gib()})
                # The end of a run is a part of a tick, which a longer run brings to its end.
                tick = at.nimg // config.tick_nimg if is_whole else at.nimg / config.tick_nimg
                log.progress(at.nimg, tick=tick, sec_per_kimg=rate, **_headline(headline, stats, report))
                stats.clear()
                snap = done or _crossed(at.nimg, config.batch, config.tick_nimg * config.snap_ticks)
                if snap:
                    on_snapshot(at.nimg)
                if snap or group.any(now - saved_time > STATE_SECONDS):
                    save()
                    is_saved, saved_time = True, time.monotonic()
                if snap:
                    is_complete = on_saved(at.nimg, stop.is_set)
                    done = done or (is_complete and is_over())
                tick_time, timed_from = time.monotonic(), at.nimg
            else:
                log.progress(at.nimg, **_headline(headline, stats, report))

            is_stopped = group.any(stop.is_set()) and not (done and is_complete)
        if is_stopped:
            reason = stop.signal or "a signal to another process"
            saving = "" if is_saved else "; saving the training state"
            log.info(f"stopped by {reason} at {at.nimg / 1000:g} kimg{saving}")
            if not is_saved:
                save()
    return not is_stopped


def _crossed(nimg: int, batch: int, every: int) -> bool:
    """Whether the last batch passed a multiple of `every` images: ticks lie on a fixed grid."""
    return nimg // every > (nimg - batch) // every


def _headline(panels: Sequence[Panel], stats: StatsSum, report: Mapping[str, float]) -> dict[str, float]:
    """The values of the progress line by their labels; those that there are no numbers of yet are left out."""
    values = {panel.label: report.get(panel.name, stats.latest(panel.name)) for panel in panels}
    return {label: value for label, value in values.items() if not math.isnan(value)}
