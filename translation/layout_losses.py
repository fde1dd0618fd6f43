# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The loss terms of OASIS: D says of each pixel which class it is of, or that it is fake.

Logits have N + 1 channels: the first is "fake", the others are the classes. Label maps have a plane for each class, as
`label_maps.one_hot` gives them; pixels of no class, all zero, count for nothing.

Source: Sushko et al. 2020, arXiv:2012.04781, Section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.translation.layout_noise import with_rest


def class_weights(counts: Tensor, pixels: int) -> Tensor:
    """How much a pixel of each class counts: the inverse of the share of all pixels that the class has in a batch.

    They are divided by the number of classes that are there, so that each has the same part in a mean over pixels.

    Args:
        counts: [C], pixels of each class.
        pixels: of the batch, those of no class too.

    Returns:
        [C] float32; 0 for a class that has no pixels.

    Source: Section 3.1, Eq. (1) and its class balancing.
    """
    present = counts > 0
    shares = counts.double() / pixels * present.sum()
    return torch.where(present, 1 / shares.clamp(min=torch.finfo(torch.float64).tiny), 0).float()


def segmentation_loss(logits: Tensor, layout: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of pixels against their classes: D's loss of real images, and G's of its own.

    Args:
        logits:  [N, C + 1, H, W].
        layout:  [N, C, H, W], 0 or 1.
        weights: [C], see `class_weights`.

    Returns:
        [N], the mean over all pixels of a map.

    Raises:
        ValueError: shapes do not fit.

    Source: Section 3.1, Eqs. (1) and (2).
    """
    _check_fits(logits, layout)
    log_p = logits.log_softmax(dim=1)[:, 1:]
    return -(log_p * layout * weights.view(1, -1, 1, 1)).sum(dim=1).flatten(1).mean(dim=1)


def fake_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of pixels against "fake": D's loss of G's images; [N, C + 1, H, W] -> [N]."""
    return -logits.log_softmax(dim=1)[:, 0].flatten(1).mean(dim=1)


def labelmix_mask(layout: Tensor, coins: Tensor) -> Tensor:
    """Which pixels of a mixed image are the real one's: whole classes, so that borders are those of the label map.

    Args:
        layout: [N, C, H, W], 0 or 1.
        coins:  [N, C + 1], 1 where a class is taken from the real image, else 0; the last is of pixels of no class.

    Returns:
        [N, 1, H, W], 0 or 1.

    Source: Section 3.2.
    """
    return (with_rest(layout) * coins[:, :, None, None]).sum(dim=1, keepdim=True)


def mixture(mask: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """`real` where the mask is 1, `fake` where it is 0; [N, 1, H, W] and [N, K, H, W] twice -> [N, K, H, W]."""
    return mask * real + (1 - mask) * fake


def labelmix_loss(of_mixed: Tensor, of_real: Tensor, of_fake: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of D's logits of a mixed image and the mixture of its logits: [N, C + 1, H, W] each -> [N].

    Args:
        mask: [N, 1, H, W], see `labelmix_mask`.

    Source: Section 3.2, Eq. (3).
    """
    return (of_mixed - mixture(mask, of_real, of_fake)).square().flatten(1).mean(dim=1)


@torch.no_grad()
def share_right(logits: Tensor, layout: Tensor) -> Tensor:
    """The share of pixels of a class that are taken for theirs, [N]; 0 of a map without classes.

    Args:
        logits: [N, C + 1, H, W].
        layout: [N, C, H, W], 0 or 1.
    """
    _check_fits(logits, layout)
    found = logits.argmax(dim=1, keepdim=True)
    right = layout.gather(1, (found - 1).clamp(min=0)) * (found > 0)
    return right.flatten(1).sum(dim=1) / layout.flatten(1).sum(dim=1).clamp(min=1)


@torch.no_grad()
def share_fake(logits: Tensor) -> Tensor:
    """The share of pixels that are taken for fake, [N, C + 1, H, W] -> [N]."""
    return (logits.argmax(dim=1) == 0).float().flatten(1).mean(dim=1)


def _check_fits(logits: Tensor, layout: Tensor) -> None:
    n, classes, *size = layout.shape
    if tuple(logits.shape) != (n, classes + 1, *size):
        raise ValueError(
            f"expected logits of the shape {(n, classes + 1, *size)}, for a label map of {classes} classes, got "
            f"{tuple(logits.shape)}"
        )
