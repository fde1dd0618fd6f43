# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Generator and discriminator against reference vectors, and their behaviour at the edges."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig, preset
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator, SynthesisLayer, ToRGBLayer
from ggdr.stylegan2.layers import minibatch_std
from tests.golden_cases import discriminator_errors, generator_errors
from tests.reference_vectors import Golden, assert_all_agree, golden_params

TINY = dict(channel_base=64, channel_max=8)


def tiny_generator(res=16, **kwargs) -> Generator:
    return Generator(GeneratorConfig(res, z_dim=8, w_dim=8, mapping_num_layers=2, **TINY, **kwargs))


@pytest.mark.parametrize("path", golden_params("generator_"))
def test_generator_agrees_with_reference_vectors(path):
    assert_all_agree(generator_errors(Golden(path)))


@pytest.mark.parametrize("path", golden_params("discriminator_"))
def test_discriminator_and_its_r1_double_backward_agree_with_reference_vectors(path):
    errors = discriminator_errors(Golden(path))
    assert_all_agree(errors)
    assert any(name.startswith("r1_param_grad/") for name in errors)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize("img_channels", [1, 3, 4])
@pytest.mark.parametrize("res", [8, 32])
def test_every_architecture_resolution_and_channel_count_runs(architecture, img_channels, res):
    G = tiny_generator(res, architecture=architecture, img_channels=img_channels, c_dim=3)
    config = DiscriminatorConfig(res, img_channels, 3, architecture, **TINY, mbstd_group_size=2)
    D = Discriminator(config)
    c = torch.eye(3)[[0, 2, 1, 1]]
    img = G(torch.randn(4, 8), c)
    assert img.shape == (4, img_channels, res, res) and img.dtype == torch.float32
    logits = D(img, c)
    assert logits.shape == (4, 1)
    logits.sum().backward()
    missing = [n for net in (G, D) for n, p in net.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close_to_float32(dtype):
    torch.manual_seed(0)
    half = Generator(GeneratorConfig(16, z_dim=8, w_dim=8, mapping_num_layers=2, **TINY), half_dtype=dtype)
    full = tiny_generator(16)
    full.load_state_dict(half.state_dict())
    z = torch.randn(4, 8)
    img_half, img_full = (G(z, noise_mode="const") for G in (half, full))
    assert img_half.dtype == torch.float32
    scale = img_full.std()
    assert 0 < (img_half - img_full).abs().max() < 0.1 * scale
    assert half.synthesis.b16.dtype == half.synthesis.b8.dtype == dtype
    assert half.synthesis.b4.dtype == torch.float32


def synthesis_layer(in_channels, out_channels):
    """A layer without noise and bias."""
    return SynthesisLayer(in_channels, out_channels, 1, 4, up=1, conv_clamp=None)


def test_float16_does_not_overflow_with_large_styles():
    x, styles = torch.randn(1, 64, 4, 4).half() * 50, torch.rand(1, 64) * 1000 + 1
    layer = synthesis_layer(64, 8)
    torch.nn.init.normal_(layer.weight, std=10)
    with torch.no_grad():
        y = layer(x, styles, None)
        assert y.isfinite().all()
        torch.testing.assert_close(y.float(), layer(x.float(), styles, None), rtol=0.02, atol=1.0)


def test_scalings_against_overflow_change_no_gradient():
    layer, x, direction = synthesis_layer(8, 8), torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    styles = (torch.randn(2, 8) * 3 + 5).requires_grad_()

    def grads(dtype):  # all types but float32 are scaled
        y = layer(x.to(dtype), styles, None).float()
        (first,) = torch.autograd.grad((y * direction).sum(), styles, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), [layer.weight, styles])

    for scaled, plain in zip(grads(torch.float64), grads(torch.float32), strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


def test_modulated_convolution_equals_per_sample_weights():
    x, styles = torch.randn(3, 4, 4, 4), torch.randn(3, 4)
    layer = synthesis_layer(4, 5)
    y = layer(x, styles, None)
    for i in range(3):
        wi = layer.weight * styles[i, None, :, None, None]
        wi = wi / wi.square().sum([1, 2, 3], keepdim=True).sqrt()
        expected = F.leaky_relu(F.conv2d(x[i : i + 1], wi, padding=1), 0.2) * math.sqrt(2)
        torch.testing.assert_close(y[i : i + 1], expected, rtol=1e-4, atol=1e-4)


def test_torgb_equals_per_sample_weights():
    x, styles = torch.randn(3, 4, 6, 5), torch.randn(3, 4)
    layer = ToRGBLayer(4, 2, 7, conv_clamp=None)
    y = layer(x, styles)
    for i in range(3):
        wi = layer.weight * styles[i, None, :, None, None] / math.sqrt(4)
        torch.testing.assert_close(y[i : i + 1], F.conv2d(x[i : i + 1], wi), rtol=1e-4, atol=1e-5)


def test_styles_are_what_each_layer_makes_of_its_own_w():
    G = tiny_generator(16)
    ws = torch.randn(3, G.num_ws, 8)
    torch.nn.init.normal_(G.synthesis.b8.torgb.affine.bias)
    b4, b8, b16 = G.synthesis.blocks
    layers = [(b4.conv1, 0), (b4.torgb, 1), (b8.conv0, 1), (b8.conv1, 2), (b8.torgb, 3)]
    layers += [(b16.conv0, 3), (b16.conv1, 4), (b16.torgb, 5)]
    styles = G.synthesis.styles(ws)
    assert len({len(s[0]) for s in styles}) > 1  # layers of several widths
    for (layer, i), got in zip(layers, styles, strict=True):
        torch.testing.assert_close(got, layer.affine(ws[:, i]))


def test_noise_modes_and_explicit_noise():
    G = tiny_generator()
    for layer in (b.conv1 for b in G.synthesis.blocks):
        torch.nn.init.constant_(layer.noise_strength, 0.5)
    ws = G.mapping(torch.randn(2, 8), None)
    noise = [layer.noise_const[None, None] for block in G.synthesis.blocks for layer in block.convs]
    torch.testing.assert_close(G.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise=noise))
    draws = [G.synthesis(ws, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not torch.equal(G.synthesis(ws, noise_mode="none"), G.synthesis(ws, noise_mode="const"))
    with pytest.raises(ValueError, match="noise_mode must be random, const or none, got 'fixed'"):
        G.synthesis(ws, noise_mode="fixed")


def test_truncation_zero_gives_the_mean_latent_up_to_the_cutoff():
    G = tiny_generator()
    G.mapping.w_avg.copy_(torch.randn(8))
    ws = G.mapping(torch.randn(3, 8), None)
    truncated = G.mapping(torch.randn(3, 8), None, truncation_psi=0, truncation_cutoff=2)
    torch.testing.assert_close(truncated[:, :2], G.mapping.w_avg.expand(3, 2, 8))
    assert not torch.allclose(truncated[:, 2:], ws[:, 2:])


@pytest.mark.parametrize("group_size", [2, 4, 100, None])
def test_batches_in_turn_get_the_logits_of_each_alone(group_size):
    torch.manual_seed(0)
    D = Discriminator(DiscriminatorConfig(8, 3, 2, **TINY, mbstd_group_size=group_size))
    imgs, c = [torch.randn(4, 3, 8, 8) * scale for scale in (1, 5)], torch.eye(2)[[0, 1, 0, 0]]
    joint = D(torch.stack(imgs, 1).flatten(0, 1), c.repeat_interleave(2, dim=0), num_batches=2)
    for i, img in enumerate(imgs):
        torch.testing.assert_close(joint[i::2], D(img, c))


def test_minibatch_std_groups_are_interleaved_so_that_slices_hold_whole_groups():
    x = torch.randn(16, 2, 4, 4)
    whole = minibatch_std(x, group_size=4)[:, -1, 0, 0]
    for world in (2, 4):
        for rank in range(world):
            part = minibatch_std(x[rank::world], group_size=4)[:, -1, 0, 0]
            torch.testing.assert_close(part, whole[rank::world])
    with pytest.raises(ValueError, match="6 images is not a multiple"):
        minibatch_std(x[:6], group_size=4)


def test_wrong_shapes_are_named():
    G = tiny_generator(c_dim=3)
    with pytest.raises(ValueError, match=r"z must be \[N, 8\], got \(2, 7\)"):
        G(torch.randn(2, 7), torch.eye(3)[:2])
    with pytest.raises(ValueError, match=r"c must be \[N, 3\], got None"):
        G(torch.randn(2, 8))
    with pytest.raises(ValueError, match=r"img must be \[N, 3, 16, 16\], got \(2, 3, 8, 8\)"):
        Discriminator(DiscriminatorConfig(16, **TINY))(torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="power of two from 8 up, got 48"):
        GeneratorConfig(48)
    with pytest.raises(ValueError, match="channel_base 8 .* no feature maps at 16x16"):
        GeneratorConfig(16, channel_base=8)


def test_activations_are_clamped_in_any_precision():
    G = tiny_generator(conv_clamp=0.01)
    with torch.no_grad():
        assert G(torch.randn(2, 8)).abs().max() <= 0.01 * 5  # toRGB of four resolutions, upsampled and added


def test_a_copied_generator_gives_the_same_images():
    G = tiny_generator()
    z = torch.randn(2, 8)
    assert torch.equal(copy.deepcopy(G)(z, noise_mode="const"), G(z, noise_mode="const"))


@pytest.mark.parametrize(
    "name,row",
    [
        ("stylegan2", (25000, 32, 4, 32768, 0.002, 10, 10, None, 8)),
        ("paper256", (25000, 64, 8, 16384, 0.0025, 1, 20, None, 8)),
        ("paper512", (25000, 64, 8, 32768, 0.0025, 0.5, 20, None, 8)),
        ("paper1024", (25000, 32, 4, 32768, 0.002, 2, 10, None, 8)),
        ("cifar", (100000, 64, 32, 32768, 0.0025, 0.01, 500, 0.05, 2)),
    ],
)
def test_presets_are_the_published_settings(name, row):
    p = preset(name, img_resolution=256)
    columns = (p.kimg, p.batch, p.mbstd, p.channel_base, p.lr, p.gamma, p.ema_kimg, p.ema_rampup, p.mapping_layers)
    assert columns == row
    is_cifar = name == "cifar"
    assert (p.pl_weight, p.style_mixing_prob) == ((0, 0) if is_cifar else (2, 0.9))
    assert p.d_architecture == ("orig" if is_cifar else "resnet") and p.channel_max == p.latent_dim == 512


def test_auto_preset_follows_its_formulas():
    p = preset("auto", img_resolution=256, num_gpus=8)
    assert (p.batch, p.mbstd, p.channel_base, p.lr) == (64, 4, 16384, 0.0025)
    assert p.gamma == pytest.approx(0.0002 * 256**2 / 64) and p.ema_kimg == pytest.approx(20)
    assert preset("auto", img_resolution=1024).batch == 4
    with pytest.raises(ValueError, match="unknown preset 'ffhq'"):
        preset("ffhq", img_resolution=256)
