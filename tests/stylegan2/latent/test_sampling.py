# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Walks, mixed styles, layer names and the statistics of W."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from ggdr.stylegan2.config import GeneratorConfig
from ggdr.stylegan2.generator import SynthesisNetwork
from ggdr.stylegan2.latent.sampling import (
    SAMPLES_AT_ONCE,
    generate_images,
    images_of_seeds,
    latents_of_seeds,
    map_latents,
    pictures,
    w_covariance,
)
from ggdr.stylegan2.latent.style_mixing import layer_bands, layer_resolutions, mix_style_table
from ggdr.stylegan2.latent.walks import walk_through
from tests.tiny import tiny_generator

KINDS = [(curve, closed, sphere) for curve in ("linear", "cubic") for closed in (True, False) for sphere in (0, 1)]


def some_keys(num: int = 6, *shape: int) -> torch.Tensor:
    return torch.randn([num, *(shape or (16,))], generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# Walks.


@pytest.mark.parametrize(("curve", "closed", "sphere"), KINDS)
@pytest.mark.parametrize("num", [2, 3, 6])
def test_walks_pass_through_their_keys(curve, closed, sphere, num):
    keys = some_keys(num, 3, 16)
    walk = walk_through(keys, curve=curve, closed=closed, on_sphere=bool(sphere))
    points = walk.at(torch.arange(num, dtype=torch.float64))
    if sphere:
        keys = keys / keys.norm(dim=-1, keepdim=True) * 4
        torch.testing.assert_close(points, keys)
    else:
        assert torch.equal(points, keys)


@pytest.mark.parametrize(("curve", "closed", "sphere"), [kind for kind in KINDS if kind[1]])
def test_the_frame_after_the_last_of_a_closed_walk_is_the_first(curve, closed, sphere):
    walk = walk_through(some_keys(5), curve=curve, on_sphere=bool(sphere))
    t = walk.times(12)
    assert len(t) == 60
    after = t[-1] + (t[1] - t[0])
    torch.testing.assert_close(walk.at(after[None]), walk.at(t[:1]))
    # No frame is shown twice there, nor left out: the last step is like its neighbours.
    points = walk.at(torch.cat([t, t[:2]]))
    steps = points.diff(dim=0).norm(dim=1)
    assert (steps > 0).all()
    assert abs(steps[-2] / steps[-3] - 1) < 0.3


def test_an_open_walk_ends_on_its_last_key():
    keys = some_keys(4)
    walk = walk_through(keys, closed=False)
    t = walk.times(10)
    assert len(t) == 31
    points = walk.at(t)
    assert torch.equal(points[0], keys[0]) and torch.equal(points[-1], keys[-1])


@pytest.mark.parametrize("num", [2, 3, 7])
@pytest.mark.parametrize("closed", [True, False])
def test_cubic_walks_are_the_splines_of_scipy(closed, num):
    keys = some_keys(num)
    y = keys.numpy()
    if closed:
        spline = CubicSpline(np.arange(num + 1), np.concatenate([y, y[:1]]), bc_type="periodic")
    else:
        spline = CubicSpline(np.arange(num), y, bc_type="natural")
    walk = walk_through(keys, closed=closed)
    t = walk.times(9)
    np.testing.assert_allclose(walk.at(t).numpy(), spline(t.numpy()), atol=1e-12)


@pytest.mark.parametrize("sphere", [False, True])
def test_cubic_walks_turn_without_a_corner_and_linear_ones_do_not(sphere):
    keys = some_keys(6)

    def sharpest(curve: str, frames: int) -> float:
        walk = walk_through(keys, curve=curve, on_sphere=sphere)
        t = walk.times(frames)
        points = walk.at(torch.cat([t, t[:2]]))
        # Second differences tend to the second derivative, or to infinity at a corner.
        return float(points.diff(n=2, dim=0).norm(dim=1).max()) * frames**2

    assert sharpest("cubic", 200) < 1.1 * sharpest("cubic", 20)
    assert sharpest("linear", 200) > 5 * sharpest("linear", 20)


def test_a_closed_walk_has_no_first_key():
    keys = some_keys(5)
    t = torch.linspace(0, 4.9, 50, dtype=torch.float64)
    turned = walk_through(keys.roll(-2, 0)).at(t)
    torch.testing.assert_close(turned, walk_through(keys).at(t + 2))


@pytest.mark.parametrize(("curve", "closed", "sphere"), [kind for kind in KINDS if kind[2]])
def test_walks_on_the_sphere_keep_the_length_of_latents(curve, closed, sphere):
    walk = walk_through(10 * some_keys(6), curve=curve, closed=closed, on_sphere=True)
    norms = walk.at(walk.times(7)).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(16)))


def test_arcs_are_walked_at_constant_speed_in_their_plane():
    a, b = torch.eye(16, dtype=torch.float64)[:2]
    walk = walk_through(torch.stack([a, 3 * b]), curve="linear", closed=False, on_sphere=True)
    t = walk.times(8)
    expected = 4 * (torch.outer((t * math.pi / 2).cos(), a) + torch.outer((t * math.pi / 2).sin(), b))
    torch.testing.assert_close(walk.at(t), expected)


def test_a_walk_may_stand_still():
    keys = some_keys(1).repeat(2, 1)
    for curve in ("linear", "cubic"):
        walk = walk_through(keys, curve=curve, on_sphere=True)
        points = walk.at(walk.times(4))
        torch.testing.assert_close(points, points[:1].expand_as(points))


@pytest.mark.parametrize(("curve", "closed", "sphere"), KINDS)
def test_walks_side_by_side_do_not_know_of_each_other_nor_times_of_other_times(curve, closed, sphere):
    keys = some_keys(5, 3, 16)
    options = {"curve": curve, "closed": closed, "on_sphere": bool(sphere)}
    walk = walk_through(keys, **options)
    t = walk.times(4)
    together = walk.at(t)
    torch.testing.assert_close(together[:, 1], walk_through(keys[:, 1], **options).at(t))
    assert torch.equal(torch.cat([walk.at(part) for part in t.split(3)]), together)


def test_what_is_no_walk_is_refused():
    with pytest.raises(ValueError, match="2 keys or more, got 1"):
        walk_through(some_keys(1))
    with pytest.raises(ValueError, match="got 'bumpy'"):
        walk_through(some_keys(), curve="bumpy")


# Seeds and pictures.


def test_seeds_mean_what_they_mean_to_generate():
    G = tiny_generator(c_dim=3)
    seeds = [3, 77, 0]
    c = torch.eye(3)[[1, 1, 1]]
    _, ws = images_of_seeds(G, seeds, c, device="cpu", truncation_psi=0.5, truncation_cutoff=2)
    ours = map_latents(G, latents_of_seeds(seeds, G.z_dim), 1, truncation_psi=0.5, truncation_cutoff=2)
    assert torch.equal(ours, ws)


@pytest.mark.parametrize("noise_mode", ["const", "none"])
@pytest.mark.parametrize("img_channels", [1, 4])
def test_pictures_are_those_of_generate_in_any_batch(noise_mode, img_channels):
    G = tiny_generator(img_channels=img_channels)
    seeds = list(range(5))
    batches = generate_images(G, seeds, device="cpu", batch_size=5, noise_mode=noise_mode)
    expected = next(batches)[1].permute(0, 2, 3, 1).numpy()
    ws = map_latents(G, latents_of_seeds(seeds, G.z_dim))
    for batch_size in (1, 2, 8):
        images = np.stack(list(pictures(G, ws, batch_size=batch_size, noise_mode=noise_mode)))
        assert images.dtype == np.uint8 and images.shape == (5, 8, 8, img_channels)
        # Kernels may round differently by batch size: one level at most.
        assert np.abs(images.astype(int) - expected).max() <= 1


# Layers.


@pytest.mark.parametrize(
    ("res", "coarse", "middle", "fine"),
    [
        (8, [4], [8], [8]),
        (16, [4], [8], [16]),
        (32, [4, 8], [16], [32]),
        (64, [4, 8], [16, 32], [64]),
        (256, [4, 8], [16, 32], [64, 128, 256]),
        (1024, [4, 8], [16, 32], [64, 128, 256, 512, 1024]),
    ],
)
def test_bands_share_the_layers_out_by_resolution(res, coarse, middle, fine):
    synthesis = SynthesisNetwork(GeneratorConfig(res, w_dim=2, channel_base=1024, channel_max=2))
    resolutions, bands = layer_resolutions(synthesis), layer_bands(synthesis)
    assert [sorted({resolutions[i] for i in bands[name]}) for name in bands] == [coarse, middle, fine]
    assert [i for name in ("coarse", "middle", "fine") for i in bands[name]] == list(range(synthesis.num_ws))


def test_layers_are_numbered_as_the_network_reads_them():
    synthesis = tiny_generator(res=16).synthesis
    assert layer_resolutions(synthesis) == [shape[-1] for shape in synthesis.noise_shapes()] + [16]


def test_mixing_all_layers_gives_the_column_and_none_the_row():
    ws = torch.randn(5, 4, 3)
    base, style = ws[:2], ws[2:]
    mixed = mix_style_table(base, style, range(4))
    assert mixed.shape == (2, 3, 4, 3)
    assert torch.equal(mixed, style[None].expand(2, -1, -1, -1))
    assert torch.equal(mix_style_table(base, style, []), base[:, None].expand(-1, 3, -1, -1))


def test_mixing_takes_the_layers_named_and_no_others():
    base, style = torch.zeros(2, 4, 3), torch.ones(3, 4, 3)
    mixed = mix_style_table(base, style, [1, 3])
    assert mixed[:, :, [1, 3]].eq(1).all() and mixed[:, :, [0, 2]].eq(0).all()
    assert base.eq(0).all()


# Statistics.


def test_covariance_is_that_of_mapped_latents():
    G = tiny_generator()
    num = SAMPLES_AT_ONCE + 500
    generator = torch.Generator().manual_seed(3)
    z = torch.cat([torch.randn([SAMPLES_AT_ONCE, G.z_dim], generator=generator) for _ in range(2)])[:num]
    w = map_latents(G, z)[:, 0].double()
    covariance = w_covariance(G.mapping, num, seed=3)
    assert covariance.dtype == torch.float64
    torch.testing.assert_close(covariance, torch.cov(w.t()), rtol=1e-5, atol=1e-6)


def test_covariance_does_not_suffer_from_a_mean_far_off():
    G = tiny_generator()
    plain = w_covariance(G.mapping, 500)
    G.mapping.fc0.bias += 1000 / G.mapping.fc0.bias_gain  # the leaky ReLU is linear there
    far = w_covariance(G.mapping, 500)
    G.mapping.w_avg += 1000
    torch.testing.assert_close(w_covariance(G.mapping, 500), far, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain, far, rtol=1e-2)


def test_covariance_is_that_of_the_class():
    G = tiny_generator(c_dim=3)
    assert not torch.allclose(w_covariance(G.mapping, 500, 0), w_covariance(G.mapping, 500, 1))


def test_covariance_neither_uses_nor_moves_the_global_random_state():
    G = tiny_generator()
    state = torch.get_rng_state()
    first = w_covariance(G.mapping, 100)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(w_covariance(G.mapping, 100), first)
