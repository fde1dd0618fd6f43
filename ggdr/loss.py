# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The distance between what the discriminator predicts and what the generator computed."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm


def cosine_distance_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Cosine distance between channel vectors, averaged over pixels.

    Args:
        pred:   [N, C, H, W] from FeatureDecoder; receives gradient.
        target: [N, C, H, W] generator features; a constant, which receives no gradient.
        eps:    floor on the norms of the vectors.

    Returns:
        [N] float32 in [0, 2]. Zero iff every pixel's vectors point the same way.

    Raises:
        ValueError: shapes differ.

    Source: Lee et al. 2022, arXiv:2207.13320, Section 3.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction {tuple(pred.shape)} and target {tuple(target.shape)} differ in shape")
    return _CosineDistance.apply(pred.float(), target.detach().float(), eps)


class _CosineDistance(torch.autograd.Function):
    """The distance, and its gradient in two passes over the maps.

    With vectors p of the prediction and t of the target, d cos / dp = (t - p <p, t> / |p|^2) / (|p| |t|). Where |p| is
    below its floor, which is a constant, the second term falls away.
    """

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, eps: float) -> Tensor:
        pred_norm, dots, norms = _products(pred, target, eps)
        ctx.save_for_backward(pred, target, pred_norm, dots, norms)
        ctx.eps = eps
        return 1 - (dots / norms).mean(dim=[1, 2, 3])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        pred, target, *products = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative, of which those of the forward pass are no part
            products = _products(pred, target, ctx.eps)
        pred_norm, dots, norms = products
        *_, height, width = pred.shape
        of_dots = grad_outputs[0][:, None, None, None] / (norms * (-height * width))
        of_norm = of_dots * dots / F.threshold(pred_norm, ctx.eps, math.inf).square()
        return (pred * -of_norm).addcmul_(target, of_dots), None, None


def _products(pred: Tensor, target: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of the vectors at each pixel, [N, 1, H, W]: |p|, <p, t>, and |p| |t| with norms of at least eps."""
    pred_norm, target_norm = (vector_norm(x, dim=1, keepdim=True) for x in (pred, target))
    # As F.cosine_similarity, which divides both maps by their norms: fewer passes over memory.
    dots = (pred * target).sum(dim=1, keepdim=True)
    return pred_norm, dots, pred_norm.clamp(min=eps) * target_norm.clamp(min=eps)
