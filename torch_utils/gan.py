# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The seam between the training loop and a host, which is what it trains.

The loop runs the phases of any host. It knows nothing of what its data are, nor the name of a loss or of a value: a
batch is a nest of tensors to split and count, and what a run reports, draws and saves is declared by the host. In its
names and messages (`nimg`, `kimg`, "images") an image is one sample of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

Batch = Any  # a nest of dicts, lists and tuples with tensors [N, ...]
Losses = dict[str, Tensor]  # unreduced, each [N] float32; the loop takes the mean, once
Warp = Callable[[Tensor], Tensor]  # [N, C, h, w] -> the same shape, at any resolution


_EVERYTHING = (slice(None), slice(0, None, 1))  # as the only process, or the only round, has it


def part(nest: Any, share: slice) -> Any:
    """Slices everything in a nest of dicts, lists and tuples (tensors, or what else can be sliced) along the batch."""
    if share in _EVERYTHING:
        return nest
    if isinstance(nest, dict):
        return {key: part(item, share) for key, item in nest.items()}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(part(item, share) for item in nest))
    if isinstance(nest, (list, tuple)):
        return type(nest)(part(item, share) for item in nest)
    return None if nest is None else nest[share]


def batch_size(batch: Batch) -> int:
    """N of the first tensor in a nest; raises ValueError if there is none."""
    for leaf in _leaves(batch):
        return len(leaf)
    raise ValueError(f"expected a batch with at least one tensor, got {batch!r}")


def _leaves(nest: Any) -> Iterator[Any]:
    if isinstance(nest, dict):
        nest = list(nest.values())
    if isinstance(nest, (list, tuple)):
        for item in nest:
            yield from _leaves(item)
    elif nest is not None:
        yield nest


@dataclass(frozen=True)
class Panel:
    """One value that a run reports, and how curves, report and progress line show it.

    Attributes:
        name:     its key in stats.jsonl, as "score/real".
        label:    what a legend and the progress line call it, as "real".
        group:    title of the plot that it is drawn in, together with all others of the group.
        unit:     of the plot's axis.
        headline: whether it is in the progress line.
        detail:   whether only the report draws it, and the picture of `ggdr curves` does not.
        axis:     "linear", "log", or "zero" (linear, beginning at 0).
    """

    name: str
    label: str
    group: str
    unit: str = ""
    headline: bool = False
    detail: bool = False
    axis: str = "linear"


@dataclass(frozen=True)
class Picture:
    """A picture of a run: NAME.png, drawn once at its start, or NAMEKKKKKK.png, drawn at each snapshot.

    Attributes:
        name:  of the file, as "fakes".
        title: for people, as "Samples".
        draw:  gives [H, W, C] uint8.
        once:  whether it is drawn at the start alone.
    """

    name: str
    title: str
    draw: Callable[[], np.ndarray]
    once: bool = False


class PhaseOutput(NamedTuple):
    """What one forward of a phase gives: terms to minimise, and values only to report."""

    losses: Losses
    observed: Mapping[str, Tensor] = {}  # each [N], without gradient


@dataclass
class Phase:
    """One optimiser step of the training iteration: "D", "D_r1", "G", "G_pl"; "G_A+G_B", "D_A", ...

    Lazy regularisation: the phase runs every `interval` iterations and its losses count `interval` times.

    Attributes:
        params:    what it trains; everything else is frozen meanwhile.
        optimizer: any of torch's; phases may share one.
        losses:    gives the terms of a share of the batch and of its random numbers. All are minimised.
        terms:     names of the terms that make up its reported loss, `loss/NAME`; each term is also reported by itself.
        draw:      draw(n, parts) makes all random numbers for the batch of n samples of all processes, from a generator
                   that is in the same state on every process: a nest, whose tensors are split evenly into `parts`
                   interleaved shares. None: the phase needs none.
        loss_scale: what the loss is multiplied by for the backward pass, and gradients divided by after it, so that
                   they do not vanish in float16; a power of two, which rounds nothing.
    """

    name: str
    params: list[Parameter]
    optimizer: Optimizer
    losses: Callable[[Batch, Any], PhaseOutput]
    terms: tuple[str, ...]
    draw: Callable[[int, int], Any] | None = None
    interval: int = 1
    loss_scale: float = 1.0


class GANTask(Protocol):
    """A host as the loop knows it."""

    phases: Sequence[Phase]
    panels: Sequence[Panel]  # of the values that its phases observe and `step_end` returns
    pictures: Sequence[Picture]

    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        """After all phases of an iteration: moving averages, controllers, schedules; returns values to report."""

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs, as tensors and plain values; networks under "networks"."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """State dicts by network name, and the JSON-able settings that the networks are built from."""
