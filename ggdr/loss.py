# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The distance between what the discriminator predicts and what the generator computed."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm


def cosine_distance_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Cosine distance between channel vectors, averaged over pixels.

    Args:
        pred:   [N, C, H, W] from FeatureDecoder; receives gradient.
        target: [N, C, H, W] generator features; constant.
        eps:    floor on the norms of the vectors.

    Returns:
        [N] float32 in [0, 2]. Zero iff every pixel's vectors point the same way.

    Raises:
        ValueError: shapes differ.

    Source: Lee et al. 2022, arXiv:2207.13320, Section 3.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction {tuple(pred.shape)} and target {tuple(target.shape)} differ in shape")
    pred, target = pred.float(), target.float()
    # As F.cosine_similarity, which divides both maps by their norms: fewer passes over memory.
    norms = vector_norm(pred, dim=1).clamp(min=eps) * vector_norm(target, dim=1).clamp(min=eps)
    return 1 - ((pred * target).sum(dim=1) / norms).mean(dim=[1, 2])
