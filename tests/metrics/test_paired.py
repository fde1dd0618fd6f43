# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Measures of single images: closed forms, a plain NumPy version, the order of damages, and their metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ggdr.metrics.detector import PairDistance
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.directions import merge_directions
from ggdr.metrics.evaluate import Job, MetricResult, evaluate
from ggdr.metrics.extract import MetricError
from ggdr.metrics.names import parse_metrics
from ggdr.metrics.paired import colourfulness, highest_psnr, mean_absolute_error, psnr, ssim
from ggdr.metrics.resize import MODES
from tests.distortions import as_u8, blurred, dead_leaves, noisy

IMAGES = dead_leaves(6, seed=1)


def shifted(images, pixels):
    return images.roll(pixels, dims=3)


def grey(level, num=1, size=16):
    return torch.full([num, 3, size, size], level, dtype=torch.uint8)


def test_of_constant_images_all_have_a_closed_form():
    a, b = grey(100), grey(120)
    assert mean_absolute_error(a, b).tolist() == pytest.approx([20 / 127.5])
    assert psnr(a, b).tolist() == pytest.approx([20 * math.log10(255 / 20)])
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b).tolist() == pytest.approx([(2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)])
    assert mean_absolute_error(grey(0), grey(255)).tolist() == [2]


def test_equal_images_have_no_error_and_no_image_but_them_has_a_psnr_beyond_the_highest():
    assert mean_absolute_error(IMAGES, IMAGES).tolist() == [0] * 6 and psnr(IMAGES, IMAGES).tolist() == [math.inf] * 6
    assert ssim(IMAGES, IMAGES).tolist() == pytest.approx([1] * 6, abs=1e-12)
    other = IMAGES[:1].clone()
    other[0, 1, 3, 4] ^= 1
    assert psnr(IMAGES[:1], other).tolist() == pytest.approx([highest_psnr(3 * 32 * 32)])
    assert highest_psnr(3 * 32 * 32) == pytest.approx(83.006, abs=1e-3)


def ssim_by_the_book(a, b):
    """Of one channel [H, W]: each window by itself."""
    at = np.arange(11) - 5
    weight = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = (img[y : y + 11, x : x + 11].astype(float) for img in (a, b))
            mean_p, mean_q = (weight * p).sum(), (weight * q).sum()
            var_p, var_q = (weight * (p - mean_p) ** 2).sum(), (weight * (q - mean_q) ** 2).sum()
            cov = (weight * (p - mean_p) * (q - mean_q)).sum()
            top = (2 * mean_p * mean_q + c1) * (2 * cov + c2)
            values.append(top / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
    return np.mean(values)


def test_ssim_is_that_of_each_window_by_itself():
    a, b = IMAGES[:2, :, :17, :14], as_u8(noisy(IMAGES[:2], 20))[:, :, :17, :14]
    expected = [np.mean([ssim_by_the_book(a[i, c].numpy(), b[i, c].numpy()) for c in range(3)]) for i in range(2)]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-10)


def test_ssim_of_a_known_picture():
    # scikit-image 0.26: structural_similarity(a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False), which crops its mean to whole windows.
    y, x = np.mgrid[:24, :20]
    a = np.stack([(x * 11 + y * 3) % 256, (x * y) % 256, (255 - y * 10) % 256]).astype(np.uint8)
    b = (a // 2 + 40).astype(np.uint8)
    assert ssim(*(torch.from_numpy(img)[None] for img in (a, b))).item() == pytest.approx(0.802977168814, abs=1e-11)


def test_colourfulness_is_that_of_the_paper():
    assert colourfulness(IMAGES.float().mean(1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1)).tolist() == [0] * 6
    # One colour: no spread, and the mean opponent colours are (R - G, (R + G) / 2 - B).
    red = torch.tensor([200, 80, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert colourfulness(red).tolist() == pytest.approx([0.3 * math.hypot(120, 120)])
    # Half red, half its opposite: the spread counts fully, the mean is 0.
    both = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    both[0, :, 0] = torch.tensor([100, 0, 50], dtype=torch.uint8)[:, None]
    both[0, :, 1] = torch.tensor([0, 100, 50], dtype=torch.uint8)[:, None]
    assert colourfulness(both).tolist() == pytest.approx([100])


@pytest.mark.parametrize(("damage", "strengths"), [(noisy, (4, 12, 36)), (blurred, (3, 5, 9)), (shifted, (1, 2, 4))])
def test_all_order_images_by_their_damage(damage, strengths):
    measured = [(IMAGES, as_u8(damage(IMAGES, strength))) for strength in strengths]
    for measure, sign in ((mean_absolute_error, 1), (psnr, -1), (ssim, -1)):
        values = [sign * measure(*pair).mean().item() for pair in measured]
        assert values == sorted(values) and len(set(values)) == 3


def test_other_images_are_refused():
    for measure in (mean_absolute_error, psnr, ssim):
        with pytest.raises(ValueError, match=r"of one shape, got torch.uint8 \[1, 3, 16, 16\] and torch.uint8 \[2"):
            measure(grey(0), grey(0, num=2))
        with pytest.raises(ValueError, match="got torch.float32"):
            measure(grey(0).float(), grey(0).float())
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(grey(0, size=10), grey(0, size=10))
    with pytest.raises(ValueError, match=r"uint8 \[N, 3, H, W\], got torch.uint8 \[1, 1"):
        colourfulness(grey(0)[:, :1])


class Stacked:
    """Images that lie beside each other in channels."""

    labels = most_batch = None

    def __init__(self, images):
        self.images, self.num = images, len(images)

    def batches(self, numbers):
        for array in numbers:
            yield self.images[torch.from_numpy(array)]

    def describe(self):
        return {}

    def fingerprint(self):
        return None


def measured(names, images, reals=None, beside=("target",), batch=4):
    files = DetectorFiles(MODES["stylegan"], torch.device("cpu"))
    reals = None if reals is None else Stacked(reals)
    job = Job(files, reals=reals, fakes=Stacked(images), beside=beside, batch=batch)
    return {result.name: result for result in evaluate(parse_metrics(names), job)}


def test_a_metric_is_the_mean_over_images_of_what_lies_beside_each():
    noise = as_u8(noisy(IMAGES, 20))
    found = measured("psnr,ssim,mae,colourfulness", torch.cat([noise, IMAGES], dim=1))
    for name, expected in (
        ("psnr", psnr(noise, IMAGES)),
        ("ssim", ssim(noise, IMAGES)),
        ("mae", mean_absolute_error(noise, IMAGES)),
        ("colourfulness", colourfulness(noise)),
    ):
        assert found[name].value == pytest.approx(expected.mean().item(), rel=1e-6)
        assert found[name].choices["std_of_images"] == pytest.approx(expected.std().item(), rel=1e-5)
        assert found[name].choices["num_fakes"] == 6 and found[name].values.keys() == {name}
    other = measured("psnr,ssim", torch.cat([noise, IMAGES], dim=1), batch=1)
    assert {name: x.value for name, x in other.items()} == {name: found[name].value for name in other}


def test_lpips_is_measured_between_the_image_and_its_target():
    files = DetectorFiles(MODES["stylegan"], torch.device("cpu"))
    # In place of a network whose weights are not here: the mean difference, of images in [-1, 1].
    files._loaded["lpips"] = PairDistance("lpips-vgg", "0" * 16, lambda a, b: (a - b).abs().flatten(1).mean(1))
    noise = as_u8(noisy(IMAGES, 20))
    (result,) = evaluate(
        parse_metrics("lpips"), Job(files, fakes=Stacked(torch.cat([noise, IMAGES], dim=1)), beside=("target",))
    )
    assert result.value == pytest.approx(mean_absolute_error(noise, IMAGES).mean().item(), rel=1e-5)
    assert result.choices["detector"] == "lpips-vgg" and result.choices["detector_hash"] == "0" * 16


def test_a_number_takes_some_of_the_images_always_the_same():
    pairs = torch.cat([as_u8(noisy(IMAGES, 20)), IMAGES], dim=1)
    found = measured("psnr0.003k,mae", pairs)
    each = psnr(pairs[:, :3], pairs[:, 3:])
    means = [each[[i, j, k]].mean().item() for i in range(6) for j in range(i) for k in range(j)]
    assert min(abs(found["psnr0.003k"].value - mean) for mean in means) < 1e-5
    assert measured("psnr0.003k", pairs)["psnr0.003k"].value == found["psnr0.003k"].value


def test_the_cycle_is_of_the_last_two_and_the_target_of_the_first_two():
    images = [as_u8(noisy(IMAGES, sigma)) for sigma in (5, 10, 20, 40)]
    found = measured("mae,cycle_mae,cycle_psnr", torch.cat(images, dim=1), beside=("target", "cycle"))
    assert found["mae"].value == pytest.approx(mean_absolute_error(*images[:2]).mean().item(), rel=1e-6)
    assert found["cycle_mae"].value == pytest.approx(mean_absolute_error(*images[2:]).mean().item(), rel=1e-6)
    assert found["cycle_psnr"].value == pytest.approx(psnr(*images[2:]).mean().item(), rel=1e-6)


def test_equal_images_count_with_the_highest_psnr_and_are_told():
    images = torch.cat([IMAGES[:2], torch.cat([IMAGES[:1], as_u8(noisy(IMAGES[1:2], 20))])], dim=1)
    result = measured("psnr", images)["psnr"]
    expected = (highest_psnr(3 * 32 * 32) + psnr(images[1:, :3], images[1:, 3:]).item()) / 2
    assert result.value == pytest.approx(expected, rel=1e-6)
    assert any(text.startswith("1 images are equal") for text in result.warnings)


def test_the_gap_is_between_means_and_other_detectors_see_the_first_image_alone():
    pairs = torch.cat([as_u8(noisy(IMAGES, 20)), IMAGES], dim=1)
    found = measured("colourfulness_gap0.006k_full,kd_offline0.006k_full", pairs, reals=IMAGES)
    expected = abs(colourfulness(pairs[:, :3]).mean() - colourfulness(IMAGES).mean()).item()
    assert found["colourfulness_gap0.006k_full"].value == pytest.approx(expected, rel=1e-5)
    alone = measured("kd_offline0.006k_full", pairs[:, :3], reals=IMAGES, beside=())
    assert found["kd_offline0.006k_full"].values == alone["kd_offline0.006k_full"].values


def test_what_is_missing_is_named():
    with pytest.raises(MetricError, match="psnr: compares translations with what they should be: expected pairs"):
        measured("psnr", IMAGES, beside=())
    with pytest.raises(MetricError, match="cycle_mae: compares images with what comes back of them"):
        measured("cycle_mae", torch.cat([IMAGES] * 2, dim=1))
    with pytest.raises(MetricError, match="psnr0.01k: needs 10 fakes, got 6; ask for as many as there are: psnr0.006k"):
        measured("psnr0.01k", torch.cat([IMAGES] * 2, dim=1))
    small = torch.cat([IMAGES[:, :, :10, :10]] * 2, dim=1)
    with pytest.raises(MetricError, match="detector ssim: images must be at least 11x11"):
        measured("ssim", small)


def test_directions_are_averaged_and_told():
    def result(values, fakes, warnings):
        return MetricResult("kd_lite1k_full", values, {"mode": "stylegan", "fakes": fakes}, warnings, 1.0)

    a = result({"kd_lite1k_full_mean": 1.0, "kd_lite1k_full_std": 0.5}, "a", ["few", "odd"])
    b = result({"kd_lite1k_full_mean": 4.0, "kd_lite1k_full_std": 1.5}, "b", ["few"])
    assert merge_directions({"AtoB": [a]}) == [a] and merge_directions({"AtoB": [], "BtoA": []}) == []
    (merged,) = merge_directions({"AtoB": [a], "BtoA": [b]})
    assert merged.values == {
        "kd_lite1k_full_mean": 2.5, "kd_lite1k_full_std": 1.0,
        "kd_lite1k_full_mean_AtoB": 1.0, "kd_lite1k_full_std_AtoB": 0.5,
        "kd_lite1k_full_mean_BtoA": 4.0, "kd_lite1k_full_std_BtoA": 1.5,
    }  # fmt: skip
    assert merged.value == 2.5 and merged.warnings == ["few", "AtoB: odd"]
    assert merged.choices == {"mode": "stylegan", "directions": {"AtoB": {"fakes": "a"}, "BtoA": {"fakes": "b"}}}
