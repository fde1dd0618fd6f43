# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The loss terms of image translation against reference vectors, and against values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ggdr.translation.losses import (
    coarse_distance,
    cross_entropy,
    l1_distance,
    latent_distance,
    least_squares,
    multiscale,
    smooth_l1_distance,
)
from tests.reference_vectors import Golden, assert_agrees, golden_params

BY_NAME = {"lsgan": least_squares, "vanilla": cross_entropy}
DISTANCES = [l1_distance, smooth_l1_distance, coarse_distance, latent_distance]


@pytest.mark.parametrize("path", golden_params("translation_losses"))
def test_adversarial_losses_agree_with_reference_vectors(path):
    golden = Golden(path)
    values = golden.below("gan")
    assert len(values) == 4
    for name, truth in values.items():
        kind, _, side = name.partition("/")
        loss = BY_NAME[kind](golden["t"], side == "real")
        assert loss.shape == (len(golden["t"]),) and loss.dtype == torch.float32
        assert_agrees(loss.mean(), truth, name)


def test_adversarial_losses_of_known_logits():
    logits = torch.tensor([[[[0.0, math.log(3)]]], [[[-math.log(3), 0.0]]]])
    # sigmoid is 1/2 and 3/4, then 1/4 and 1/2.
    expected = torch.tensor([[2, 4 / 3], [4, 2]]).log().mean(dim=1)
    torch.testing.assert_close(cross_entropy(logits, True), expected)
    torch.testing.assert_close(cross_entropy(-logits, False), expected)
    torch.testing.assert_close(least_squares(torch.tensor([[1.0, 3], [0, 0]]), True), torch.tensor([2.0, 1]))
    torch.testing.assert_close(least_squares(torch.tensor([[1.0, 3], [0, 0]]), False), torch.tensor([5.0, 0]))


@pytest.mark.parametrize("loss", BY_NAME.values())
def test_the_right_answer_costs_less(loss):
    high, low = torch.full([2, 1, 3, 3], 0.9), torch.full([2, 1, 3, 3], 0.1)
    assert (loss(high, True) < loss(low, True)).all() and (loss(low, False) < loss(high, False)).all()


def test_huge_logits_give_finite_losses():
    huge = torch.tensor([[1e4], [-1e4]])
    assert cross_entropy(huge, True).tolist() == [0, 1e4] and cross_entropy(huge, False).tolist() == [1e4, 0]


def test_coarse_maps_count_more_and_the_last_once_more():
    maps = [torch.full([2, 1, 8 >> i, 8 >> i], float(10**i)) for i in range(3)]
    # Weights 1, 2, 4 of the squares 1, 100, 10^4; divided by 7 and by the 3 maps.
    torch.testing.assert_close(multiscale(maps, False), torch.full([2], (1 + 200 + 40000) / 21))
    of_one = multiscale([torch.full([2, 1, 4, 4], 3.0)], True, cross_entropy)
    torch.testing.assert_close(of_one, torch.full([2], math.log1p(math.exp(-3))))


def test_distances_of_known_images():
    a, b = torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    b[0, 0, 1, 1], b[1] = -3, 0.5
    torch.testing.assert_close(l1_distance(a, b), torch.tensor([3 / 9, 0.5]))
    # Beyond 1 the smooth L1 distance is |d| - 1/2, below it d^2 / 2.
    torch.testing.assert_close(smooth_l1_distance(a, b), torch.tensor([2.5 / 9, 0.125]))
    torch.testing.assert_close(latent_distance(a, b), torch.tensor([2.5 / 9, 0.125]))
    # The mean of the nine pixels, first.
    torch.testing.assert_close(coarse_distance(a, b), torch.tensor([(1 / 3) ** 2 / 2, 0.125]))


def test_the_coarse_distance_does_not_see_what_averages_out():
    stripes = torch.tensor([1.0, -2, 1]).repeat(3).expand(1, 3, 9, 9)
    window = torch.zeros(1, 3, 9, 9)
    assert smooth_l1_distance(stripes, window) > 0.5
    assert coarse_distance(stripes[..., :3], window[..., :3]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_are_one_a_sample_and_zero_of_equal_images(distance):
    a, b = torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    assert distance(a, b).shape == (3,) and (distance(a, b) > 0).all() and (distance(a, a) == 0).all()
    torch.testing.assert_close(distance(a, b)[1:2], distance(a[1:2], b[1:2]))
    with pytest.raises(ValueError, match=r"of one shape, got \(3, 2, 7, 8\) and \(1, 2, 7, 8\)"):
        distance(a, b[:1])


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_latent_target_alone_gets_no_gradient(distance):
    a, b = torch.randn(2, 2, 7, 7, requires_grad=True), torch.randn(2, 2, 7, 7, requires_grad=True)
    distance(a, b).sum().backward()
    assert a.grad.abs().sum() > 0 and (b.grad is None) == (distance is latent_distance)
