# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr project` compares images by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.metrics.lpips import LPIPS_FILE, load_lpips
from ggdr.metrics.vgg import VGG16_FILE
from ggdr.stylegan2 import Discriminator
from ggdr.stylegan2.latent import image_distance
from ggdr.torch_utils.downloads import find_weights

LPIPS_SIZES = (16, 256)  # pixels: for LPIPS smaller images are enlarged, larger ones shrunk, as in the paper

DistanceTo = Callable[[Tensor], Callable[[Tensor], Tensor]]  # targets to the distances of images from them


def choose_distance(
    D: Discriminator | None, vgg: Path | None, lpips: Path | None, device: torch.device
) -> tuple[DistanceTo, str]:
    """LPIPS if its weights are given, else the distance that needs none; and what to call it.

    Raises:
        WeightsError: weights of LPIPS cannot be read.
    """
    if vgg is not None and lpips is not None:
        net = load_lpips(find_weights(VGG16_FILE, vgg), find_weights(LPIPS_FILE, lpips), device)
        return (
            lambda target: lambda img: compare_by_lpips(net, image_distance.within_range(img, target), target),
            "LPIPS",
        )
    about = "pixels" if D is None else "pixels and the features of the snapshot's discriminator"
    return lambda target: image_distance.distance_to(target, D), about


def compare_by_lpips(net: Callable[[Tensor, Tensor], Tensor], img0: Tensor, img1: Tensor) -> Tensor:
    """LPIPS of images [N, C, res, res] with 1, 3 or 4 channels: [N]; alpha counts as a grey image of its own."""

    def colours(x: Tensor) -> Tensor:
        """[N, C, ...] to [N, 3, ...], or of four channels [2N, 3, ...]."""
        if x.shape[1] == 4:
            return torch.cat([x[:, :3], x[:, 3:].expand(-1, 3, -1, -1)])
        return x.expand(-1, 3, -1, -1)

    res = min(max(img0.shape[-1], LPIPS_SIZES[0]), LPIPS_SIZES[1])
    resized = [F.interpolate(colours(x), (res, res), mode="area") for x in (img0, img1)]
    return net(*resized).view(-1, len(img0)).sum(0)
