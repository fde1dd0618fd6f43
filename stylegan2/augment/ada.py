# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Adaptive augmentation strength: raises p while the discriminator overfits, and lowers it otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def _identity(x: Tensor) -> Tensor:
    return x


class AdaController:
    """Steers p so that the mean sign of D's logits of reals meets a target.

    Every `interval` steps: p <- p + sign(mean sign - target) * batch_size * interval / (speed_kimg * 1000),
    kept in [0, 1]. In the other steps nothing waits for the GPU.

    Args:
        p:          where to start, in [0, 1].
        target:     mean sign of D(real) to hold, in (-1, 1).
        interval:   steps between adjustments.
        speed_kimg: thousands of images in which p can go from 0 to 1; 500, or 100 for transfer learning.

    Raises:
        ValueError: a value is out of its range.

    Source: Karras et al. 2020, arXiv:2006.06676, Section 3.
    """

    def __init__(self, p: float = 0.0, *, target: float = 0.6, interval: int = 4, speed_kimg: float = 500.0) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        if not -1 < target < 1:
            raise ValueError(f"target must be in (-1, 1), got {target}")
        if interval < 1:
            raise ValueError(f"interval must be at least 1 step, got {interval}")
        if not speed_kimg > 0:
            raise ValueError(f"speed_kimg must be positive, got {speed_kimg}")
        self._p = float(p)
        self.target = target
        self.interval = interval
        self.speed_kimg = speed_kimg
        self._mean_sign = math.nan
        # Sum of signs and number of logits: of this rank in this step, and of all ranks since the last
        # adjustment.
        self._step: Tensor | None = None
        self._sums = torch.zeros(2)
        self._num_steps = 0

    @property
    def p(self) -> float:
        return self._p

    @property
    def mean_sign(self) -> float:
        """Mean sign of D(real) in [-1, 1] at the last adjustment; nan before the first."""
        return self._mean_sign

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Counts this rank's logits of real images, of any shape; may be called several times a step."""
        signs = real_logits.float().sign().sum()
        step = torch.stack([signs, torch.full_like(signs, real_logits.numel())])
        self._step = step if self._step is None else self._step + step

    def update(self, batch_size: int, *, reduce: Callable[[Tensor], Tensor] = _identity) -> float:
        """Ends a step.

        Args:
            batch_size: images of the step, over all ranks.
            reduce:     sums a tensor over all ranks, as each then does in the same step.

        Returns:
            p, adjusted if this step was the last of an interval.
        """
        if self._step is not None:
            step = reduce(self._step)
            self._sums = self._sums.to(step.device) + step
            self._step = None
        self._num_steps += 1
        if self._num_steps < self.interval:
            return self._p

        sum_signs, num_logits = self._sums.tolist()
        if num_logits > 0:
            self._mean_sign = sum_signs / num_logits
            direction = (self._mean_sign > self.target) - (self._mean_sign < self.target)
            change = direction * batch_size * self.interval / (self.speed_kimg * 1000)
            self._p = min(max(self._p + change, 0.0), 1.0)
        self._sums = torch.zeros_like(self._sums)
        self._num_steps = 0
        return self._p

    def state(self) -> dict[str, Any]:
        """All that an exact resume needs, in plain numbers and equal on every rank; for use between steps."""
        sum_signs, num_logits = self._sums.tolist()
        return {
            "p": self._p,
            "mean_sign": self._mean_sign,
            "num_steps": self._num_steps,
            "sum_signs": sum_signs,
            "num_logits": num_logits,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave, on every rank; their number may have changed.

        Raises:
            ValueError: a value is missing, or p is not in [0, 1].
        """
        missing = {"p", "mean_sign", "num_steps", "sum_signs", "num_logits"} - set(state)
        if missing:
            raise ValueError(f"ADA state lacks {sorted(missing)}, has {sorted(state)}")
        if not 0 <= state["p"] <= 1:
            raise ValueError(f"ADA state: p must be in [0, 1], got {state['p']}")
        self._p, self._mean_sign, self._num_steps = state["p"], state["mean_sign"], state["num_steps"]
        self._sums = torch.tensor([state["sum_signs"], state["num_logits"]])
        self._step = None
