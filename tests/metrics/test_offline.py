# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The detector that needs no download: the same everywhere, and its distance orders images as one would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.offline import FLOOR, PARTS, OfflineFeatures
from ggdr.metrics.stats import FeatureStats
from tests.distortions import DISTORTIONS, as_u8, dead_leaves

NET = OfflineFeatures()
SCALES = [scale for _, scale in PARTS.values()]
# Another hash means other features: it needs another VERSION, and figures measured so far compare no more.
HASH = "cecc23960025e423fb1c64c4a0cef89a3da64fcee51fb1b57cb74c5f0e19078b"


def parts(images_u8: Tensor) -> list[Tensor]:
    """Features in their six parts."""
    return list(NET(images_u8).split([num for num, _ in PARTS.values()], dim=1))


def moments(images_u8: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the features."""
    stats = FeatureStats(NET.dim)
    stats.update(NET(images_u8))
    return stats.gaussian()[:2]


REALS, OTHERS = dead_leaves(700, seed=0), dead_leaves(700, seed=1)
OF_REALS = moments(REALS)


def distance(images_u8: Tensor) -> float:
    """To the reals."""
    return frechet_distance(*OF_REALS, *moments(images_u8))


def test_features_are_pinned_by_their_hash():
    assert NET.hash == HASH
    assert OfflineFeatures().hash == HASH
    other = OfflineFeatures()
    other.scale[0] += 1e-3
    assert other.hash != HASH


def test_features_depend_on_nothing_but_the_image():
    images = dead_leaves(150, seed=2)
    feats = NET(images)
    assert feats.shape == (150, NET.dim)
    assert feats.dtype == torch.float32
    order = torch.from_numpy(np.random.RandomState(0).permutation(150))
    assert torch.allclose(NET(images[order]), feats[order], atol=1e-5)
    assert torch.allclose(torch.cat([NET(images[i : i + 7]) for i in range(0, 150, 7)]), feats, atol=1e-5)
    assert torch.allclose(NET(images.contiguous(memory_format=torch.channels_last)), feats, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(NET(images), feats, atol=1e-5)
    assert NET(images[:0]).shape == (0, NET.dim)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("size", [32, 48, 256])
def test_features_of_a_gpu_are_those_of_the_cpu(size):
    images = as_u8(F.interpolate(REALS[:50].float(), (size, size), mode="bilinear"))
    assert torch.allclose(OfflineFeatures().cuda()(images.cuda()).cpu(), NET(images), atol=1e-4)


def test_a_flat_image_has_its_colour_and_no_texture():
    grey = parts(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    assert grey[0][0, 0].item() == pytest.approx(0.7**0.5 * SCALES[0], rel=1e-5)
    assert grey[0][0, 1:].abs().max() < 1e-4
    assert grey[1].abs().max() < 1e-4
    for part, scale in zip(grey[2:4], SCALES[2:4], strict=True):
        assert torch.allclose(part, torch.full_like(part, FLOOR**0.5 * scale), rtol=1e-3)
    assert torch.cat(grey[4:], dim=1).abs().max() < 1e-3

    red = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 255
    chroma = parts(red)[1].view(2, 16)
    assert chroma[0, 0].item() == pytest.approx(2 * 0.7**0.5 * SCALES[1], rel=1e-5)  # red less green
    assert chroma[1, 0].item() == pytest.approx(1 * 0.7**0.5 * SCALES[1], rel=1e-5)  # yellow less blue


def test_strength_tells_where_at_which_scale_and_in_which_direction():
    images = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    images[0, :, 16:, :16] += (40 * (torch.arange(16) % 2)).to(torch.uint8)  # narrow upright stripes, lower left
    images[1, :, 16:, :16] += (40 * (torch.arange(16) // 4 % 2)).to(torch.uint8)[:, None]  # broad level ones
    strength = parts(images)[2].view(2, 3, 8, 2, 2) / SCALES[2] - FLOOR**0.5
    largest = strength.flatten(1).argmax(1)
    # Of the eight patterns number 1 has two zero crossings along x, number 2 one along y.
    assert np.unravel_index(largest[0].item(), strength.shape[1:]) == (0, 1, 1, 0)
    level, pattern, row, column = np.unravel_index(largest[1].item(), strength.shape[1:])
    assert level > 0
    assert pattern in (2, 5)
    assert (row, column) == (1, 0)


def test_unevenness_is_that_of_edges_and_not_of_noise():
    noise = torch.from_numpy(np.random.RandomState(0).randint(100, 156, (20, 3, 32, 32)).astype(np.uint8))
    uneven, strength = (part[:, :8].mean() for part in (parts(noise)[4], parts(noise)[2]))
    edges = torch.full((20, 3, 32, 32), 100, dtype=torch.uint8)
    edges[:, :, 8:24, 8:24] = 156
    assert parts(edges)[2][:, :8].mean() < strength
    assert parts(edges)[4][:, :8].mean() > 1.2 * uneven


@pytest.mark.parametrize("height, width", [(8, 8), (28, 28), (32, 32), (40, 63), (64, 64), (100, 70), (256, 256)])
def test_images_of_any_size_give_as_many_features(height, width):
    images = as_u8(F.interpolate(REALS[:3].float(), (height, width), mode="bilinear"))
    feats = NET(images)
    assert feats.shape == (3, NET.dim)
    assert feats.isfinite().all()


def test_a_finer_picture_of_the_same_has_nearly_the_same_features():
    ramp = torch.linspace(0, 200, 64)
    image = (ramp[:, None] / 2 + ramp / 2).expand(1, 3, 64, 64)
    finer = F.interpolate(image, (256, 256), mode="bilinear", align_corners=False)
    assert torch.allclose(NET(as_u8(image)), NET(as_u8(finer)), atol=0.2)


def test_shrinking_averages_and_skips_no_pixels():
    noise = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (2, 3, 256, 256)).astype(np.uint8))
    means = as_u8(F.avg_pool2d(noise.float(), 4))
    assert parts(noise)[2].mean() < parts(means)[2].mean()


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 32, 32),
        torch.zeros(1, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
    ],
)
def test_images_of_other_kinds_are_refused(images):
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 3, H, W\], got"):
        NET(images)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 8x8, got 7x32"):
        NET(torch.zeros(1, 3, 7, 32, dtype=torch.uint8))


@pytest.mark.parametrize("distort, strengths", DISTORTIONS)
def test_distance_grows_with_what_is_done_to_images(distort, strengths):
    floor = distance(OTHERS)
    distances = [distance(as_u8(distort(OTHERS, strength))) for strength in strengths]
    assert [floor, *distances] == sorted([floor, *distances])
    assert distances[0] > 1.1 * floor
    assert distances[-1] > 3 * distances[0]
