# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Segmenters: what they learn, their files, and those of the user's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ggdr.metrics.segmentation import ClassPixels, confusion, iou_table, mean_iou, pixel_accuracy
from ggdr.metrics.segmenter import (
    Segmenter,
    SegmenterConfig,
    SegmenterNetwork,
    load_segmenter,
    save_segmenter,
    segmenter_of,
)
from ggdr.metrics.segmenter_training import (
    default_downs,
    flip_some,
    is_held_out,
    judge,
    learning_rate,
    new_network,
    pixel_loss,
    train_segmenter,
)
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.data.label_maps import IGNORED, LabelClasses, numbered_classes
from ggdr.torch_utils.downloads import WeightsError

CLASSES = LabelClasses((0, 1, 2), names=("sky", "sea", "sand"))
CONFIG = SegmenterConfig(3, 3, width=4, downs=2)
COLORS = torch.tensor([[40, 90, 200], [220, 30, 60], [90, 200, 40]], dtype=torch.uint8)


def planted(num, seed, size=16):
    """Images uint8 whose colour is the class, with noise, and their label maps of blocks."""
    rng = torch.Generator().manual_seed(seed)
    blocks = torch.randint(3, [num, 1, size // 4, size // 4], generator=rng)
    label_maps = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)
    noise = torch.randint(-25, 26, [num, 3, size, size], generator=rng)
    img = COLORS[label_maps[:, 0].long()].permute(0, 3, 1, 2) + noise
    return img.clamp(0, 255).to(torch.uint8), label_maps


@pytest.fixture(scope="module")
def trained():
    net = new_network(CONFIG, 0)
    batches = (planted(8, seed) for seed in range(60))
    train_segmenter(net, flip_some(batches, 0), steps=60, lr=1e-2)
    return net


@pytest.fixture
def path(trained, tmp_path):
    save_segmenter(tmp_path / "s.safetensors", trained, CLASSES, {"kimg": 0.48})
    return tmp_path / "s.safetensors"


def test_classes_that_are_colours_are_learned(trained):
    segmenter = Segmenter(trained, name="net", digest="", channels=3)
    counts = judge(segmenter, [planted(8, 1000 + i) for i in range(4)], 3)
    assert counts.sum() == 4 * 8 * 16 * 16 and mean_iou(counts) > 0.95
    # Against the same maps shifted by a class it is wrong.
    shifted = [(img, (label_maps + 1) % 3) for img, label_maps in [planted(8, 1000)]]
    assert mean_iou(judge(segmenter, shifted, 3)) < 0.05


def test_training_depends_on_the_seed_alone():
    def train(seed):
        net = new_network(CONFIG, seed)
        train_segmenter(net, flip_some((planted(4, i) for i in range(3)), seed), steps=3, lr=1e-2)
        return net.state_dict()

    a, b, c = train(0), train(0), train(1)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["to_logits.weight"], c["to_logits.weight"])


def test_ignored_pixels_give_no_gradient():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    label_maps = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    label_maps[0, 0, :2] = IGNORED
    label_maps[1, 0, 0, 0] = 2
    loss = pixel_loss(logits, label_maps)
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad[0, :, :2] == 0).all() and (grad[0, :, 2:] != 0).all() and (grad[1] != 0).all()
    labels = label_maps[:, 0].long()
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED).item(), rel=1e-5
    )
    assert pixel_loss(logits, torch.full_like(label_maps, IGNORED)) == 0


def test_every_tenth_image_is_held_out():
    assert np.flatnonzero(is_held_out(np.arange(31))).tolist() == [9, 19, 29]


def test_the_rate_rises_and_falls_to_nothing():
    rates = [learning_rate(done / 1000, 2.0) for done in range(1001)]
    assert max(rates) == rates[50] == 2 and rates[0] == 0 and rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[525] == pytest.approx(1) and rates[51:] == sorted(rates[51:], reverse=True)


@pytest.mark.parametrize(("resolution", "downs"), [(8, 1), (16, 2), (32, 3), (64, 4), (128, 5), (1024, 5)])
def test_images_are_halved_down_to_four_pixels(resolution, downs):
    assert default_downs(resolution) == downs


def test_flipped_images_keep_their_label_maps():
    images_u8 = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 16).expand(20, 3, 4, 16)
    ((flipped, label_maps),) = flip_some([(images_u8, images_u8[:, :1])], 0)
    assert torch.equal(flipped[:, :1], label_maps)
    assert 0 < sum(x[0, 0, 0] == 15 for x in flipped) < 20


@pytest.mark.parametrize("size", [(16, 16), (13, 22), (1, 1)], ids=str)
def test_logits_have_the_size_of_the_image(trained, size):
    logits = Segmenter(trained, name="net", digest="")(torch.zeros(2, 3, *size))
    assert logits.shape == (2, 3, *size) and logits.dtype == torch.float32


def test_small_logits_are_resized_between_pixels():
    def halves(img):
        return torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2).expand(len(img), -1, -1, -1)

    logits = Segmenter(halves, name="code", digest="")(torch.zeros(3, 3, 4, 8))
    assert logits.shape == (3, 2, 4, 8) and logits.argmax(1)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert logits[0, 0, 0].tolist() == [1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0]


def test_grey_and_transparent_images_become_colours_for_code_that_says_nothing():
    segmenter = Segmenter(lambda img: img, name="code", digest="")
    grey = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    assert segmenter.of_files(grey).shape == (1, 3, 2, 2)
    clear = torch.zeros(1, 4, 2, 2, dtype=torch.uint8)
    assert (segmenter.of_files(clear) == 1).all() and segmenter.of_files(clear).shape[1] == 3


def test_a_file_gives_the_same_network_with_its_classes(path, trained):
    segmenter = load_segmenter(path)
    img = planted(2, 5)[0].float() / 127.5 - 1
    assert torch.equal(segmenter(img), trained(img).detach())
    assert segmenter.classes == CLASSES and segmenter.channels == 3 and segmenter.about == {"kimg": 0.48}
    assert segmenter.digest == load_segmenter(path).digest and len(segmenter.digest) == 16
    assert not any(p.requires_grad for p in segmenter.function.parameters()) and not segmenter.function.training


def test_code_is_a_function_of_the_device_that_returns_a_callable(tmp_path, monkeypatch):
    (tmp_path / "own_segmenter.py").write_text("def build(device):\n    return lambda img: img.to(device)[:, :2]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    segmenter = load_segmenter("own_segmenter:build", "cpu")
    assert segmenter(torch.ones(1, 3, 4, 4)).shape == (1, 2, 4, 4) and segmenter.classes is None
    with pytest.raises(WeightsError, match=r"^--segmenter own_segmenter:other: expected module:function"):
        load_segmenter("own_segmenter:other")


def damaged(path, **changes):
    snapshot = load_snapshot(path)
    networks = {name: {k: v.clone() for k, v in state.items()} for name, state in snapshot.networks.items()}
    save_snapshot(path, networks, {**snapshot.config, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmenter": None}, "holds segmenter, expected a segmenter, as `ggdr segmenter train` writes it"),
        ({"segmenter": {"channels": 3}}, "settings of the segmenter are damaged"),
        ({"segmenter": {"channels": 3, "classes": 3, "width": 10**9}}, "width must be a whole number from 1 to 1024"),
        ({"segmenter": {"channels": 3, "classes": 3, "width": 4, "downs": True}}, "downs must be a whole number"),
        ({"segmenter": {"channels": 3, "classes": 3, "width": 8, "downs": 2}}, "weights of segmenter do not fit"),
        ({"labels": numbered_classes(2).to_json()}, "names 2 classes, and its network has 3"),
        ({"labels": {"values": "x"}}, "settings of the segmenter are damaged"),
    ],
    ids=["other", "missing", "huge", "no-number", "width", "classes", "labels"],
)
def test_a_damaged_file_is_refused(path, changes, message):
    damaged(path, **changes)
    with pytest.raises(WeightsError, match="^--segmenter ") as error:
        load_segmenter(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_cut_off_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SnapshotError, match="not a readable network snapshot"):
        segmenter_of(load_snapshot(path))


@pytest.mark.parametrize(
    ("channels", "classes", "message"),
    [
        (1, CLASSES, r"takes images \[N, 3, H, W\], got \[1, 1, 8, 8\]"),
        (3, numbered_classes(4), "finds 3 classes, and the label maps have 4"),
        (3, LabelClasses((5, 6, 7), names=("sky", "sand", "sea")), "finds a class 1 called sea, which .* call sand"),
    ],
    ids=["channels", "number", "names"],
)
def test_what_it_is_not_for_is_refused(path, channels, classes, message):
    with pytest.raises(ValueError, match=message):
        load_segmenter(path).check(torch.zeros(1, channels, 8, 8, dtype=torch.uint8), classes)


def test_classes_without_names_or_of_other_values_are_taken(path):
    images_u8 = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    load_segmenter(path).check(images_u8, numbered_classes(3))
    load_segmenter(path).check(images_u8, LabelClasses((7, 8, 26), names=CLASSES.names))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda img: img.mean([2, 3]), r"code: expected logits \[1, classes, h, w\], got \[1, 3\]"),
        (lambda img: [img], r"code: expected logits \[1, classes, h, w\], got list"),
        (lambda img: img @ img[:, :, :3], "code: cannot see images of 8x8 pixels"),
    ],
    ids=["shape", "type", "fails"],
)
def test_code_that_gives_no_logits_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        Segmenter(function, name="code", digest="").check(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), CLASSES)


def test_pixels_of_images_add_up_to_those_of_their_confusion():
    rng = torch.Generator().manual_seed(0)
    labels, found = (torch.randint(4, [5, 6, 7], generator=rng) for _ in range(2))
    labels[0, :3] = IGNORED
    labels[4] = IGNORED
    pixels = ClassPixels.of_images(labels, found, 5)
    assert pixels.right.shape == (5, 5) and not pixels.called[4].any()
    counts = confusion(labels, found, 5)
    total = ClassPixels(pixels.right.sum(0), pixels.labelled.sum(0), pixels.called.sum(0))
    assert total.mean_iou() == mean_iou(counts) and total.pixel_accuracy() == pixel_accuracy(counts)
    diagonal = iou_table(counts).diagonal()
    assert torch.equal(total.iou()[:4], diagonal[:4]) and math.isnan(total.iou()[4]) and math.isnan(diagonal[4])


def test_a_network_of_many_halvings_has_maps_of_bounded_width():
    net = SegmenterNetwork(SegmenterConfig(1, 2, width=2, downs=6))
    assert max(module.out_channels for module in net.modules() if isinstance(module, torch.nn.Conv2d)) == 16
    assert net.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)
