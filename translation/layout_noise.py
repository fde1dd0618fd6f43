# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The noise of generators of label maps: a vector for each pixel, which several pixels may share."""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.translation.config_base import NOISE_KINDS


def draw_noise(layout: Tensor, seeds: Tensor, channels: int, kind: str = "image") -> Tensor:
    """Normal noise for label maps. That of one depends on its own seed, and on no other map nor on the device.

    Args:
        layout:   [N, C, H, W] float32, as `label_maps.one_hot` gives it.
        seeds:    [N] int64 on the CPU.
        channels: K, length of a vector.
        kind:     one vector for the whole image, as in training; one for each class, and one for pixels of none; or
                  one for each pixel.

    Returns:
        [N, K, H, W] float32 on the device of `layout`.

    Raises:
        ValueError: there is no such kind.

    Source: Sushko et al. 2020, arXiv:2012.04781, Section 3.3.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"noise must be one of {', '.join(NOISE_KINDS)}, got {kind!r}")
    n, classes, height, width = layout.shape
    shape = {"image": [1, channels], "class": [classes + 1, channels], "pixel": [height * width, channels]}[kind]
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    vectors = torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(layout.device)
    if kind == "image":
        return vectors.transpose(1, 2)[..., None].expand(-1, -1, height, width)
    if kind == "pixel":
        return vectors.transpose(1, 2).reshape(n, channels, height, width)
    return torch.einsum("nchw,nck->nkhw", with_rest(layout), vectors)


def with_rest(layout: Tensor) -> Tensor:
    """One plane more, 1 where a pixel is of no class: [N, C, H, W] -> [N, C + 1, H, W]."""
    return torch.cat([layout, 1 - layout.sum(dim=1, keepdim=True)], dim=1)
