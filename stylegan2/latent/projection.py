# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Projection: the latents whose images are closest to given ones.

Source: Karras et al. 2020, arXiv:1912.04958, Appendix D; W+: Abdal et al. 2019, arXiv:1904.03189.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ggdr.stylegan2.latent.sampling import Label, sampled_w
from ggdr.stylegan2.layers import MappingNetwork

SPACES = ("w", "w+")
SMALLEST_NOISE = 8  # pixels: noise maps are compared with their neighbours down to this size

Synthesis = Callable[[Tensor, Sequence[Tensor] | None], Tensor]  # ws [N, num_ws, w_dim], noise -> img [N, C, H, W]
OnStep = Callable[[int, Tensor, Sequence[Tensor] | None], None]


class ProjectionError(ValueError):
    """The distance became NaN or infinite."""


class WStatistics(NamedTuple):
    """Where the latents of a network lie: their mean [w_dim], and how far a component is from it (RMS)."""

    mean: Tensor
    std: float


@dataclass(frozen=True)
class ProjectionConfig:
    """How latents are looked for. Unlike the paper's, lengths in W are in standard deviations of its components.

    Attributes:
        steps:        of Adam.
        space:        "w": one latent for all layers. "w+": one for each, which are one for the first part of the steps.
        tied_until:   that part; ws that are free from the start end further from their target.
        lr:           highest learning rate.
        lr_ramp_up:   part of the steps in which it rises linearly from 0.
        lr_ramp_down: part of the steps in which it falls to 0, as a cosine.
        jitter:       of the latents at the first step, falling to 0 quadratically: it carries them out of poor minima.
        jitter_until: part of the steps after which it is 0.
        noise_weight: of the regularisation of noise maps, where they are looked for too.
    """

    steps: int = 500
    space: Literal["w", "w+"] = "w"
    tied_until: float = 0.5
    lr: float = 0.05
    lr_ramp_up: float = 0.05
    lr_ramp_down: float = 0.25
    jitter: float = 0.25
    jitter_until: float = 0.75
    noise_weight: float = 1e5

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ValueError(f"expected space w or w+, got {self.space!r}")
        if self.steps < 1 or not self.lr > 0:
            raise ValueError(f"expected steps >= 1 and lr > 0, got {self.steps} and {self.lr}")

    def is_tied(self, t: float) -> bool:
        """Whether all layers share one latent after part t in [0, 1] of the steps."""
        return self.space == "w" or t < self.tied_until

    def lr_at(self, t: float) -> float:
        """Learning rate after part t in [0, 1] of the steps."""
        up = min(1.0, t / self.lr_ramp_up) if self.lr_ramp_up > 0 else 1.0
        down = min(1.0, (1 - t) / self.lr_ramp_down) if self.lr_ramp_down > 0 else 1.0
        return self.lr * up * (0.5 - 0.5 * math.cos(math.pi * down))

    def jitter_at(self, t: float) -> float:
        """Standard deviation of the jitter after part t in [0, 1] of the steps."""
        return self.jitter * max(0.0, 1 - t / self.jitter_until) ** 2 if self.jitter_until > 0 else 0.0


@dataclass(frozen=True)
class Projection:
    """What was found, for N images.

    Attributes:
        ws:     [N, num_ws, w_dim] float32.
        noise:  [N, 1, res, res] float32 for each noise input; None if it was not looked for.
        losses: [N, steps + 1] float32 on the CPU, the image distance at each step, and last that of the result.
    """

    ws: Tensor
    noise: list[Tensor] | None
    losses: Tensor


def w_statistics(mapping: MappingNetwork, label: Label = None, *, num: int = 10_000, seed: int = 0) -> WStatistics:
    """Mean and spread of W, of one class where there are some; from `num` latents drawn on the CPU from `seed`."""
    w = torch.cat(list(sampled_w(mapping, num, label, seed=seed)))
    mean = w.mean(0)
    return WStatistics(mean, float((w - mean).square().mean().sqrt()))


def noise_correlation(noise: Tensor) -> Tensor:
    """How much noise resembles itself one pixel further, at its own and all coarser scales.

    Without it an image could be written into the noise maps.

    Args:
        noise: [N, 1, res, res] float, of mean 0 and variance 1.

    Returns:
        [N], at least 0; near 0 for white noise.

    Source: Karras et al. 2020, arXiv:1912.04958, Appendix D.
    """
    total = noise.new_zeros(len(noise))
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean([1, 2, 3]).square()
        n, _, res, _ = noise.shape
        if res <= SMALLEST_NOISE:
            return total
        # A mean of four has half the deviation of one.
        noise = noise.reshape(n, 1, res // 2, 2, res // 2, 2).mean([3, 5]) * 2


def project(
    distance: Callable[[Tensor], Tensor],
    synthesis: Synthesis,
    start: Tensor,
    num_ws: int,
    std: float,
    config: ProjectionConfig,
    *,
    noise_shapes: Sequence[tuple[int, ...]] | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Projection:
    """Moves latents until their images are close to given ones. Images do not influence each other.

    Args:
        distance:     images [N, C, H, W] to their distances [N] from the N targets.
        synthesis:    differentiable in ws, and in noise if that is looked for; its weights should ask for no gradient.
        start:        [N, w_dim] float32, where the latents start, such as the mean of W; not changed.
        num_ws:       layers that take a latent.
        std:          of the components of W, which lengths in `config` are in.
        noise_shapes: [1, res, res] of each noise input to look for; None leaves the noise to `synthesis`.
        seed:         of the jitter, the same for all images, and of the first noise maps.
        on_step:      is told of the start (0) and of the result of each step (1 to steps), without jitter; what it is
                      given changes with the next step.

    Raises:
        ValueError: another shape of `start`.
        ProjectionError: a distance is not finite.
    """
    if start.ndim != 2:
        raise ValueError(f"start must be [N, w_dim], got {list(start.shape)}")
    n, w_dim = start.shape
    generator = torch.Generator("cpu").manual_seed(seed)
    ws = start.detach()[:, None].repeat(1, num_ws, 1).requires_grad_()
    noise: list[Tensor] | None = None
    if noise_shapes is not None:
        drawn = [torch.randn([1, *shape], generator=generator) for shape in noise_shapes]
        noise = [x.to(start).repeat(n, 1, 1, 1).requires_grad_() for x in drawn]
    unknowns = [ws, *(noise or ())]
    adam = torch.optim.Adam([{"params": [ws]}, *([{"params": noise}] if noise else [])])
    losses = []

    def tell(step: int) -> None:
        if on_step is not None:
            on_step(step, ws.detach(), None if noise is None else [x.detach() for x in noise])

    tell(0)
    for step in range(config.steps):
        # Rates of the middle of the step: neither the first nor the last is 0. Noise maps have variance 1.
        lr = config.lr_at((step + 0.5) / config.steps)
        for group, unit in zip(adam.param_groups, (std, 1.0), strict=False):
            group["lr"] = lr * unit
        t = step / config.steps
        jitter = torch.randn([1, 1, w_dim], generator=generator) * (config.jitter_at(t) * std)
        with torch.enable_grad():
            # The mean gives equal ws equal gradients, so that they stay equal.
            at = ws.mean(1, keepdim=True).expand(-1, num_ws, -1) if config.is_tied(t) else ws
            loss = distance(synthesis(at + jitter.to(ws), noise))
            total = loss.sum()
            if noise is not None:
                total = total + config.noise_weight * sum(noise_correlation(x).sum() for x in noise)
            grads = torch.autograd.grad(total, unknowns)
        for x, grad in zip(unknowns, grads, strict=True):
            x.grad = grad
        adam.step()
        if noise is not None:
            _normalise(noise)
        losses.append(loss.detach())
        tell(step + 1)

    ws, noise = ws.detach(), None if noise is None else [x.detach() for x in noise]
    with torch.no_grad():
        losses.append(distance(synthesis(ws, noise)))
    return Projection(ws, noise, _finite(torch.stack(losses, dim=1).float().cpu()))


def _normalise(noise: Sequence[Tensor]) -> None:
    """Each map to mean 0 and variance 1, in place."""
    with torch.no_grad():
        for x in noise:
            x -= x.mean([2, 3], keepdim=True)
            x *= x.square().mean([2, 3], keepdim=True).rsqrt()


def _finite(losses: Tensor) -> Tensor:
    """losses [N, steps + 1] as they are; ProjectionError if one is not finite."""
    bad = (~losses.isfinite()).any(0).nonzero()
    if len(bad):
        raise ProjectionError(f"the distance is NaN or infinite from step {int(bad[0])} of {losses.shape[1] - 1} on")
    return losses
