# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Noise of seeds: normal, independent, and the same whatever is drawn with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ggdr.stylegan2.latent.sampling import images_of_seeds, latents_of_seeds
from ggdr.stylegan2.latent.seeded_noise import mix_bits, seeded_noise
from tests.scripts.test_generate import tiny_generator

GAMMA = 0x9E3779B97F4A7C15


def test_the_hash_is_splitmix64():
    # The first numbers of the published generator from state 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + i * GAMMA) % 2**64 for i in range(1, 5)]
    hashed = mix_bits(torch.from_numpy(np.array(states, np.uint64).view(np.int64)))
    assert hashed.numpy().view(np.uint64).tolist() == published


def test_hashing_leaves_what_it_is_given():
    x = torch.arange(5)
    mix_bits(x)
    assert x.tolist() == [0, 1, 2, 3, 4]


def test_noise_is_standard_normal():
    noise = seeded_noise(range(100), [1, 64, 64]).double().flatten()
    n = len(noise)
    # Each within five standard errors of what a normal distribution has.
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(noise.pow(power).mean() - expected) < 5 * math.sqrt(variance / n), power
    # Kolmogorov and Smirnov: the largest distance of the distribution functions.
    ideal = torch.special.ndtr(noise.sort().values)
    assert (ideal - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n)  # p = 0.001
    assert noise.abs().max() > 4


def test_neighbours_seeds_and_streams_are_independent():
    n = 128 * 128
    rows = [seeded_noise(range(40), [n]), seeded_noise(range(40), [n], stream=1)]
    rows = torch.cat([*rows, rows[0].roll(1, 1)[:40]]).double()
    correlation = torch.corrcoef(rows)
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(n)
    # Nor do squares go together, as the two numbers of a pair might, which have a radius in common.
    halves = rows[:40].reshape(80, -1).square()
    correlation = torch.corrcoef(halves)
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(n / 2)


@pytest.mark.parametrize("shape", [[1, 4, 4], [1, 16, 16], [5], [1, 3, 3]])
def test_noise_of_a_seed_depends_on_no_other(shape):
    seeds = [7, 0, 2**63 - 1, 12345678901]
    together = seeded_noise(seeds, shape)
    assert together.shape == (4, *shape) and together.dtype == torch.float32
    for seed, noise in zip(seeds, together, strict=True):
        assert torch.equal(seeded_noise([seed], shape)[0], noise)
    assert len(together.flatten().unique()) == together.numel()


def test_images_of_seeds_have_their_own_latents_and_noise_in_each_layer():
    G = tiny_generator()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(1)
    seeds = [3, 2**20 + 5]
    shapes = G.synthesis.noise_shapes()
    noise = [seeded_noise(seeds, shape, stream=i) for i, shape in enumerate(shapes)]
    with torch.inference_mode():
        expected = G(latents_of_seeds(seeds, G.z_dim), torch.zeros([2, 0]), noise=noise)
    img, _ = images_of_seeds(G, seeds, torch.zeros([2, 0]), device="cpu", noise_mode="random")
    assert torch.equal(img, expected)
    const, _ = images_of_seeds(G, seeds, torch.zeros([2, 0]), device="cpu")
    assert not torch.equal(img, const)
