# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Inception Score."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ggdr.metrics.features import check_finite


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits."""

    mean: float
    std: float


def inception_score(logits: Tensor, *, num_splits: int = 10) -> InceptionScore:
    """exp of the mean Kullback-Leibler divergence of each image's classes from those of all images of its split.

    Args:
        logits:     [N, K], any floating type; the softmax is taken in float64. Split i is the rows from i N / splits
            to (i + 1) N / splits, both rounded down. Images sorted by class must be shuffled before (torch-fidelity
            gives `numpy.random.RandomState(seed).permutation(N)` as the order).
        num_splits: parts with a score each.

    Returns:
        Scores in [1, K].

    Raises:
        ValueError: another shape, fewer images than splits, or logits that are not finite.

    Source: Salimans et al. 2016, arXiv:1606.03498.
    """
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must be [N, K], got {list(logits.shape)}")
    if not 1 <= num_splits <= len(logits):
        raise ValueError(f"{len(logits)} images cannot be split into {num_splits} parts")
    check_finite(logits, "rows of logits")
    edges = [i * len(logits) // num_splits for i in range(num_splits + 1)]
    scores = torch.stack([_score(logits[start:end]) for start, end in zip(edges, edges[1:], strict=False)])
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


def _score(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(dim=1)
    # By logsumexp: the mean probability of a class may be 0 in float64, and its logarithm is needed.
    log_marginal = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp()
