# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The loss terms of image translation, each unreduced: [N] float32, the mean over all values of a sample.

Weights are the caller's: pix2pix takes 100 x L1; CycleGAN 10 x cycle and 5 x identity; both half of D's losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LogitLoss = Callable[[Tensor, bool], Tensor]  # (logits [N, ...], whether they should say "real") -> [N]


def cross_entropy(logits: Tensor, is_real: bool) -> Tensor:
    """-log sigmoid(logits) where they should say "real", else -log(1 - sigmoid(logits)): [N, ...] -> [N].

    G's loss is that of its fakes as real ones.

    Source: Goodfellow et al. 2014, arXiv:1406.2661; over patches: Isola et al. 2016, arXiv:1611.07004.
    """
    return _per_sample(F.softplus(-logits if is_real else logits))


def least_squares(logits: Tensor, is_real: bool) -> Tensor:
    """(logits - 1)^2 where they should say "real", else logits^2: [N, ...] -> [N].

    Source: Mao et al. 2016, arXiv:1611.04076; Zhu et al. 2017, arXiv:1703.10593, Section 4.
    """
    return _per_sample((logits - float(is_real)).square())


def multiscale(maps: Sequence[Tensor], is_real: bool, loss: LogitLoss = least_squares) -> Tensor:
    """A loss over several maps of logits, from the finest on: [N, ...] each -> [N].

    The n maps count 1, 2, ..., n - 1 and n + 1 times; the sum is divided by the sum of these weights, and by n.

    Source: as ComboGAN is published; Anoosheh et al. 2017, arXiv:1712.06909.
    """
    weights = [*range(1, len(maps)), len(maps) + 1]
    total = sum(weight * loss(logits, is_real) for weight, logits in zip(weights, maps, strict=True))
    return total / (sum(weights) * len(maps))


def hinge(maps: Sequence[Tensor], is_real: bool) -> Tensor:
    """max(0, 1 - logits) where they should say "real", else max(0, 1 + logits): D's loss, the mean over maps.

    [N, ...] each -> [N]. G's loss is the negative `mean_score` of its fakes.

    Source: Lim & Ye 2017, arXiv:1705.02894; CC-FPSE: Liu et al. 2019, arXiv:1910.06809, Section 3.3.
    """
    return _mean(_per_sample(F.relu(1 - logits if is_real else 1 + logits)) for logits in maps)


def mean_score(maps: Sequence[Tensor]) -> Tensor:
    """The mean of several maps of logits, each of which counts the same: [N, ...] each -> [N]."""
    return _mean(map(_per_sample, maps))


def feature_distance(feats: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """|difference| of D's features of an image and of its target, the mean over levels: [N, ...] each -> [N].

    Raises:
        ValueError: shapes differ.

    Source: Wang et al. 2018, arXiv:1711.11585, Eq. (4).
    """
    pairs = zip(feats, targets, strict=True)
    return _mean(l1_distance(feat.float(), target.float()) for feat, target in pairs)


def l1_distance(img: Tensor, target: Tensor) -> Tensor:
    """|img - target|: pix2pix' second loss, and CycleGAN's cycle and identity losses; [N, ...] twice -> [N].

    Cycle: `img` is F(G(target)). Identity: G(target), where G gives images of target's own domain.

    Raises:
        ValueError: shapes differ.

    Source: Isola et al. 2016, arXiv:1611.07004, Eq. (3); Zhu et al. 2017, arXiv:1703.10593, Eq. (2) and Section 5.2.
    """
    _check_shapes(img, target)
    return _per_sample((img - target).abs())


def smooth_l1_distance(img: Tensor, target: Tensor) -> Tensor:
    """ComboGAN's cycle loss: d^2 / 2 up to |d| = 1, |d| - 1/2 beyond, with d = img - target; [N, ...] twice -> [N].

    Raises:
        ValueError: shapes differ.
    """
    _check_shapes(img, target)
    return _per_sample(F.smooth_l1_loss(img, target, reduction="none"))


def coarse_distance(img: Tensor, target: Tensor) -> Tensor:
    """ComboGAN's identity and forward losses: the smooth L1 distance of means of 3x3 pixels, every other one.

    Identity: `img` is decode(encode(target, A), A). Forward: decode(encode(target, A), B), so that colours and
    places stay.

    Args:
        img, target: [N, C, H, W], from 3x3 pixels up.

    Returns:
        [N].

    Raises:
        ValueError: shapes differ.
    """
    _check_shapes(img, target)
    return smooth_l1_distance(F.avg_pool2d(img, 3, stride=2), F.avg_pool2d(target, 3, stride=2))


def latent_distance(code: Tensor, target: Tensor) -> Tensor:
    """ComboGAN's latent loss: smooth L1 distance of encode(fake_B, B) from encode(a, A), which gets no gradient.

    Args:
        code, target: [N, C, h, w].

    Returns:
        [N].

    Raises:
        ValueError: shapes differ.
    """
    return smooth_l1_distance(code.float(), target.detach().float())


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)


def _per_sample(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)


def _check_shapes(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"expected two tensors of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
