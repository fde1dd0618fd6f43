# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Frechet distance and FID-infinity."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from ggdr.metrics.fid import fid_infinity, frechet_distance
from ggdr.metrics.stats import FeatureStats, Gaussian
from tests.references import import_or_skip


def float64(*rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def features_of(num: int, dim: int, seed: int) -> Tensor:
    """[num, dim] float64, with the deviations of Inception's features: from 2 down to 0.001."""
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(99)).double())[0]
    deviations = torch.logspace(0.3, -3, dim, dtype=torch.float64)
    return torch.randn(num, dim, generator=rng).double() * deviations @ axes * (1 + 0.2 * seed) + 0.1 * seed


def gaussian_of(features: Tensor, ddof: int = 0) -> Gaussian:
    stats = FeatureStats(features.shape[1])
    stats.update(features)
    return stats.gaussian(ddof)


def distance(a: Gaussian, b: Gaussian) -> float:
    return frechet_distance(a.mean, a.cov, b.mean, b.cov)


def distance_of_rows(x: Tensor, y: Tensor) -> float:
    """By another way: the root's trace is the sum of the singular values of the product of both sets of rows.

    It takes roots of nothing, so it is exact to float64 for any number of rows.
    """
    shift = x.mean(dim=0) - y.mean(dim=0)
    x, y = ((rows - rows.mean(dim=0)) / math.sqrt(len(rows)) for rows in (x, y))
    return float(shift.square().sum() + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum())


def test_distance_of_shifted_gaussians_is_the_squared_shift():
    gaussian = gaussian_of(features_of(200, 16, seed=1))
    shift = torch.linspace(-1, 2, 16, dtype=torch.float64)
    shifted = gaussian._replace(mean=gaussian.mean + shift)
    assert distance(gaussian, shifted) == pytest.approx(float(shift.square().sum()), rel=1e-12)


def test_distance_of_scaled_gaussians_is_the_square_of_the_difference_of_scales():
    gaussian = gaussian_of(features_of(200, 16, seed=0))
    scaled = gaussian._replace(cov=9 * gaussian.cov)
    assert distance(gaussian, scaled) == pytest.approx((3 - 1) ** 2 * float(gaussian.cov.trace()), rel=1e-12)


def test_distance_of_independent_axes_adds_up():
    mean, a, b = torch.zeros(3).double(), float64(1, 4, 0), float64(25, 0, 9)
    assert frechet_distance(mean, a.diag(), mean, b.diag()) == pytest.approx(4**2 + 2**2 + 3**2, rel=1e-12)


def test_distance_of_two_ellipses_has_a_closed_form():
    # In 2 dimensions the trace of the root of M is sqrt(tr M + 2 sqrt(det M)).
    a, b, mean = float64([2, 1], [1, 3]), float64([5, -2], [-2, 1]), torch.zeros(2).double()
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(5 * 1))
    assert frechet_distance(mean, a, mean, b) == pytest.approx(5 + 6 - 2 * root, rel=1e-12)


# To 1e-7: eigenvalues that should be 0 are 1e-16 of the largest one, and roots are taken of them.
@pytest.mark.parametrize(("num_a", "num_b"), [(20, 30), (20, 500), (500, 20), (127, 127), (128, 129), (500, 400)])
def test_distance_is_right_for_fewer_images_than_dimensions(num_a, num_b):
    a, b = features_of(num_a, 128, seed=0), features_of(num_b, 128, seed=1)
    got = distance(gaussian_of(a), gaussian_of(b))
    assert got == pytest.approx(distance_of_rows(a, b), rel=1e-7)
    assert got == pytest.approx(distance(gaussian_of(b), gaussian_of(a)), rel=1e-7)


def test_distance_of_sets_that_share_images_or_dead_features_is_right():
    a = features_of(60, 128, seed=0)
    b = torch.cat([a[:40], features_of(10, 128, seed=1)])
    assert distance(gaussian_of(a), gaussian_of(b)) == pytest.approx(distance_of_rows(a, b), rel=1e-7)
    a[:, :90], b[:, 100:] = 0, 0
    assert distance(gaussian_of(a), gaussian_of(b)) == pytest.approx(distance_of_rows(a, b), rel=1e-7)


@pytest.mark.parametrize("num", [50, 500])
def test_distance_of_identical_statistics_is_zero_and_never_negative(num):
    gaussian = gaussian_of(features_of(num, 128, seed=0))
    assert 0 <= distance(gaussian, gaussian) < 1e-9


def test_eigenvalues_that_rounding_could_have_left_count_as_zero():
    axes = torch.linalg.qr(features_of(128, 20, seed=0))[0]
    mean, unit = torch.zeros(128).double(), torch.eye(128).double()
    assert frechet_distance(mean, axes @ axes.T + 2e-15 * unit, mean, unit) == pytest.approx(128 - 20, rel=1e-9)


def test_distance_of_points_is_that_between_them():
    mean, none = torch.zeros(4).double(), torch.zeros(4, 4).double()
    assert frechet_distance(mean, none, mean + 1, none) == 4
    assert frechet_distance(mean, none, mean, torch.eye(4).double()) == pytest.approx(4)


@pytest.mark.parametrize("num", [2000, 150])
def test_distance_is_that_of_scipys_square_root(num):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (gaussian_of(features_of(num, 96, seed)) for seed in (0, 1))
    root = linalg.sqrtm((a.cov @ b.cov).numpy()).real
    expected = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()) - 2 * np.trace(root)
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_distance_is_that_of_torch_fidelity():
    metric_fid = import_or_skip("torch_fidelity.metric_fid")
    a, b = features_of(2000, 96, seed=0), features_of(1500, 96, seed=1)
    stats = [metric_fid.fid_features_to_statistics(features) for features in (a, b)]
    expected = metric_fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert distance(gaussian_of(a, ddof=1), gaussian_of(b, ddof=1)) == pytest.approx(expected, rel=1e-6)


def test_distance_is_that_of_pytorch_fid():
    fid_score = import_or_skip("pytorch_fid.fid_score")
    a, b = features_of(2000, 96, seed=0).numpy(), features_of(1500, 96, seed=1).numpy()
    mean_and_cov = [stats for x in (a, b) for stats in (x.mean(axis=0), np.cov(x, rowvar=False))]
    with warnings.catch_warnings():
        # The argument disp of sqrtm is on its way out of scipy.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            expected = fid_score.calculate_frechet_distance(*mean_and_cov)
        except TypeError as error:
            pytest.skip(f"pytorch-fid does not run with this scipy: {error}")
    assert frechet_distance(*map(torch.from_numpy, mean_and_cov)) == pytest.approx(float(expected), rel=1e-6)


def change_of(cov: Tensor, entry: tuple[int, int], value: float) -> Tensor:
    cov = cov.clone()
    cov[entry] = value
    return cov


@pytest.mark.parametrize(
    ("mu", "cov", "message"),
    [
        (torch.zeros(3).double(), torch.eye(4).double(), r"mu_b and cov_b must be \[D\] and \[D, D\], got \[3\]"),
        (torch.zeros(5).double(), torch.eye(5).double(), "distributions of 4 and 5 dimensions"),
        (torch.zeros(4), torch.eye(4), "must be float64, got torch.float32"),
        (torch.full([4], torch.nan).double(), torch.eye(4).double(), "NaN"),
        (torch.zeros(4).double(), change_of(torch.eye(4).double(), (0, 1), torch.inf), "infinite"),
        (torch.zeros(4).double(), change_of(torch.eye(4).double(), (0, 1), 0.5), "mirror images by 0.5"),
        (torch.zeros(4).double(), change_of(torch.eye(4).double(), (2, 2), -0.5), "eigenvalues, got one of -0.5"),
    ],
)
def test_what_is_no_gaussian_is_refused(mu, cov, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(torch.zeros(4).double(), torch.eye(4).double(), mu, cov)


def test_fid_infinity_takes_the_bias_of_few_fakes_away():
    dim = 8
    exact = Gaussian(torch.zeros(dim).double(), torch.eye(dim).double(), 10**9)
    fakes = torch.randn(4000, dim, generator=torch.Generator().manual_seed(0))
    result = fid_infinity(exact, fakes, min_num=100)
    assert distance(exact, gaussian_of(fakes[:100])) > 0.1
    assert abs(result.value) < 0.01
    assert result.slope > 10


@pytest.mark.parametrize("ddof", [0, 1])
def test_fid_infinity_is_the_intercept_of_the_line_through_its_points(ddof):
    real, fakes = gaussian_of(features_of(400, 8, seed=0)), features_of(300, 8, seed=1)
    result = fid_infinity(real, fakes, num_points=2, min_num=100, ddof=ddof, seed=3)
    part = fakes[torch.from_numpy(np.random.RandomState(3).permutation(300)[:100])]
    few, all_ = (distance(real, gaussian_of(rows, ddof)) for rows in (part, fakes))
    slope = (few - all_) / (1 / 100 - 1 / 300)
    assert result == pytest.approx((all_ - slope / 300, slope), rel=1e-6)


def test_fid_infinity_follows_its_seed_alone():
    real, fakes = gaussian_of(features_of(200, 8, seed=0)), features_of(200, 8, seed=1)
    first = fid_infinity(real, fakes, seed=1)
    np.random.seed(5)
    torch.manual_seed(5)
    assert fid_infinity(real, fakes, seed=1) == first
    assert fid_infinity(real, fakes, seed=2) != first


@pytest.mark.parametrize(
    ("fakes", "message"),
    [
        (torch.zeros(20, 4), "15 subsets of 8 to 20 fakes give no line"),
        (torch.zeros(200, 5), r"fakes' features must be \[N, 4\], got \[200, 5\]"),
        (torch.full([200, 4], torch.nan), "feature vectors hold NaN"),
    ],
)
def test_fid_infinity_names_what_it_cannot_use(fakes, message):
    with pytest.raises(ValueError, match=message):
        fid_infinity(Gaussian(torch.zeros(4).double(), torch.eye(4).double(), 100), fakes)
