# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Precision and recall, density and coverage."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ggdr.metrics.manifold import density_coverage, precision_recall
from tests.references import import_or_skip


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features_of(num: int, seed: int, scale: float = 1.0, shift: float = 0.0, dim: int = 8) -> Tensor:
    return torch.randn(num, dim, dtype=torch.float64, generator=rng_of(seed)) * scale + shift


def modes_of(num_modes: int, num: int, seed: int) -> Tensor:
    """[num, 8]: images of several modes, far from each other."""
    return features_of(num, seed) + 100 * (torch.arange(num) % num_modes)[:, None]


def by_brute_force(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    # cdist's quick way has rounding errors of its own.
    def distances(x: Tensor, y: Tensor) -> Tensor:
        return (x[:, None] - y[None]).norm(dim=2)

    real_radii, fake_radii = (distances(x, x).sort(dim=1).values[:, k] for x in (real, fake))
    in_real, in_fake = distances(real, fake) <= real_radii[:, None], distances(real, fake) <= fake_radii[None]
    return {
        "precision": in_real.any(dim=0).double().mean().item(),
        "recall": in_fake.any(dim=1).double().mean().item(),
        "density": in_real.sum().item() / (k * len(fake)),
        "coverage": in_real.any(dim=1).double().mean().item(),
    }


def ours(real: Tensor, fake: Tensor, k: int, **options) -> dict[str, float]:
    return (
        precision_recall(real, fake, k=k, **options)._asdict() | density_coverage(real, fake, k=k, **options)._asdict()
    )


# Fakes of less variety than the reals, so that each of the four numbers differs from its opposite.
REAL, FAKE = features_of(211, seed=0), features_of(160, seed=1, scale=0.7, shift=0.3)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_all_four_are_those_of_brute_force(k):
    assert ours(REAL, FAKE, k) == pytest.approx(by_brute_force(REAL, FAKE, k), rel=1e-12)
    assert ours(FAKE, REAL, k) == pytest.approx(by_brute_force(FAKE, REAL, k), rel=1e-12)
    assert precision_recall(REAL, FAKE, k=k).precision > precision_recall(REAL, FAKE, k=k).recall + 0.1


@pytest.mark.parametrize("k", [3, 5])
def test_all_four_are_those_of_prdc(k):
    prdc = pytest.importorskip("prdc")
    assert ours(REAL, FAKE, k) == pytest.approx(prdc.compute_prdc(REAL.numpy(), FAKE.numpy(), nearest_k=k), rel=1e-12)


def test_precision_and_recall_are_those_of_torch_fidelity():
    metric_prc = import_or_skip("torch_fidelity.metric_prc")
    expected = metric_prc.prc_features_to_metric(FAKE, REAL, verbose=False)
    assert precision_recall(REAL, FAKE) == pytest.approx((expected["precision"], expected["recall"]), rel=1e-6)


@pytest.mark.parametrize("block", [7, 16, 50, 160, 1000])
def test_blocks_make_no_difference(block):
    assert ours(REAL, FAKE, 3, block=block) == ours(REAL, FAKE, 3)


def test_order_of_images_does_not_matter():
    expected = ours(REAL, FAKE, 3)
    assert ours(REAL.flip(0), FAKE, 3) == expected
    assert ours(REAL, FAKE.flip(0), 3) == expected


def test_mode_collapse_moves_recall_and_not_precision():
    real = modes_of(4, 200, seed=0)
    complete, collapsed = (precision_recall(real, modes_of(n, 200, seed=1)) for n in (4, 1))
    assert min(complete) > 0.8
    assert collapsed.precision > 0.8
    assert collapsed.recall < 0.26
    density = [density_coverage(real, modes_of(n, 200, seed=1)) for n in (4, 1)]
    assert density[0].coverage > 0.8 and density[1].coverage < 0.26
    assert density[1].density > 0.8


def test_mode_invention_moves_precision_and_not_recall():
    real, invented = modes_of(1, 200, seed=0), modes_of(4, 800, seed=1)
    result = precision_recall(real, invented)
    assert result.recall > 0.8
    assert result.precision < 0.26
    density, coverage = density_coverage(real, invented)
    assert density < 0.3
    assert coverage > 0.8


def test_one_image_over_and_over_recalls_no_others():
    fake = REAL[:1].repeat(50, 1)
    assert precision_recall(REAL, fake) == (1.0, 1 / len(REAL))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [3, 500])
def test_copies_of_the_reals_count_as_inside_to_rounding(dtype, dim):
    real = (features_of(300, seed=0, dim=dim) + 5).to(dtype)
    fake = real[torch.randperm(300, generator=rng_of(1))]
    assert precision_recall(real, fake) == (1.0, 1.0)
    # Each ball holds its own centre and its k neighbours, of which the farthest is a tie.
    assert density_coverage(real, fake, block=64) == pytest.approx(((5 + 1) / 5, 1.0), rel=0.01)


def test_duplicates_have_balls_of_no_size():
    centres = torch.randn(20, 64, generator=rng_of(0)) + 10
    real = centres.repeat(5, 1)
    assert precision_recall(real, centres.repeat(4, 1)) == (1.0, 1.0)
    assert precision_recall(real, (centres + 0.1).repeat(4, 1)) == (0.0, 0.0)


def test_offset_common_to_all_features_costs_no_precision():
    real, fake = REAL.float() + 1000, FAKE.float() + 1000
    assert ours(real, fake, 3) == pytest.approx(by_brute_force(real.double(), fake.double(), 3), abs=0.01)


def test_density_of_fakes_like_the_reals_is_about_1():
    density, coverage = density_coverage(features_of(1000, seed=0), features_of(1000, seed=1))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.03)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(9, 4), "at least 4 real images are needed, got 3"),
        (torch.zeros(9, 4), torch.zeros(3, 4), "at least 4 fake images are needed, got 3"),
        (torch.zeros(9, 4), torch.zeros(9, 5), r"\[R, D\] and \[F, D\], got \[9, 4\] and \[9, 5\]"),
        (torch.full([9, 4], torch.inf), torch.zeros(9, 4), "9 of 9 real feature vectors hold NaN or infinite"),
    ],
)
def test_features_without_neighbours_are_refused(real, fake, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(real, fake)


def test_coverage_needs_one_fake_and_a_neighbour_for_each_real():
    assert density_coverage(torch.zeros(6, 4), torch.zeros(1, 4)) == pytest.approx((6 / 5, 1))
    with pytest.raises(ValueError, match="at least 1 fake images are needed, got 0"):
        density_coverage(torch.zeros(6, 4), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="at least 6 real images are needed, got 5"):
        density_coverage(torch.zeros(5, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        density_coverage(torch.zeros(5, 4), torch.zeros(1, 4), k=0)
