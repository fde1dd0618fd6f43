# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Distances between images that need no downloads, and the search for latents."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.stylegan2.config import DiscriminatorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.latent.image_distance import discriminator_maps, distance_to, maps_distance, pyramid_distance
from ggdr.stylegan2.latent.projection import (
    Projection,
    ProjectionConfig,
    ProjectionError,
    noise_correlation,
    project,
    w_statistics,
)
from tests.tiny import tiny_generator


def tiny_discriminator(*, res: int = 16, img_channels: int = 3) -> Discriminator:
    torch.manual_seed(2)
    config = DiscriminatorConfig(res, img_channels, channel_base=128, channel_max=16)
    return Discriminator(config).eval().requires_grad_(False)


def smooth_images(num: int, *, res: int = 16, channels: int = 3) -> Tensor:
    """[num, channels, res, res] in [-1, 1], with structure at several scales."""
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(num, channels, res // k, res // k, generator=generator) for k in (4, 2)]
    return sum(F.interpolate(x, (res, res), mode="bicubic") for x in parts).mul(0.4).clamp(-1, 1)


def blurred(img: Tensor, times: int) -> Tensor:
    for _ in range(times):
        img = F.avg_pool2d(F.pad(img, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return img


def distance_of(img: Tensor, target: Tensor, D: Discriminator | None) -> Tensor:
    return distance_to(target, D)(img)


@pytest.fixture(params=["pixels", "discriminator"])
def D(request) -> Discriminator | None:
    return tiny_discriminator() if request.param == "discriminator" else None


# Distances.


def test_distance_of_equal_images_is_zero_and_so_is_its_gradient(D):
    img = smooth_images(2).requires_grad_()
    distance = distance_of(img, img.detach().clone(), D)
    assert distance.shape == (2,) and distance.abs().max() < 1e-6
    (grad,) = torch.autograd.grad(distance.sum(), img)
    assert grad.isfinite().all() and grad.abs().max() < 1e-5
    black = torch.full([1, 3, 16, 16], -1.0, requires_grad=True)
    (grad,) = torch.autograd.grad(distance_of(black, black.detach(), D).sum(), black)
    assert grad.isfinite().all()


def test_distance_does_not_depend_on_the_order_of_images_or_on_the_batch(D):
    img0, img1 = smooth_images(4).chunk(2)
    forth, back = distance_of(img0, img1, D), distance_of(img1, img0, D)
    assert forth.min() > 0.1
    assert torch.allclose(forth, back, rtol=1e-5)
    assert torch.allclose(distance_of(img0[1:], img1[1:], D), forth[1:], rtol=1e-5)


def test_worse_images_are_further_away(D):
    img = smooth_images(3)
    noise = torch.randn(img.shape, generator=torch.Generator().manual_seed(4))
    for worse in (
        [blurred(img, times) for times in (1, 2, 8)],
        [img.roll(pixels, 3) for pixels in (1, 2, 4)],
        [img + sigma * noise for sigma in (0.02, 0.1, 0.5)],
        [img + shift for shift in (0.02, 0.1, 0.5)],
    ):
        distances = torch.stack([torch.zeros(3), *(distance_of(x, img, D) for x in worse)])
        assert (distances.diff(dim=0) > 0).all(), distances


def test_each_scale_counts_as_much_as_the_others():
    zero = torch.zeros(1, 1, 16, 16)
    sign = 1 - 2.0 * (torch.arange(16) % 2)
    fine = 0.5 * sign[:, None] * sign
    coarse = 0.5 * sign.repeat_interleave(4)[:16, None] * sign.repeat_interleave(4)[:16]
    expected = math.sqrt(0.25 + 1e-6) - 1e-3
    for img in (fine, coarse, torch.full([16, 16], -0.5)):
        assert pyramid_distance(img.expand_as(zero), zero).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("res", [4, 8, 64])
def test_pixels_of_any_number_of_channels_are_compared(res: int, channels: int):
    img = torch.rand([2, channels, res, res], generator=torch.Generator().manual_seed(0))
    assert (pyramid_distance(img, img * 0.5) > 0.01).all()


@pytest.mark.parametrize(("shape0", "shape1"), [((3, 8, 8), (3, 16, 16)), ((3, 12, 12),) * 2, ((3, 8, 16),) * 2])
def test_images_that_have_no_common_pyramid_are_refused(shape0, shape1):
    with pytest.raises(ValueError, match="power of two"):
        pyramid_distance(torch.zeros(1, *shape0), torch.zeros(1, *shape1))


@pytest.mark.parametrize(("res", "img_channels"), [(8, 1), (16, 3), (32, 4)])
def test_features_are_unit_vectors_from_half_the_resolution_to_4x4(res: int, img_channels: int):
    D = tiny_discriminator(res=res, img_channels=img_channels)
    maps = discriminator_maps(D, smooth_images(2, res=res, channels=img_channels))
    assert [x.shape[-1] for x in maps] == [res >> k for k in range(1, int(math.log2(res)) - 1)]
    for x in maps:
        assert torch.allclose(x.norm(dim=1), torch.ones(()), atol=1e-3)
    assert torch.allclose(maps_distance(maps, [-x for x in maps]), torch.full([2], 4.0), atol=1e-2)


def test_values_beyond_the_range_count_only_where_the_target_is_within_it(D):
    target = smooth_images(1) * 0.5
    target[:, :, :8, :8], target[:, :, 8:, 8:] = 1, -1
    beyond = target.clone()
    beyond[:, :, :8, :8], beyond[:, :, 8:, 8:] = 1.7, -3
    assert distance_of(beyond, target, D).item() < 1e-6
    beyond[:, :, :8, 8:] = 1.7
    beyond.requires_grad_()
    distance = distance_of(beyond, target, D)
    (grad,) = torch.autograd.grad(distance.sum(), beyond)
    assert distance.item() > 0.1 and (grad[:, :, :8, 8:] != 0).all()
    assert grad[:, :, :8, :8].abs().max() == 0


# Schedules and statistics.


def test_rates_rise_and_fall_and_jitter_ends():
    config = ProjectionConfig(lr=0.5, lr_ramp_up=0.1, lr_ramp_down=0.2, jitter=0.3, jitter_until=0.5)
    assert config.lr_at(0) == 0 and config.lr_at(0.05) == pytest.approx(0.25)
    assert config.lr_at(0.1) == config.lr_at(0.8) == 0.5
    assert config.lr_at(0.9) == pytest.approx(0.25) and config.lr_at(1) == pytest.approx(0)
    assert config.jitter_at(0) == 0.3 and config.jitter_at(0.25) == pytest.approx(0.3 / 4)
    assert config.jitter_at(0.5) == config.jitter_at(1) == 0


@pytest.mark.parametrize("wrong", [{"space": "z"}, {"steps": 0}, {"lr": 0.0}, {"lr": math.nan}])
def test_wrong_settings_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="expected"):
        ProjectionConfig(**wrong)


def test_statistics_are_those_of_the_class():
    G = tiny_generator(c_dim=2)
    z = torch.randn([4000, G.z_dim], generator=torch.Generator().manual_seed(9))
    for label in (0, 1):
        w = G.mapping(z, F.one_hot(torch.tensor(label), 2).expand(4000, 2))[:, 0]
        found = w_statistics(G.mapping, label, num=4000)
        assert (found.mean - w.mean(0)).abs().max() < 0.1 * w.std()
        assert found.std == pytest.approx(w.std(dim=0).square().mean().sqrt().item(), rel=0.05)
    means = [w_statistics(G.mapping, label).mean for label in (0, 1)]
    assert (means[0] - means[1]).abs().max() > 0.1


def test_correlation_tells_noise_from_pictures_at_every_scale():
    noise = torch.randn([2, 1, 32, 32], generator=torch.Generator().manual_seed(0))
    # Of white noise 2 / res^2 is to be expected from each scale.
    assert noise_correlation(noise).max() < 3 * (2 / 32**2 + 2 / 16**2 + 2 / 8**2)
    for scale in (2, 4, 8):
        blocks = noise[:, :, : 32 // scale, : 32 // scale].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        assert noise_correlation(blocks).min() > 0.2


# Projection.


def found_for(target: Tensor, config: ProjectionConfig, *, G=None, D=None, **options) -> Projection:
    """The projection of images by a tiny generator, with its own noise unless that is looked for."""
    G = G or tiny_generator(res=target.shape[-1])
    start = w_statistics(G.mapping, num=1000)

    def synthesis(ws: Tensor, noise) -> Tensor:
        return G.synthesis(ws, noise=noise, noise_mode="const")

    begin = start.mean.expand(len(target), -1)
    return project(distance_to(target, D), synthesis, begin, G.num_ws, start.std, config, **options)


def planted(G, num: int = 2, *, mixed: bool = False) -> tuple[Tensor, Tensor]:
    """ws that G knows, with one w for all layers unless `mixed`, and their images as 8-bit files have them: clamped."""
    z = torch.randn([num * G.num_ws, G.z_dim], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ws = G.mapping(z, None)[:, 0].view(num, G.num_ws, -1)
        ws = ws if mixed else ws[:, :1].repeat(1, G.num_ws, 1)
        return ws, G.synthesis(ws, noise_mode="const").clamp(-1, 1)


def test_images_of_the_generator_are_recovered(D):
    G, D = tiny_generator(), D and tiny_discriminator(res=8)
    ws, target = planted(G)
    found = found_for(target, ProjectionConfig(steps=80), G=G, D=D)
    assert found.losses.shape == (2, 81)
    assert (found.losses[:, -1] < found.losses[:, 0] / 10).all()
    img = G.synthesis(found.ws, noise_mode="const")
    assert torch.allclose(distance_to(target, D)(img), found.losses[:, -1], atol=1e-6)
    start = w_statistics(G.mapping, num=1000).mean
    assert ((found.ws - ws).norm(dim=2) < 0.5 * (start - ws).norm(dim=2)).all()


def test_one_w_for_all_layers_and_one_for_each():
    G = tiny_generator()
    _, target = planted(G, mixed=True)
    tied = found_for(target, ProjectionConfig(steps=40), G=G)
    assert tied.ws.shape == (2, G.num_ws, 5) and torch.equal(tied.ws, tied.ws[:, :1].expand_as(tied.ws))
    free = found_for(target, ProjectionConfig(steps=40, space="w+"), G=G)
    assert (free.ws - free.ws[:, :1]).abs().max() > 0.01
    assert (free.losses[:, -1] < 0.9 * tied.losses[:, -1]).all()
    assert torch.allclose(free.losses[:, :20], tied.losses[:, :20], rtol=1e-4)


def test_global_random_state_neither_matters_nor_moves():
    _, target = planted(tiny_generator())
    config = ProjectionConfig(steps=10)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = found_for(target, config, G=(G := tiny_generator()), seed=7)
    torch.manual_seed(1)
    torch.set_rng_state(state)
    again = found_for(target, config, G=G, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.ws, again.ws) and torch.equal(first.losses, again.losses)
    torch.manual_seed(2)
    assert torch.equal(found_for(target, config, G=G, seed=7).ws, first.ws)
    assert not torch.equal(found_for(target, config, G=G, seed=8).ws, first.ws)


def test_networks_get_no_gradient_and_stay_as_they_are(D):
    G = tiny_generator(res=16)
    nets = [G] if D is None else [G, D]
    before = [{name: x.clone() for name, x in net.state_dict().items()} for net in nets]
    found_for(planted(G)[1], ProjectionConfig(steps=3), G=G, D=D, noise_shapes=G.synthesis.noise_shapes())
    for net, state in zip(nets, before, strict=True):
        assert all(torch.equal(x, state[name]) for name, x in net.state_dict().items())
        assert all(x.grad is None for x in net.parameters())


@pytest.mark.parametrize("space", ["w", "w+"])
def test_images_do_not_influence_each_other(space: str):
    G = tiny_generator()
    _, target = planted(G, 3)
    config = ProjectionConfig(steps=20, space=space)
    noise_shapes = G.synthesis.noise_shapes()
    together = found_for(target, config, G=G, noise_shapes=noise_shapes)
    alone = found_for(target[1:2], config, G=G, noise_shapes=noise_shapes)
    assert torch.allclose(together.ws[1], alone.ws[0], atol=1e-3)
    assert torch.allclose(together.noise[-1][1], alone.noise[-1][0], atol=1e-2)
    assert not torch.allclose(together.ws[0], alone.ws[0], atol=1e-2)


def test_noise_maps_that_are_looked_for_bring_the_image_closer_and_stay_noise():
    G = tiny_generator(res=16)
    target = smooth_images(1)
    config = ProjectionConfig(steps=15)
    fixed = found_for(target, config, G=G)
    assert fixed.noise is None
    found = found_for(target, config, G=G, noise_shapes=G.synthesis.noise_shapes())
    assert [x.shape[1:] for x in found.noise] == [(1, *x[1:]) for x in G.synthesis.noise_shapes()]
    for x in found.noise:
        assert x.mean().abs() < 1e-4 and x.square().mean().item() == pytest.approx(1, abs=1e-3)
    assert max(noise_correlation(x).item() for x in found.noise if x.shape[-1] >= 8) < 0.1
    free = found_for(target, ProjectionConfig(steps=15, noise_weight=0), G=G, noise_shapes=G.synthesis.noise_shapes())
    assert free.losses[0, -1] < found.losses[0, -1]


def test_the_caller_is_told_of_every_step_without_jitter():
    G = tiny_generator()
    _, target = planted(G)
    told = []
    found = found_for(
        target, ProjectionConfig(steps=5), G=G, on_step=lambda step, ws, noise: told.append((step, ws.clone(), noise))
    )
    assert [step for step, _, _ in told] == list(range(6)) and all(noise is None for _, _, noise in told)
    start = w_statistics(G.mapping, num=1000).mean
    assert torch.equal(told[0][1], start.expand(2, G.num_ws, -1))
    assert torch.equal(told[-1][1], found.ws)


def test_a_distance_that_is_not_finite_is_an_error():
    G = tiny_generator()
    G.synthesis.b8.conv1.weight.fill_(math.nan)
    with pytest.raises(ProjectionError, match="NaN or infinite from step 0 of 2 on"):
        found_for(torch.zeros(1, 3, 8, 8), ProjectionConfig(steps=2), G=G)


def test_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"start must be \[N, w_dim\], got \[5\]"):
        project(lambda img: img, lambda ws, noise: ws, torch.zeros(5), 3, 1.0, ProjectionConfig())
