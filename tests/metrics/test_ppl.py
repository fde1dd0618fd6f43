# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Perceptual path length, on generators for which a formula gives it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ggdr.metrics.ppl import EPSILON, perceptual_path_lengths, ppl_summary, slerp

N, Z_DIM, NUM_WS, RES = 6, 8, 2, 4


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Z0, Z1 = randn(N, Z_DIM, seed=0), randn(N, Z_DIM, seed=1)
C = torch.zeros(N, 0, dtype=torch.float64)
ENDS, ANYWHERE = torch.zeros(N, dtype=torch.float64), torch.linspace(0.05, 0.95, N, dtype=torch.float64)
TO_W = randn(Z_DIM, Z_DIM, seed=2)
TO_IMAGE = randn(NUM_WS * Z_DIM, 3 * RES * RES, seed=3) / 100


def mapping(z: Tensor, c: Tensor) -> Tensor:
    return (z @ TO_W)[:, None].repeat(1, NUM_WS, 1)


def synthesis(ws: Tensor) -> Tensor:
    return (ws.flatten(1) @ TO_IMAGE).view(-1, 3, RES, RES)


def squared(img0: Tensor, img1: Tensor) -> Tensor:
    return (img0 - img1).square().sum([1, 2, 3])


def squared_images(w: Tensor) -> Tensor:
    """|image of w|^2, [N]."""
    return synthesis(w[:, None].repeat(1, NUM_WS, 1)).square().sum([1, 2, 3])


@pytest.mark.parametrize("t", [ENDS, ANYWHERE], ids=["end", "full"])
def test_length_in_w_of_a_linear_generator_is_that_of_the_whole_path(t):
    lengths = perceptual_path_lengths(mapping, synthesis, squared, Z0, Z1, t, C, space="w")
    assert lengths.dtype == torch.float64
    torch.testing.assert_close(lengths, squared_images((Z1 - Z0) @ TO_W), rtol=1e-6, atol=0)


@pytest.mark.parametrize("t", [ENDS, ANYWHERE], ids=["end", "full"])
def test_length_in_z_of_a_linear_generator_is_that_of_the_arc(t):
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (Z0, Z1))
    omega = torch.acos((a * b).sum(1, keepdim=True))
    at = omega * t[:, None]
    tangent = omega / omega.sin() * (-(omega - at).cos() * a + at.cos() * b)  # derivative of the arc by t
    expected = squared_images(tangent @ TO_W)
    lengths = perceptual_path_lengths(mapping, synthesis, squared, Z0, Z1, t, C, space="z")
    torch.testing.assert_close(lengths, expected, rtol=1e-3, atol=0)
    assert not torch.allclose(expected, squared_images((Z1 - Z0) @ TO_W), rtol=0.1)


def test_a_path_is_measured_where_t_says():
    def curved(ws: Tensor) -> Tensor:
        return synthesis(ws**3)

    first, last = (
        perceptual_path_lengths(mapping, curved, squared, 0 * Z0, Z1, t, C, space="w")
        for t in (ENDS, torch.ones_like(ENDS))
    )
    assert first.max() < 1e-9 * last.min()


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_generator_twice_as_steep_has_four_times_the_length(space):
    once = perceptual_path_lengths(mapping, synthesis, squared, Z0, Z1, ANYWHERE, C, space=space)
    twice = perceptual_path_lengths(mapping, lambda ws: 2 * synthesis(ws), squared, Z0, Z1, ANYWHERE, C, space=space)
    torch.testing.assert_close(twice, 4 * once)


@pytest.mark.parametrize("space", ["z", "w"])
def test_length_of_a_path_does_not_depend_on_the_others(space):
    together = perceptual_path_lengths(mapping, synthesis, squared, Z0, Z1, ANYWHERE, C, space=space)
    alone = [
        perceptual_path_lengths(
            mapping, synthesis, squared, *(x[i : i + 1] for x in (Z0, Z1, ANYWHERE, C)), space=space
        )
        for i in range(N)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-6, atol=0)


def test_steps_far_below_a_grey_level_count():
    lengths = perceptual_path_lengths(mapping, lambda ws: synthesis(ws) / 100, squared, Z0, Z1, ENDS, C, space="w")
    assert (lengths.sqrt() * EPSILON * 127.5).max() < 1e-2
    torch.testing.assert_close(lengths, squared_images((Z1 - Z0) @ TO_W) / 100**2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("space", ["z", "w"])
def test_both_ends_of_a_step_have_the_label_and_go_through_the_generator_together(space):
    c = torch.eye(N, dtype=torch.float64)
    batches = []

    def labelled(z: Tensor, c: Tensor) -> Tensor:
        torch.testing.assert_close(c, torch.eye(N, dtype=torch.float64).repeat(2, 1))
        return mapping(z, c)

    def counted(ws: Tensor) -> Tensor:
        batches.append(len(ws))
        return synthesis(ws)

    perceptual_path_lengths(labelled, counted, squared, Z0, Z1, ENDS, c, space=space)
    assert batches == [2 * N]


@pytest.mark.parametrize("size, compared", [(4, 4), (256, 256), (384, 384), (512, 256), (1024, 256)])
def test_large_images_are_compared_as_means_of_blocks_and_grey_ones_as_rgb(size, compared):
    factor = size // compared
    pixels = torch.arange(size**2, dtype=torch.float64).view(1, 1, size, size)

    def distance(img0: Tensor, img1: Tensor) -> Tensor:
        assert img0.shape == img1.shape == (1, 3, compared, compared)
        assert img0[0, 1, 0, 1].item() == pytest.approx(pixels[0, 0, :factor, factor : 2 * factor].mean().item())
        return squared(img0, img1)

    one = [x[:1] for x in (Z0, Z1, ENDS, C)]
    perceptual_path_lengths(mapping, lambda ws: pixels.repeat(2, 1, 1, 1), distance, *one, space="w")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="space 'z' or 'w', got 'x'"):
        perceptual_path_lengths(mapping, synthesis, squared, Z0, Z1, ENDS, C, space="x")
    with pytest.raises(ValueError, match=r"got \[6, 8\], \[6, 8\], \[5\], \[6, 0\]"):
        perceptual_path_lengths(mapping, synthesis, squared, Z0, Z1, ENDS[1:], C, space="w")
    with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
        perceptual_path_lengths(mapping, lambda ws: torch.zeros(2 * N, 4, 8, 8), squared, Z0, Z1, ENDS, C, space="w")


def test_slerp_runs_from_one_direction_to_the_other():
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (Z0, Z1))
    torch.testing.assert_close(slerp(Z0, 5 * Z1, ENDS), a)
    torch.testing.assert_close(slerp(3 * Z0, Z1, ENDS + 1), b)
    near = slerp(Z0, Z1, ENDS + 0.25)
    assert ((near - a).norm(dim=1) < (near - b).norm(dim=1)).all()


def test_slerp_has_the_same_angular_speed_everywhere():
    points = torch.stack([slerp(Z0, Z1, ENDS + t) for t in torch.linspace(0, 1, 9).tolist()])
    torch.testing.assert_close(points.norm(dim=2), torch.ones(9, N, dtype=torch.float64))
    angles = torch.acos((points[1:] * points[:-1]).sum(2))
    torch.testing.assert_close(angles, angles[:1].expand(8, -1))
    whole = torch.nn.functional.cosine_similarity(Z0, Z1).acos()
    torch.testing.assert_close(angles.sum(0), whole)


def test_slerp_between_parallel_directions_stays_there():
    torch.testing.assert_close(slerp(Z0, 2 * Z0, ENDS + 0.5), Z0 / Z0.norm(dim=1, keepdim=True))
    # A tiny angle, in float32.
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1e-5]])
    assert slerp(a, b, torch.tensor([0.5]))[0, 1].item() == pytest.approx(5e-6, rel=1e-5)


def test_summary_leaves_out_lengths_outside_the_percentiles():
    lengths = torch.arange(101, dtype=torch.float64)
    lengths[0], lengths[100] = -1e9, 1e12
    assert ppl_summary(lengths[torch.randperm(101, generator=torch.Generator().manual_seed(0))]) == 50
    skewed = torch.tensor([*[1.0] * 98, 10.0, 1000.0, 1e9])  # 1e9 is above the 99th percentile, 1000 is it
    assert ppl_summary(skewed) == pytest.approx((98 + 10 + 1000) / 100)


def test_summary_of_few_lengths_is_their_mean():
    assert ppl_summary(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx(3)
    assert ppl_summary(torch.tensor([7.0])) == 7
    assert math.isclose(ppl_summary(torch.full([50], 0.1)), 0.1, rel_tol=1e-6)


def test_summary_refuses_lengths_that_are_no_numbers():
    with pytest.raises(ValueError, match="2 of 4 path lengths are NaN or infinite"):
        ppl_summary(torch.tensor([1.0, math.nan, 2.0, math.inf]))
    with pytest.raises(ValueError, match="N >= 1"):
        ppl_summary(torch.zeros(0))
