# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The discriminator predicts the label maps of real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.decoded import OfReals, Warp, Watched

IGNORED = 255  # in a label map: no class


def class_balanced_cross_entropy(logits: Tensor, labels: Tensor, *, ignored: int = IGNORED) -> Tensor:
    """Cross-entropy of a segmentation, in which each class that the batch shows counts alike.

    A pixel is weighted with the inverse frequency of its class in this batch, so that the mean over images is the mean
    over classes of a class' mean cross-entropy. Pixels of no class have no weight.

    Args:
        logits:  [N, C, H, W]; receives gradient.
        labels:  [N, H, W] integers below C, or `ignored`.
        ignored: the label of pixels of no class.

    Returns:
        [N] float32, from 0; 0 where no pixel has a class.

    Raises:
        ValueError: shapes differ.

    Source: Sushko et al. 2021, "You Only Need Adversarial Supervision for Semantic Image Synthesis" (OASIS),
    arXiv:2012.04781.
    """
    if labels.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ in shape")
    labels = labels.long()
    has_class = labels != ignored
    loss = F.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="none")  # 0 where ignored
    safe = labels.where(has_class, 0)
    counts = torch.zeros([logits.shape[1]], device=logits.device).index_add_(
        0, safe.flatten(), has_class.flatten().float()
    )
    weights = len(logits) / (counts.clamp(min=1) * (counts > 0).sum().clamp(min=1))
    return (loss * weights[safe]).sum(dim=[1, 2])


@torch.no_grad()
def warped_labels(labels: Tensor, warp: Warp | None, size: tuple[int, int], *, ignored: int = IGNORED) -> Tensor:
    """Label maps as D sees their images, at another size: each pixel has the label of the nearest one, never a mixture.

    Positions go through the warp in place of labels, as they may be interpolated.

    Args:
        labels: [N, H, W] integers.
        warp:   bilinear, or finer, with zeros outside, on maps [N, C, h, w] of any size; None for none.
        size:   of the map that the warp is given, h and w.

    Returns:
        [N, h, w] of the type of `labels` (another height and width if the warp crops); `ignored` outside.

    Raises:
        ValueError: the warp gives another number of images.
    """
    n, height, width = labels.shape
    rows, columns = (
        (torch.arange(small, device=labels.device) + 0.5) * (large / small)
        for small, large in zip(size, (height, width), strict=True)
    )
    place = torch.stack([*torch.meshgrid(rows, columns, indexing="ij"), torch.ones(size, device=labels.device)])
    place = place.expand(n, -1, -1, -1)
    place = place if warp is None else warp(place)
    if len(place) != n:
        raise ValueError(f"the warp gives {len(place)} maps of {n} label maps")
    # At an edge a position is mixed with zeros: divided by its share, it is that of the pixels inside.
    inside = place[:, 2]
    y, x = ((place[:, i] / inside.clamp(min=0.5)).long().clamp(0, most - 1) for i, most in enumerate((height, width)))
    found = labels.flatten(1).gather(1, (y * width + x).flatten(1)).reshape(y.shape)
    return found.where(inside >= 0.5, ignored)


class Semantic(OfReals):
    """Trains the discriminator to predict the label maps of the real images that it sees.

    Example:
        >>> semantic = Semantic(D, classes=19, size=32, encoder=["b16", "b8"], probe=lambda: D(img))
        >>> with semantic.watch() as feats:
        ...     real_logits = D(augment(real))
        >>> loss = adversarial(real_logits) + semantic.penalty(feats, label_map, warp=augment_features).mean()

    Classes are balanced within the images of one call; in several processes, or forwards, each balances its own.

    Source: Lee et al. 2022, arXiv:2207.13320, which compares GGDR with label maps; the loss is that of
    `class_balanced_cross_entropy`.
    """

    name = "semantic"
    quantity = "cross_entropy"
    of_reals = "label_map"

    def __init__(
        self,
        D: nn.Module,
        *,
        classes: int,
        size: int | tuple[int, int],
        encoder: str | Sequence[str],
        probe: Callable[[], object],
        weight: float = 1.0,
    ) -> None:
        """See OfReals; `classes` is how many there are."""
        self.classes = classes
        super().__init__(D, channels=classes, size=size, encoder=encoder, probe=probe, weight=weight)

    def cross_entropy(
        self, feats: Watched, label_map: Tensor, warp: Warp | None = None, *, reals: slice | None = None
    ) -> Tensor:
        """`class_balanced_cross_entropy` of the prediction, [N] float32.

        Args:
            feats:     from `watch`.
            label_map: [N, 1, H, W] of the real images before augmentation: classes from 0, IGNORED where there is none.
            warp:      what augmentation did to their geometry, on maps [N, C, h, w] of any size; None for nothing.
            reals:     where in D's batch these images are; None if they are all of it.

        Raises:
            RuntimeError: D did not run in the block.
            ValueError: label maps of another shape, or of another number of images than D saw; features of another
                regulariser.
            TypeError: `feats` is not from a `with` block.
        """
        pred = self.predict(feats, reals=reals)
        if label_map.ndim != 4 or label_map.shape[:2] != (len(pred), 1):
            raise ValueError(f"got label maps {tuple(label_map.shape)}, expected [{len(pred)}, 1, H, W]: one an image")
        size = tuple(pred.shape[2:]) if warp is None else self.size
        return class_balanced_cross_entropy(pred, warped_labels(label_map[:, 0], warp, size))

    def penalty(
        self, feats: Watched, label_map: Tensor, warp: Warp | None = None, *, reals: slice | None = None
    ) -> Tensor:
        """The term to add to the discriminator's loss, [N] float32: gain x cross_entropy (see `cross_entropy`).

        Raises:
            RuntimeError: D ran without gradients, and so would learn nothing; and what `cross_entropy` raises.
        """
        return self._weighted(feats, self.cross_entropy(feats, label_map, warp, reals=reals))
