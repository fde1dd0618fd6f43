# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Frechet distance of two normal distributions, and its extrapolation to infinitely many images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.stats import FeatureStats, Gaussian


class FidInfinity(NamedTuple):
    """Intercept and slope of the line FID = value + slope / num_fakes."""

    value: float
    slope: float


class _Covariance(NamedTuple):
    """A covariance [D, D] and a factor [D, rank] of it: factor @ factor^T."""

    matrix: Tensor
    factor: Tensor


def frechet_distance(mu_a: Tensor, cov_a: Tensor, mu_b: Tensor, cov_b: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of N(mu_a, cov_a) and N(mu_b, cov_b).

    Exact also where a covariance is singular, as that of fewer images than dimensions is.

    Args:
        mu_a, mu_b:   [D] float64.
        cov_a, cov_b: [D, D] float64, symmetric and positive semidefinite to rounding.

    Returns:
        |mu_a - mu_b|^2 + tr(cov_a) + tr(cov_b) - 2 tr((cov_a cov_b)^(1/2)), at least 0.

    Raises:
        ValueError: shapes or types differ from these, numbers are not finite, or a covariance is not symmetric or has
            a clearly negative eigenvalue.

    Source: Dowson & Landau 1982, "The Frechet distance between multivariate normal distributions".
    """
    _check(mu_a, cov_a, "mu_a and cov_a")
    _check(mu_b, cov_b, "mu_b and cov_b")
    if mu_a.shape != mu_b.shape:
        raise ValueError(f"distributions of {len(mu_a)} and {len(mu_b)} dimensions have no distance")
    return _distance(mu_a, _factored(cov_a), mu_b, _factored(cov_b))


def fid_infinity(
    real: Gaussian,
    fake_features: Tensor,
    *,
    num_points: int = 15,
    min_num: int | None = None,
    ddof: int = 0,
    seed: int = 0,
) -> FidInfinity:
    """FID as it would be with infinitely many fakes, by a line through FIDs of fewer against 1 / number.

    Args:
        real:          what the fakes are compared with; its own number of images stays as it is.
        fake_features: [N, D], any floating type.
        num_points:    FIDs computed, each of its own random subset; sizes are spaced evenly from min_num to N.
        min_num:       smallest subset. Default: N / 10, but twice the dimensions (a line needs full rank) or N / 2,
            whichever is less. 5000 of 50,000 at 2048 dimensions, as in the paper.
        ddof:          divisor of the subsets' covariances is their size minus this.
        seed:          of the subsets.

    Raises:
        ValueError: too few fakes for so many different sizes, features that FeatureStats refuses, or statistics that
            frechet_distance does.

    Source: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    _check(real.mean, real.cov, "the reals' mean and covariance")
    if fake_features.ndim != 2 or fake_features.shape[1] != len(real.mean):
        raise ValueError(f"fakes' features must be [N, {len(real.mean)}], got {list(fake_features.shape)}")
    num, dim = fake_features.shape
    if min_num is None:
        min_num = min(max(num // 10, 2 * dim), num // 2)
    if num_points < 2 or min_num < 2 or num - min_num < num_points - 1:
        raise ValueError(f"{num_points} subsets of {min_num} to {num} fakes give no line; more fakes are needed")
    sizes = np.linspace(min_num, num, num_points).astype(int)
    real_cov, rng = _factored(real.cov), np.random.RandomState(seed)
    distances = []
    for size in sizes:
        stats = FeatureStats(dim)
        stats.update(fake_features[torch.from_numpy(rng.permutation(num)[:size]).to(fake_features.device)])
        fake = stats.gaussian(ddof)
        mean, cov = fake.mean.to(real.mean.device), fake.cov.to(real.mean.device)
        distances.append(_distance(real.mean, real_cov, mean, _factored(cov)))
    slope, value = np.polyfit(1 / sizes, distances, deg=1)
    return FidInfinity(float(value), float(slope))


def _check(mu: Tensor, cov: Tensor, names: str) -> None:
    """Raises ValueError unless these are mean and covariance; `names` says what the caller calls them."""
    if mu.ndim != 1 or not len(mu) or cov.shape != (len(mu), len(mu)):
        raise ValueError(f"{names} must be [D] and [D, D], got {list(mu.shape)} and {list(cov.shape)}")
    if mu.dtype != torch.float64 or cov.dtype != torch.float64:
        raise ValueError(f"{names} must be float64, got {mu.dtype} and {cov.dtype}")
    if not (mu.isfinite().all() and cov.isfinite().all()):
        raise ValueError(f"{names} hold NaN or infinite numbers")
    skew = (cov - cov.T).abs().max()
    if skew > 1e-5 * cov.abs().max():
        raise ValueError(f"{names}: entries differ from their mirror images by {skew:.3g}; covariances are symmetric")


def _factored(cov: Tensor) -> _Covariance:
    """Covariance with its factor, of as many columns as its rank."""
    # What rounding leaves of an eigenvalue that is 0.
    negligible = len(cov) * torch.finfo(cov.dtype).eps * cov.diagonal().max()
    factor, failed = torch.linalg.cholesky_ex(cov)
    if not failed and factor.diagonal().square().min() > negligible:
        return _Covariance(cov, factor)
    eigenvalues, vectors = torch.linalg.eigh(cov)
    if eigenvalues[0] < -1e-3 * eigenvalues[-1].abs():
        raise ValueError(f"a covariance has no negative eigenvalues, got one of {eigenvalues[0]:.3g}")
    keep = eigenvalues > len(cov) * torch.finfo(cov.dtype).eps * eigenvalues.max()
    return _Covariance(cov, vectors[:, keep] * eigenvalues[keep].sqrt())


def _distance(mu_a: Tensor, a: _Covariance, mu_b: Tensor, b: _Covariance) -> float:
    # The root's eigenvalues are those of (factor^T cov factor)^(1/2). With the factor of lower rank none of them is a
    # zero in disguise, whose root would be 1e-8 rather than 1e-16.
    if a.factor.shape[1] > b.factor.shape[1]:
        a, b = b, a
    product = a.factor.T @ b.matrix @ a.factor
    trace = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
    distance = (mu_a - mu_b).square().sum() + a.matrix.trace() + b.matrix.trace() - 2 * trace
    return max(float(distance), 0.0)
