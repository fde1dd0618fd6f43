# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Perceptual path length: how far images move when a latent moves a little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-4  # of the path's length, between the two images
MAX_SIZE = 256  # pixels; larger images are averaged down to it
PERCENTILES = (1, 99)  # what lies outside is left out


def path_lengths(
    mapping: Callable[[Tensor, Tensor], Tensor],
    synthesis: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    z1: Tensor,
    t: Tensor,
    c: Tensor,
    *,
    space: str,
    epsilon: float = EPSILON,
) -> Tensor:
    """Distance of the images at t and at t + epsilon of the way from z0 to z1, over epsilon^2.

    Images stay in float32: epsilon is far below what moves a pixel by a grey level.

    Args:
        mapping:   z [n, z_dim] and c to ws [n, num_ws, w_dim].
        synthesis: ws to img [n, C, H, W] float32 in [-1, 1]; with the same noise for all.
        distance:  two batches [n, 3, H, W] to [n], as LPIPS.
        z0, z1:    [n, z_dim], the ends of the paths.
        t:         [n] in [0, 1], where on the path; 0 measures at its end.
        c:         [n, c_dim].
        space:     "w": straight between the ws of both ends; "z": along the sphere between z0 and z1.

    Returns:
        [n] float64.

    Raises:
        ValueError: another space.

    Source: Karras et al. 2019, arXiv:1812.04948, Section 4.1; without the crop of faces as in Karras et al. 2020,
    arXiv:1912.04958.
    """
    if space not in ("w", "z"):
        raise ValueError(f"space must be 'w' or 'z', got {space!r}")
    if space == "w":
        w0, w1 = mapping(torch.cat([z0, z1]), torch.cat([c, c])).chunk(2)
        t = t[:, None, None]
        ws = torch.cat([w0.lerp(w1, t), w0.lerp(w1, t + epsilon)])
    else:
        ws = mapping(torch.cat([slerp(z0, z1, t), slerp(z0, z1, t + epsilon)]), torch.cat([c, c]))
    img = synthesis(ws).float()
    if img.shape[1] == 1:
        img = img.expand(-1, 3, -1, -1)
    factor = img.shape[2] // MAX_SIZE
    img0, img1 = (F.avg_pool2d(img, factor) if factor > 1 else img)[:, :3].chunk(2)
    return distance(img0.contiguous(), img1.contiguous()).double() / epsilon**2


def slerp(z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
    """Points of the unit sphere [n, dim] at t [n] of the way from z0 to z1 [n, dim], at constant speed.

    Source: Shoemake 1985, "Animating rotation with quaternion curves".
    """
    # float64: a step of 1e-4 squared is what the lengths are made of.
    a, b = (z.double() / z.double().norm(dim=1, keepdim=True) for z in (z0, z1))
    angle = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
    across = b - a * angle.cos()
    across = across / across.norm(dim=1, keepdim=True).clamp(min=1e-12)
    part = angle * t.double()[:, None]
    return (a * part.cos() + across * part.sin()).to(z0.dtype)


def ppl_summary(lengths: Tensor) -> float:
    """Mean of the lengths [N] from the 1st to the 99th percentile; beyond, single jumps would decide.

    Raises:
        ValueError: there are none, or some are not finite.
    """
    values = lengths.double().cpu().numpy()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"expected finite path lengths, got {np.sum(~np.isfinite(values))} of {len(values)} that are not"
        )
    low = np.percentile(values, PERCENTILES[0], method="lower")
    high = np.percentile(values, PERCENTILES[1], method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
