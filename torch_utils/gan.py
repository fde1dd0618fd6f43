# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The seam between the training loop and what it trains: phases, batches, losses.

A host (StyleGAN2, an image-translation model) offers phases; the loop runs them and knows nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

Losses = dict[str, Tensor]  # unreduced, each [N] float32; the loop takes the mean, once
Warp = Callable[[Tensor], Tensor]  # [N, C, h, w] -> the same shape, at any resolution


def part(value: Any, share: slice) -> Any:
    """Slices everything in a nest of lists and dicts (tensors, or what else can be sliced) along the batch."""
    if isinstance(value, dict):
        return {key: part(item, share) for key, item in value.items()}
    if isinstance(value, list):
        return [part(item, share) for item in value]
    return None if value is None else value[share]


@dataclass(frozen=True)
class Batch:
    """What one forward and backward of a phase is given."""

    real_img: Tensor  # [N, C, H, W] float32 in [-1, 1]
    real_c: Tensor  # [N, c_dim] float32
    draws: Any  # this share of what the phase's `draw` gave: latents, labels, noise, augmentation


class PhaseOutput(NamedTuple):
    """What one forward of a phase gives: terms to minimise, and values only to report."""

    losses: Losses  # terms named after the phase ("D_real" in "D") make up its reported loss
    observed: dict[str, Tensor]  # each [N], without gradient


@dataclass
class Phase:
    """One optimiser step of the training iteration: "D", "D_r1", "G", "G_pl".

    Lazy regularisation: the phase runs every `interval` iterations and its losses count `interval` times.
    `draw(n, parts)` makes all random numbers for the batch of `n` images of all processes, from a generator that is
    in the same state on every process; it is split evenly into `parts` interleaved shares.
    """

    name: str
    params: list[Parameter]
    optimizer: Optimizer
    draw: Callable[[int, int], Any]
    losses: Callable[[Batch], PhaseOutput]
    interval: int = 1


class GANTask(Protocol):
    """What the loop needs of a host."""

    phases: list[Phase]

    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        """After all phases of an iteration: moving averages, controllers; returns values to report."""

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs, as tensors and plain values."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""

    def parameters(self) -> Iterable[Parameter]:
        """Every trained parameter, the regulariser's included."""

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """State dicts by network name, and the JSON-able settings that the networks are built from."""


class Regularizer(Protocol):
    """What a host needs of GGDR, or of the next idea."""

    name: str  # of the loss term, and of the reported value NAME/distance
    gain: float  # what `penalty` was multiplied by; divided out for the report

    def watch(self) -> AbstractContextManager[Any]:
        """Hooks live inside; G and D run once each."""

    def penalty(self, feats: Any, warp: Warp | None = None) -> Tensor:
        """[N] float32, added to the discriminator's loss on fakes."""

    def parameters(self) -> Iterable[Parameter]:
        """Trained in phase "D"."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...
