# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Augmentations against reference vectors, closed forms, and each other: image against features."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ggdr.stylegan2.augment.pipe import PIPES
from tests.augment_cases import GEOMETRY, make_pipe, make_rng
from tests.golden_cases import at_percentile, augment_errors
from tests.reference_vectors import Golden, assert_all_agree, golden_params


def coordinates(n: int, height: int, width: int) -> Tensor:
    """[n, 3, h, w]: x and y in [-1, 1] at the pixels' centres, and ones."""
    x = ((torch.arange(width) * 2 + 1) / width - 1).expand(height, width)
    y = ((torch.arange(height) * 2 + 1) / height - 1)[:, None].expand(height, width)
    return torch.stack([x, y, torch.ones_like(x)]).expand(n, -1, -1, -1).contiguous()


def spot(row: int, col: int, size: int = 32) -> Tensor:
    """[1, 1, size, size]: a soft spot."""
    y, x = torch.meshgrid(torch.arange(size) - row, torch.arange(size) - col, indexing="ij")
    return torch.exp(-(x**2 + y**2) / 8.0)[None, None]


def spot_place(img: Tensor) -> tuple[int, int]:
    """Row and column of the brightest pixel."""
    return divmod(int(img[0, 0].argmax()), img.shape[3])


@pytest.mark.parametrize("path", golden_params("augment_"))
def test_transforms_agree_with_reference_vectors(path):
    assert_all_agree(augment_errors(Golden(path)))


# The image path.


@pytest.mark.parametrize("name", PIPES)
def test_p_zero_is_the_identity(name):
    img, feat = torch.randn(4, 3, 16, 16), torch.randn(4, 5, 8, 8)
    aug = make_pipe(name, p=0.0).sample(img, make_rng())
    assert aug(img) is img
    assert aug.warp(feat) is feat


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("name", PIPES)
def test_pipes_run_on_small_images_of_any_channels(name, size, channels):
    img = torch.rand(8, channels, size, size, generator=make_rng()) * 2 - 1
    aug = make_pipe(name).sample(img, make_rng(1))
    out, feat = aug(img), aug.warp(img[:, :1, ::2, ::2])
    assert out.shape == img.shape and out.dtype == img.dtype
    assert out.isfinite().all() and feat.isfinite().all()
    assert not torch.equal(out, img)


def test_translation_moves_content_right_and_down():
    # Uniform draws of 0.75 are +0.0625 of the size: 2 pixels.
    img = spot(10, 12)
    assert spot_place(at_percentile("xint", 0.75, (1, 1, 32, 32))(img)) == (12, 14)
    x_only = at_percentile("xint", 0.75, (1, 1, 32, 32), xint_y=0.5)
    torch.testing.assert_close(x_only(img)[..., 4:-4, 6:-4], img[..., 4:-4, 4:-6], atol=1e-5, rtol=0)
    torch.testing.assert_close(x_only.warp(img)[..., 2:], img[..., :-2])
    fractional = at_percentile("xfrac", 0.5, (1, 1, 32, 32), xfrac_x=1.0)  # one deviation: 4 pixels
    assert spot_place(fractional(img)) == spot_place(fractional.warp(img)) == (10, 16)


def test_rotations_turn_counterclockwise():
    right, top, left = spot(16, 26), spot(5, 16), spot(15, 5)
    free = at_percentile("rotate", 0.75, (1, 1, 32, 32))  # +90 degrees
    quarter = at_percentile("rotate90", 0.26, (1, 1, 32, 32))  # one quarter turn
    for aug in (free, quarter):
        assert F.cosine_similarity(aug(right).flatten(), top.flatten(), dim=0) > 0.9
        assert F.cosine_similarity(aug.warp(top).flatten(), left.flatten(), dim=0) > 0.9


def test_scales_above_one_enlarge():
    right, below = spot(16, 24), spot(24, 16)  # 8.5 pixels from the centre
    scale = at_percentile("scale", 0.5, (1, 1, 32, 32), scale=math.log2(1.25) / 0.2)
    aniso = at_percentile("aniso", 0.5, (1, 1, 32, 32), aniso=math.log2(1.25) / 0.2)
    for apply in (lambda aug, img: aug(img), lambda aug, img: aug.warp(img)):
        assert spot_place(apply(scale, right)) == (16, 26)  # 15.5 + 8.5 * 1.25
        assert spot_place(apply(scale, below)) == (26, 16)
        assert spot_place(apply(aniso, right)) == (16, 26)
        assert spot_place(apply(aniso, below)) == (22, 16)  # 15.5 + 8.5 / 1.25


def test_image_is_mirrored_up_to_its_size_and_zero_beyond():
    ones = torch.ones(1, 1, 16, 16)
    inside = at_percentile("xfrac", 0.5, (1, 1, 16, 16), xfrac_x=14 / 16 / 0.125)
    beyond = at_percentile("xfrac", 0.5, (1, 1, 16, 16), xfrac_x=24 / 16 / 0.125)
    far = at_percentile("xfrac", 0.5, (1, 1, 16, 16), xfrac_x=1e3)
    for apply in (lambda aug: aug(ones), lambda aug: aug.warp(ones)):
        torch.testing.assert_close(apply(inside)[..., 2:], ones[..., 2:], atol=1e-4, rtol=0)
        out = apply(beyond)[0, 0, 8]  # shifted by 24, the image and its mirror image end at column 9
        assert out[:7].abs().max() < 0.05 and (out[12:] - 1).abs().max() < 0.05
        assert apply(far).abs().max() == 0
    # Mirrored at the centre of the edge pixel: column 14 - k repeats column 14 + k.
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    torch.testing.assert_close(inside.warp(ramp)[0, 0, 0], (torch.arange(16.0) - 14).abs())
    torch.testing.assert_close(inside(ramp)[0, 0, 8, 3:11], 14 - torch.arange(3.0, 11), atol=1e-3, rtol=0)


def test_images_do_not_depend_on_the_rest_of_the_batch():
    pipe, img = make_pipe("bgcfnc"), torch.randn(8, 3, 16, 16, dtype=torch.float64, generator=make_rng())
    draws = pipe.draw(8, generator=make_rng(1))
    whole, feat = pipe.augmentation(draws, img.shape[1:]), img[:, :2, ::2, ::2]
    for i in range(8):
        part, one = pipe.augmentation(draws[i : i + 1], img.shape[1:]), slice(i, i + 1)
        torch.testing.assert_close(part(img[one]), whole(img)[one], atol=1e-10, rtol=0)
        torch.testing.assert_close(part.warp(feat[one]), whole.warp(feat)[one], atol=1e-10, rtol=0)


def test_half_precision_comes_back_as_half():
    img = torch.rand(4, 3, 16, 16, generator=make_rng()) * 2 - 1
    aug = make_pipe("bgcfnc").sample(img, make_rng(1))
    for dtype in (torch.float16, torch.bfloat16):
        out, feat = aug(img.to(dtype)), aug.warp(img.to(dtype))
        assert out.dtype == feat.dtype == dtype
        torch.testing.assert_close(out, aug(img.to(dtype).float()).to(dtype))


def test_memory_format_does_not_change_the_result():
    img = torch.randn(4, 3, 16, 16, generator=make_rng())
    aug = make_pipe("bgcfnc").sample(img, make_rng(1))
    channels_last = img.to(memory_format=torch.channels_last)
    torch.testing.assert_close(aug(channels_last), aug(img))
    torch.testing.assert_close(aug.warp(channels_last), aug.warp(img))


# Features and image.


@pytest.mark.parametrize("name", [*GEOMETRY, "bg"])
def test_warped_features_lie_where_the_image_does(name):
    n, res = 64, 32
    img = coordinates(n, res, res)
    pipe = make_pipe(name, p=0.5 if name == "bg" else 1.0)
    aug = pipe.sample(img, make_rng(3))
    from_img = aug(img)
    for size in (16, 8):
        expected = F.avg_pool2d(from_img, res // size)
        got = aug.warp(coordinates(n, size, size))
        # Not where a mirror or the end of the image lies within the averaged pixels.
        inside = (got[:, :2].abs() < 1 - 8 / res).all(dim=1) & (expected[:, 2] > 0.999) & (got[:, 2] > 0.999)
        assert inside.sum() > n * size**2 // 4
        # The image's sym6 filter is not quite symmetric: a flip moves the content by 0.1 pixels.
        error = (got - expected)[:, :2].abs().amax(dim=1)[inside] * res / 2
        assert error.max() < 0.25, f"{name}: {error.max():.3f} image pixels"


def test_feature_maps_of_all_sizes_share_one_geometry():
    aug = make_pipe("bg").sample(torch.zeros(8, 3, 64, 64), make_rng())
    fine = F.avg_pool2d(aug.warp(coordinates(8, 64, 64)), (4, 2))
    coarse = aug.warp(coordinates(8, 16, 32))  # not square
    inside = (fine[:, :2].abs() < 0.8).all(dim=1) & (fine[:, 2] == 1) & (coarse[:, 2] == 1)
    assert inside.any()
    assert (fine - coarse).abs().amax(dim=1)[inside].max() < 0.02


def test_flips_and_quarter_turns_of_features_are_exact():
    flip = at_percentile("xflip", 0.7, (2, 3, 32, 32))
    for size in [(8, 8), (16, 4), (64, 64)]:
        feat = torch.randn(2, 5, *size)
        assert torch.equal(flip.warp(feat), feat.flip(3))
    odd = torch.randn(2, 5, 7, 9)
    torch.testing.assert_close(flip.warp(odd), odd.flip(3), atol=1e-5, rtol=0)
    feat = torch.randn(2, 5, 16, 16)
    for turns in range(4):
        aug = at_percentile("rotate90", (turns + 0.5) / 4, (2, 3, 32, 32))
        assert torch.equal(aug.warp(feat), feat.rot90(turns, dims=(2, 3)))


def test_integer_translations_are_rounded_once_in_image_pixels():
    # 0.0625 * 0.9 of 32 pixels is 1.8, hence 2: half a pixel of an 8x8 map.
    aug = at_percentile("xint", 0.725, (1, 3, 32, 32), xint_y=0.5)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(aug.warp(ramp)[0, 0, 0, 2:], torch.arange(2.0, 8) - 0.5)


@pytest.mark.parametrize("name", ["color", "filter", "noise", "cutout"])
def test_transforms_without_geometry_leave_features_alone(name):
    img, feat = torch.randn(4, 3, 16, 16), torch.randn(4, 5, 8, 8)
    aug = make_pipe(name).sample(img, make_rng())
    assert aug.warp(feat) is feat


# Colour, filter, noise and cutout.


def color_at(name: str, img: Tensor, **changed: float) -> Tensor:
    return at_percentile(name, 0.5, tuple(img.shape), **changed)(img)


def test_color_transforms_follow_their_definitions():
    img = torch.rand(2, 3, 8, 8, generator=make_rng()) * 2 - 1
    luma = img.mean(dim=1, keepdim=True)
    close = {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(color_at("brightness", img, brightness=1.5), img + 0.3, **close)
    torch.testing.assert_close(color_at("contrast", img, contrast=2.0), img * 2, **close)
    torch.testing.assert_close(color_at("lumaflip", img, lumaflip=0.9), img - 2 * luma, **close)
    saturated = luma + 8 * (img - luma)
    torch.testing.assert_close(color_at("saturation", img, saturation=3.0), saturated, **close)
    # A third of a turn about the axis of greys takes red to green, green to blue, blue to red.
    torch.testing.assert_close(color_at("hue", img, hue=(2 / 3 + 1) / 2), img.roll(1, dims=1), **close)


def test_grey_images_get_the_mean_of_what_rgb_images_get():
    grey = torch.rand(4, 1, 8, 8, generator=make_rng())
    pipe = make_pipe("color")
    draws = pipe.draw(4, generator=make_rng(1))
    as_rgb = pipe.augmentation(draws, (3, 8, 8))(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(pipe.augmentation(draws, (1, 8, 8))(grey), as_rgb.mean(dim=1, keepdim=True))


def test_color_leaves_alpha_alone_and_geometry_moves_it():
    rgba = torch.rand(4, 4, 16, 16, generator=make_rng())
    pipe = make_pipe("color")
    draws = pipe.draw(4, generator=make_rng(1))
    out = pipe.augmentation(draws, (4, 16, 16))(rgba)
    assert torch.equal(out[:, 3], rgba[:, 3])
    torch.testing.assert_close(out[:, :3], pipe.augmentation(draws, (3, 16, 16))(rgba[:, :3]))
    flip = at_percentile("xint", 0.75, (4, 4, 16, 16))
    torch.testing.assert_close(flip(rgba)[:, 3:], flip(rgba[:, [3, 3, 3, 3]])[:, :1])


def test_color_of_two_channels_is_refused():
    with pytest.raises(ValueError, match="1, 3 or 4 channels, got 2"):
        make_pipe("color").sample(torch.zeros(1, 2, 8, 8), make_rng())(torch.zeros(1, 2, 8, 8))


def test_filter_scales_the_highest_and_the_lowest_band():
    # A gain of 2^2 for one band, then the normalisation for the expected powers 10, 1, 1, 1 of 13.
    checkers = (-1.0) ** torch.arange(32)
    checkers = (checkers * checkers[:, None]).expand(1, 1, 32, 32)
    flat = torch.ones(1, 1, 32, 32)
    high = color_at("imgfilter", checkers, imgfilter_3=2.0) / checkers
    torch.testing.assert_close(high, torch.full_like(high, 16 / ((12 + 16) / 13)))  # both axes: squared
    low = color_at("imgfilter", flat, imgfilter_3=2.0)
    torch.testing.assert_close(low, torch.full_like(low, 1 / ((12 + 16) / 13)))
    low = color_at("imgfilter", flat, imgfilter_0=2.0)
    torch.testing.assert_close(low, torch.full_like(low, 16 / ((160 + 3) / 13)))


def test_noise_has_the_drawn_deviation_and_comes_from_the_generator():
    img = torch.zeros(3, 3, 64, 64)
    pipe = make_pipe("noise")
    draws = pipe.draw(3, generator=make_rng())
    aug = pipe.augmentation(draws, (3, 64, 64))
    noise = aug(img)
    sigma = torch.from_numpy(draws.value("noise")).abs().float() * 0.1
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), sigma, rtol=0.05, atol=0)
    assert torch.equal(aug(img), noise)  # one draw, however often it is applied
    assert F.cosine_similarity(noise[0].flatten(), noise[1].flatten(), dim=0).abs() < 0.1
    assert not torch.equal(pipe.sample(img, make_rng(1))(img), noise)


def test_cutout_zeroes_a_square_of_half_the_size_at_its_centre():
    img = torch.ones(2, 3, 32, 32)
    out = at_percentile("cutout", 0.5, (2, 3, 32, 32), cutout_x=0.25)(img)
    expected = img.clone()
    expected[:, :, 8:24, 0:16] = 0
    assert torch.equal(out, expected)


# Derivatives.


def test_whole_pipe_agrees_with_finite_differences_twice():
    img = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=make_rng()).requires_grad_()
    aug = make_pipe("bgcfnc").sample(img, make_rng(2))

    def energy(img):  # the pipe is affine: squared, so that there is a second derivative
        return aug(img).square().sum(dim=(1, 2, 3))

    assert gradcheck(energy, (img,))
    assert gradgradcheck(energy, (img,))


def test_gradient_penalty_through_the_pipe_agrees_with_finite_differences():
    img = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=make_rng()).requires_grad_()
    aug = make_pipe("bgcfnc").sample(img, make_rng(2))
    direction = torch.randn(3, 16, 16, dtype=torch.float64, generator=make_rng(1))

    def penalty(weight: Tensor) -> Tensor:
        logits = ((aug(img) * direction).sum(dim=(1, 2, 3)) * weight).tanh()
        (grad,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
        return grad.square().sum(dim=(1, 2, 3)).mean()

    assert gradcheck(penalty, (torch.tensor(0.01, dtype=torch.float64, requires_grad=True),))


def test_warp_is_differentiable():
    aug = make_pipe("bg").sample(torch.zeros(2, 3, 16, 16), make_rng())
    feat = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(aug.warp, (feat,))
    assert gradgradcheck(lambda feat: aug.warp(feat).square(), (feat,))


def test_training_follows_use_in_inference_mode():
    img = torch.randn(1, 3, 24, 24)  # a size of no other test: its matrices are built here
    aug = make_pipe("bgcfnc").sample(img, make_rng())
    with torch.inference_mode():
        aug(img)
        aug.warp(img)
    img.requires_grad_()
    (grad,) = torch.autograd.grad(aug(img).square().sum(), img)
    assert grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_agrees_with_cpu_and_is_not_waited_for():
    img = torch.rand(4, 3, 32, 32, generator=make_rng()) * 2 - 1
    on_gpu = img.cuda()
    pipe = make_pipe("bgcf")
    pipe.sample(on_gpu, make_rng())(on_gpu)  # copies the filters' matrices, once
    aug = pipe.sample(img, make_rng(1))
    mode = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        aug_on_gpu = pipe.sample(on_gpu, make_rng(1))
        out, feat = aug_on_gpu(on_gpu), aug_on_gpu.warp(on_gpu[:, :2, ::2, ::2])
        make_pipe("noise").sample(on_gpu, make_rng())(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    torch.testing.assert_close(out.cpu(), aug(img), atol=1e-3, rtol=0)
    torch.testing.assert_close(feat.cpu(), aug.warp(img[:, :2, ::2, ::2]), atol=1e-3, rtol=0)
