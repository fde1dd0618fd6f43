# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Walks through latents: lines, arcs and splines from key to key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CURVES = ("linear", "cubic")


@dataclass(frozen=True)
class Walk:
    """A path through latents that is at key k at time k.

    keys:      [K, ..., D] float64, K >= 2.
    bends:     [K, ..., D] float64, second derivatives at the keys; None for a path of straight lines or arcs.
    closed:    it returns to the first key at time K; an open one ends with the last, at K - 1.
    on_sphere: all its points have the length of a typical latent, sqrt(D).
    """

    keys: Tensor
    bends: Tensor | None
    closed: bool
    on_sphere: bool

    @property
    def num_segments(self) -> int:
        """Stretches from one key to the next."""
        return len(self.keys) - (not self.closed)

    def times(self, frames: int) -> Tensor:
        """[T] float64, `frames` to a segment; an open walk ends on its last key, a closed one just before its first."""
        return torch.arange(self.num_segments * frames + (not self.closed), dtype=torch.float64) / frames

    def at(self, t: Tensor) -> Tensor:
        """Points [T, ..., D] float64 at times t [T] float64; from 0 to K - 1, or any time if closed."""
        segment = t.floor().long()
        if not self.closed:
            segment = segment.clamp(0, self.num_segments - 1)
        b = (t - segment).view(-1, *[1] * (self.keys.ndim - 1))
        a = 1 - b
        i, j = segment % len(self.keys), (segment + 1) % len(self.keys)
        bend = 0
        if self.bends is not None:
            bend = ((a**3 - a) * self.bends[i] + (b**3 - b) * self.bends[j]) / 6
        elif self.on_sphere:
            # Along the arc at constant speed: sin(a x) and sin(b x), both divided by x so that x may be 0.
            x = _angle(self.keys[i], self.keys[j])
            a, b = a * torch.sinc(a * x / math.pi), b * torch.sinc(b * x / math.pi)
        points = a * self.keys[i] + b * self.keys[j] + bend
        return _to_sphere(points) if self.on_sphere else points


def walk_through(
    keys: Tensor,
    *,
    curve: Literal["linear", "cubic"] = "cubic",
    closed: bool = True,
    on_sphere: bool = False,
) -> Walk:
    """A walk through key latents.

    Args:
        keys:      [K, ..., D] float, K >= 2; walks side by side share their times, as [K, cells, D].
        curve:     "linear": straight lines, on the sphere arcs of great circles, at constant speed from key to key.
            "cubic": a cubic spline, which turns without a corner or a jolt (its second derivative is continuous),
            also where a closed walk returns; natural (straight) at the ends of an open one.
        closed:    return to the first key.
        on_sphere: for z, whose direction is all that a mapping network sees: keys and points are scaled to the length
            sqrt(D), a cubic walk by projecting the spline.

    Raises:
        ValueError: fewer than two keys, or another curve.

    Source: Shoemake 1985, "Animating rotation with quaternion curves" (arcs); the spline is the textbook's.
    """
    if len(keys) < 2:
        raise ValueError(f"a walk needs 2 keys or more, got {len(keys)}")
    if curve not in CURVES:
        raise ValueError(f"expected a linear or cubic curve, got {curve!r}")
    keys = keys.detach().to("cpu", torch.float64)
    keys = _to_sphere(keys) if on_sphere else keys
    bends = _spline_bends(keys, closed=closed) if curve == "cubic" else None
    return Walk(keys, bends, closed, on_sphere)


def _spline_bends(y: Tensor, *, closed: bool) -> Tensor:
    """Second derivatives m of the cubic spline through y [K, ...]: m[i-1] + 4 m[i] + m[i+1] = 6 (y'' of differences).

    Of a closed walk the system is circulant, which a Fourier transform makes diagonal. Of an open one it becomes so by
    reflection: continued oddly about both its ends, m is 0 there, which is what makes a spline natural.
    """
    if closed:
        d = 6 * (y.roll(1, 0) - 2 * y + y.roll(-1, 0))
    else:
        inner, end = 6 * (y[:-2] - 2 * y[1:-1] + y[2:]), torch.zeros_like(y[:1])
        d = torch.cat([end, inner, end, -inner.flip(0)])
    spectrum = torch.fft.rfft(d, dim=0)
    k = torch.arange(len(spectrum), dtype=y.dtype).view(-1, *[1] * (y.ndim - 1))
    return torch.fft.irfft(spectrum / (4 + 2 * torch.cos(2 * math.pi * k / len(d))), n=len(d), dim=0)[: len(y)]


def _to_sphere(x: Tensor) -> Tensor:
    """[..., D], each point scaled to the length sqrt(D)."""
    return torch.nn.functional.normalize(x, dim=-1) * math.sqrt(x.shape[-1])


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """[..., 1], the angle between vectors of one length; exact for small ones too, unlike an arc cosine."""
    return 2 * torch.atan2((x - y).norm(dim=-1, keepdim=True), (x + y).norm(dim=-1, keepdim=True))
