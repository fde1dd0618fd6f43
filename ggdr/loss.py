# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The distance between what the discriminator predicts and what the generator computed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
    return 1 - F.cosine_similarity(pred.float(), target.float(), dim=1, eps=eps).mean(dim=[1, 2])
