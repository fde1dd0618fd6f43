# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Perceptual path length: how much an image changes with a small step in latent space.

Four kinds: steps in Z, along an arc, or in W, along a line; at the start of a path ("end": t = 0), or anywhere on it
("full": t uniform in [0, 1]). Images are not rounded to 8 bits here: a step changes them by far less than a grey level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-4  # length of a step, as part of the path
MAX_SIZE = 256  # pixels; larger images are shrunk before they are compared


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Point on the unit sphere at part t of the arc from the direction of a to that of b.

    Args:
        a, b: [N, D] float, of any length but 0 and not opposite to each other.
        t:    [N], same type; 0 gives a / |a|, 1 gives b / |b|.

    Returns:
        [N, D], of length 1.

    Source: Shoemake 1985, "Animating rotation with quaternion curves".
    """
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    cosine = (a * b).sum(1, keepdim=True)
    across = b - cosine * a  # of length sine
    # An arc cosine would lose half the digits of a small angle.
    angle = torch.atan2(across.norm(dim=1, keepdim=True), cosine) * t[:, None]
    return F.normalize(a * angle.cos() + F.normalize(across, dim=1) * angle.sin(), dim=1)


def perceptual_path_lengths(
    mapping: Callable[[Tensor, Tensor], Tensor],
    synthesis: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    z1: Tensor,
    t: Tensor,
    c: Tensor,
    *,
    space: Literal["z", "w"],
    eps: float = EPSILON,
) -> Tensor:
    """How much images change per step, at one place of each path from z0 to z1.

    Args:
        mapping:   z [M, z_dim] and c [M, c_dim] to ws [M, num_ws, w_dim].
        synthesis: ws to images [M, C, H, W] float in [-1, 1], C = 1 or 3; with the same noise for all of them.
        distance:  two batches [N, 3, h, w] to [N], a squared distance such as LPIPS.
        z0, z1:    [N, z_dim] float, ends of the paths.
        t:         [N] in [0, 1], where on the path: all 0 for "end", uniform for "full".
        c:         [N, c_dim], labels; those of both ends.
        space:     "w": the path is the line between the ends' w. "z": it is an arc, and z has length 1 on it, so that
            mapping has to normalise its input, as StyleGAN's does.
        eps:       length of a step.

    Returns:
        [N] float64: distance / eps^2.

    Raises:
        ValueError: another space, numbers of paths that differ, or images of other than 1 or 3 channels.

    Source: Karras et al. 2019, arXiv:1812.04948, Section 4.1; Karras et al. 2020, arXiv:1912.04958.
    """
    if space not in ("z", "w"):
        raise ValueError(f"paths lie in space 'z' or 'w', got {space!r}")
    if z0.shape != z1.shape or t.shape != z0.shape[:1] or len(c) != len(z0):
        shapes = ", ".join(str(list(x.shape)) for x in (z0, z1, t, c))
        raise ValueError(f"z0, z1, t and c must be [N, z_dim] twice, [N] and [N, c_dim], got {shapes}")

    # Both ends of a step go through the networks as one batch.
    cc = torch.cat([c, c])
    if space == "z":
        ws = mapping(torch.cat([slerp(z0, z1, t), slerp(z0, z1, t + eps)]), cc)
    else:
        ws0, ws1 = mapping(torch.cat([z0, z1]), cc).chunk(2)
        at = t.to(ws0.dtype).view(-1, *[1] * (ws0.ndim - 1))
        ws = torch.cat([ws0.lerp(ws1, at), ws0.lerp(ws1, at + eps)])
    return distance(*_comparable(synthesis(ws)).chunk(2)).double() / eps**2


def ppl_summary(lengths: Tensor) -> float:
    """Perceptual path length: the mean of lengths [N], without those below the 1st and above the 99th percentile.

    Raises:
        ValueError: there are none, or some are not finite.
    """
    if lengths.ndim != 1 or not len(lengths):
        raise ValueError(f"path lengths must be [N], N >= 1, got {list(lengths.shape)}")
    num_bad = int((~lengths.isfinite()).sum())
    if num_bad:
        raise ValueError(f"{num_bad} of {len(lengths)} path lengths are NaN or infinite")
    values = lengths.double().cpu().numpy()
    # To the outside, where a percentile lies between two lengths: of few lengths none is left out.
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())


def _comparable(img: Tensor) -> Tensor:
    """Images as the distance takes them: three channels, and means of whole blocks of pixels if they are large."""
    if img.shape[1] not in (1, 3):
        raise ValueError(f"path lengths need images of 1 or 3 channels, got {img.shape[1]}")
    factor = min(img.shape[2:]) // MAX_SIZE
    if factor > 1:
        img = F.avg_pool2d(img, factor)
    return img.expand(-1, 3, -1, -1)
