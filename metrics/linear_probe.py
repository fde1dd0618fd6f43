# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a linear classifier finds of classes in feature maps: an upper bound for clusters, which see no labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_STEPS = 100
SETTLED = 1e-4  # largest gradient of the mean loss at which fitting ends


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on the channel vectors of feature maps.

    Attributes:
        mean, scale: [C], of the features that it was fitted to, which it sees as (feats - mean) / scale.
        weight:      [C, classes].
        bias:        [classes].
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def labels(self, feats: Tensor) -> Tensor:
        """The likeliest class at each pixel: [N, C, h, w] -> [N, h, w] int64, on the CPU."""
        found = [(self.see(part) @ self.weight + self.bias).argmax(dim=1) for part in feats.split(16)]
        return torch.cat(found).cpu().reshape(len(feats), *feats.shape[2:])

    def see(self, feats: Tensor) -> Tensor:
        """The vectors of all pixels, as the classifier sees them: [N, C, h, w] -> [N*h*w, C] float32."""
        vectors = feats.float().permute(0, 2, 3, 1).flatten(0, 2)
        return (vectors - self.mean) / self.scale


def fit_linear_probe(feats: Tensor, labels: Tensor, classes: int) -> LinearProbe:
    """Logistic regression from features to the classes of label maps that are as large or larger.

    Each pixel of the label maps that has a class counts alike, as if the features were enlarged to them (nearest
    neighbour). The loss is the sum of cross-entropies of the feature vectors plus half the squared length of the
    weights, as scikit-learn's LogisticRegression has it at C = 1.

    Args:
        feats:   [N, C, h, w] of any float type.
        labels:  [N, H, W] integers below `classes`, anything else for no class; H and W are multiples of h and w.
        classes: how many there are.

    Raises:
        ValueError: the sizes do not fit, or no pixel has a class.
    """
    height, width = feats.shape[2:]
    if len(labels) != len(feats) or labels.shape[1] % height or labels.shape[2] % width:
        raise ValueError(f"label maps {tuple(labels.shape)} are no multiple of features {tuple(feats.shape)}")
    # What share of a vector's pixels has each class says as much as the pixels themselves.
    block = labels.shape[1] // height, labels.shape[2] // width
    shares = torch.stack([F.avg_pool2d((labels == i).float(), block) for i in range(classes)], dim=-1)
    shares = shares.flatten(0, 2).to(feats.device)  # [N*h*w, classes]
    num = shares.sum()
    if not num:
        raise ValueError("no pixel of the label maps has a class")

    mean = feats.float().mean(dim=(0, 2, 3))
    scale = (feats.float() - mean[:, None, None]).square().mean(dim=(0, 2, 3)).sqrt().clamp_min(1e-8)
    weight = torch.zeros([feats.shape[1], classes], device=feats.device, requires_grad=True)
    bias = torch.zeros([classes], device=feats.device, requires_grad=True)
    x = LinearProbe(mean, scale, weight, bias).see(feats)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_STEPS, tolerance_grad=SETTLED, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        cross_entropies = -(shares * (x @ weight + bias).log_softmax(dim=1)).sum()
        value = (cross_entropies + weight.square().sum() / 2) / num
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return LinearProbe(mean, scale, weight.detach(), bias.detach())
