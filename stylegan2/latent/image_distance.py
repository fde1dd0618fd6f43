# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How unlike two images are, without downloaded networks: pixels at all scales, and what a discriminator sees.

The features of a snapshot's own discriminator stand in for those of VGG: it was trained to tell images of just this
kind apart. Pixels alone leave projections blurred; features alone shift their colours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ggdr.stylegan2.discriminator import Discriminator

SMALLEST_LEVEL = 4  # pixels: side of the last level of the pyramid
# With 2 the projections of a CIFAR-10 snapshot are hardly others.
FEATURE_WEIGHT = 5.0
EPS = 1e-8  # added to the squared norm of a pixel's features


def charbonnier(x: Tensor, *, eps: float = 1e-3) -> Tensor:
    """|x| with a round bottom, so that its slope at 0 is 0: sqrt(x^2 + eps^2) - eps, element by element."""
    return (x.square() + eps**2).sqrt() - eps


def pyramid_distance(img0: Tensor, img1: Tensor) -> Tensor:
    """Differences at every scale, each counted as much as the others.

    The difference of the images is split into a Laplacian pyramid: what a level's 2x2 means leave over, down to the
    4x4 means, and these. Of each level the mean absolute value counts (smooth about 0), summed over levels.

    Args:
        img0: [N, C, res, res] float in [-1, 1], res a power of two from 4 up, C any number.
        img1: the same.

    Returns:
        [N] float, at least 0; symmetric. Zero for equal images, with gradient 0.

    Raises:
        ValueError: the shapes differ or are others.

    Source: Burt & Adelson 1983, "The Laplacian pyramid as a compact image code", here with box filters; as a loss,
    with other weights, in Bojanowski et al. 2018, arXiv:1707.05776.
    """
    _check_images(img0, img1)
    level, total = img0 - img1, img0.new_zeros(len(img0))
    while level.shape[-1] > SMALLEST_LEVEL:
        n, channels, res, _ = level.shape
        blocks = level.reshape(n, channels, res // 2, 2, res // 2, 2)
        level = blocks.mean([3, 5])
        total = total + charbonnier(blocks - level[:, :, :, None, :, None]).flatten(1).mean(1)
    return total + charbonnier(level).flatten(1).mean(1)


def within_range(img: Tensor, target: Tensor) -> Tensor:
    """Images without what lies beyond [-1, 1] where the target is at that end of the range.

    A white pixel of an 8-bit target stands for all values from 1 up. Where the target is grey, values beyond the range
    stay as they are, and so keep their gradient.

    Args:
        img:    [N, C, H, W] float.
        target: the same, in [-1, 1].
    """
    img = torch.where(target >= 1, img.clamp(max=1), img)
    return torch.where(target <= -1, img.clamp(min=-1), img)


def discriminator_maps(D: Discriminator, img: Tensor) -> list[Tensor]:
    """What D makes of images [N, C, res, res] at half their resolution, a quarter, and so on to 4x4.

    Returns:
        [N, channels, r, r] float32, a vector of length 1 for every pixel.
    """
    x, maps = None, []
    for res in D.resolutions:
        x, img = getattr(D, f"b{res}")(x, img)
        y = x.float()
        maps.append(y * (y.square().sum(1, keepdim=True) + EPS).rsqrt())
    return maps


def maps_distance(maps0: list[Tensor], maps1: list[Tensor]) -> Tensor:
    """Mean squared distance of the vectors at a pixel, averaged over maps [N, channels, r, r]: [N] in [0, 4].

    Source: Zhang et al. 2018, arXiv:1801.03924, Eq. (1), with equal weights.
    """
    distances = [(x - y).square().sum(1).mean([1, 2]) for x, y in zip(maps0, maps1, strict=True)]
    return torch.stack(distances).mean(0)


def distance_to(
    target: Tensor, D: Discriminator | None = None, *, feature_weight: float = FEATURE_WEIGHT
) -> Callable[[Tensor], Tensor]:
    """The distance from given images, whose features are computed once.

    Args:
        target:         [N, C, res, res] float32 in [-1, 1], on the device of D.
        D:              of the same resolution and channels; its weights get no gradient if they ask for none.
                        None compares pixels only.
        feature_weight: of `maps_distance`, beside 1 of `pyramid_distance`.

    Returns:
        Images of the target's shape to [N], at least 0: pair by pair, and the same with target and image swapped.
        Values beyond [-1, 1] are taken as `within_range` takes them.
    """
    if D is None:
        return lambda img: pyramid_distance(within_range(img, target), target)
    with torch.no_grad():
        target_maps = discriminator_maps(D, target)

    def distance(img: Tensor) -> Tensor:
        img = within_range(img, target)
        return pyramid_distance(img, target) + feature_weight * maps_distance(discriminator_maps(D, img), target_maps)

    return distance


def _check_images(img0: Tensor, img1: Tensor) -> None:
    res = img0.shape[-1]
    if img0.shape != img1.shape or img0.ndim != 4 or img0.shape[2] != res or res < SMALLEST_LEVEL or res & (res - 1):
        raise ValueError(
            f"images must be [N, C, res, res], res a power of two from {SMALLEST_LEVEL} up, got {list(img0.shape)} "
            f"and {list(img1.shape)}"
        )
