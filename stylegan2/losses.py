# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The loss terms of StyleGAN2, each unreduced: [N] float32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_logistic_loss(fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(fake)), the non-saturating loss of G; logits [N, 1] -> [N].

    Source: Goodfellow et al. 2014, arXiv:1406.2661.
    """
    return F.softplus(-fake_logits).squeeze(1)


def real_logistic_loss(real_logits: Tensor) -> Tensor:
    """-log sigmoid(D(real)); logits [N, 1] -> [N]."""
    return F.softplus(-real_logits).squeeze(1)


def fake_logistic_loss(fake_logits: Tensor) -> Tensor:
    """-log(1 - sigmoid(D(fake))); logits [N, 1] -> [N]."""
    return F.softplus(fake_logits).squeeze(1)


def r1_penalty(real_logits: Tensor, real_img: Tensor, *, gamma: float) -> Tensor:
    """gamma/2 x |d D(real) / d real|^2 for each image.

    Args:
        real_logits: [N, 1], computed from `real_img`.
        real_img:    [N, C, H, W] with requires_grad.
        gamma:       weight.

    Returns:
        [N] float32, differentiable once more.

    Source: Mescheder et al. 2018, arXiv:1801.04406, Eq. (9).
    """
    (grad,) = torch.autograd.grad(real_logits.sum(), real_img, create_graph=True)
    return grad.square().sum(dim=[1, 2, 3]) * (gamma / 2)


def path_lengths(img: Tensor, ws: Tensor, pl_noise: Tensor) -> Tensor:
    """Length of J_w^T y for random images y, root mean square over the ws.

    Args:
        img:      [N, C, H, W], computed from `ws`.
        ws:       [N, num_ws, w_dim] with requires_grad.
        pl_noise: [N, C, H, W] standard normal.

    Returns:
        [N] float32, differentiable once more.

    Source: Karras et al. 2020, arXiv:1912.04958, Eq. (4) and Appendix B.
    """
    y = pl_noise / math.sqrt(img.shape[2] * img.shape[3])
    (grad,) = torch.autograd.grad((img * y).sum(), ws, create_graph=True)
    return grad.square().sum(dim=2).mean(dim=1).sqrt()


def mix_styles(ws: Tensor, ws_other: Tensor, cutoff: Tensor) -> Tensor:
    """Takes the ws of another latent from `cutoff` [N] on: [N, num_ws, w_dim] twice -> the same shape."""
    layer = torch.arange(ws.shape[1], device=ws.device)
    return torch.where((layer < cutoff[:, None])[:, :, None], ws, ws_other)
