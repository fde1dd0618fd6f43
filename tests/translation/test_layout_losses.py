# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Losses of OASIS and noise for label maps, against reference vectors and by hand."""

from __future__ import annotations

import pytest
import torch

from ggdr.translation.label_maps import one_hot
from ggdr.translation.layout_losses import (
    class_weights,
    fake_loss,
    labelmix_loss,
    labelmix_mask,
    mixture,
    segmentation_loss,
    share_fake,
    share_right,
)
from ggdr.translation.layout_noise import draw_noise
from tests.reference_vectors import Golden, assert_agrees, golden_params

LABELS = torch.tensor([[[0, 0, 1, 1], [0, 2, 255, 1]], [[2, 2, 2, 2], [0, 0, 255, 255]]], dtype=torch.uint8)
LAYOUT = one_hot(LABELS[:, None], 4)


def logits_like(layout, seed=0):
    n, classes, *size = layout.shape
    return torch.randn([n, classes + 1, *size], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", golden_params("translation_losses"))
@pytest.mark.parametrize("kind", ["all", "ignore0"])
def test_segmentation_losses_agree_with_reference_vectors(path, kind):
    golden = Golden(path)
    logits = golden["logits"]
    layout = one_hot(golden["labels"][:, None].to(torch.uint8), logits.shape[1] - 1)
    if kind == "ignore0":
        layout[:, 0] = 0
    weights = class_weights(layout.sum(dim=(0, 2, 3)), layout[:, 0].numel())
    real, fake = segmentation_loss(logits, layout, weights), fake_loss(logits)
    assert real.shape == fake.shape == (len(logits),) and real.dtype == torch.float32
    truth = golden.below(f"oasis/{kind}")
    assert_agrees(real.mean(), truth["real"], "real")
    assert_agrees(fake.mean(), truth["fake"], "fake")


@pytest.mark.parametrize("path", golden_params("translation_losses"))
def test_the_consistency_of_mixed_images_agrees_with_reference_vectors(path):
    golden = Golden(path)
    loss = labelmix_loss(golden["d_mixed"], golden["d_real"], golden["d_fake"], golden["mask"])
    assert_agrees(loss.mean(), golden["oasis/labelmix"], "labelmix")


def test_each_class_that_is_there_has_the_same_part_in_the_loss():
    counts = LAYOUT.sum(dim=(0, 2, 3))
    weights = class_weights(counts, LABELS.numel())
    assert counts.tolist() == [5, 3, 5, 0] and weights[3] == 0
    torch.testing.assert_close(counts * weights, torch.tensor([16 / 3, 16 / 3, 16 / 3, 0]))


def test_of_a_batch_without_classes_nothing_counts():
    nothing = torch.zeros(2, 3, 4, 4)
    weights = class_weights(nothing.sum(dim=(0, 2, 3)), 32)
    assert weights.tolist() == [0, 0, 0]
    assert segmentation_loss(logits_like(nothing), nothing, weights).tolist() == [0, 0]
    assert share_right(logits_like(nothing), nothing).tolist() == [0, 0]


def test_ignored_pixels_have_no_part_in_losses():
    logits, weights = logits_like(LAYOUT).requires_grad_(), torch.ones(4)
    segmentation_loss(logits, LAYOUT, weights).sum().backward()
    got = logits.grad.abs().sum(dim=1) > 0
    assert torch.equal(got, LABELS != 255)


def test_the_right_class_costs_less_and_is_counted():
    sure, weights = 20 * torch.cat([torch.zeros(2, 1, 2, 4), LAYOUT], dim=1), torch.ones(4)
    assert (segmentation_loss(sure, LAYOUT, weights) < 1e-6).all() and share_right(sure, LAYOUT).tolist() == [1, 1]
    wrong = sure.roll(1, dims=1)
    assert (segmentation_loss(wrong, LAYOUT, weights) > 5).all() and share_right(wrong, LAYOUT).tolist() == [0, 0]
    # Where all logits are equal the first counts, which is "fake".
    torch.testing.assert_close(share_fake(sure), torch.tensor([1 / 8, 2 / 8]))
    assert (fake_loss(torch.eye(5)[0].view(1, 5, 1, 1).expand(2, 5, 2, 4) * 20) < 1e-6).all()


def test_logits_of_other_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"expected logits of the shape \(2, 5, 2, 4\), for a label map of 4 classes"):
        segmentation_loss(torch.zeros(2, 4, 2, 4), LAYOUT, torch.ones(4))


@pytest.mark.parametrize("bits", range(32))
def test_the_mask_of_a_mixture_follows_classes(bits):
    coins = torch.tensor([bits >> i & 1 for i in range(5)], dtype=torch.float32)
    mask = labelmix_mask(LAYOUT, coins.expand(2, -1))
    classes = torch.where(LABELS == 255, 4, LABELS.long())
    assert torch.equal(mask[:, 0], coins[classes])


def test_a_mixture_has_real_pixels_where_the_mask_is_one():
    mask = labelmix_mask(LAYOUT, torch.tensor([[0.0, 1, 0, 0, 0]]).expand(2, -1))
    mixed = mixture(mask, torch.full([2, 3, 2, 4], 7.0), torch.full([2, 3, 2, 4], -1.0))
    assert torch.equal(mixed == 7, (LABELS == 1)[:, None].expand(-1, 3, -1, -1)) and mixed.unique().tolist() == [-1, 7]


def test_the_consistency_is_zero_of_a_mixture_and_teaches_d_from_all_three():
    real, fake, mixed = (logits_like(LAYOUT, seed).requires_grad_() for seed in range(3))
    mask = labelmix_mask(LAYOUT, torch.tensor([[0.0, 1, 0, 1, 1]]).expand(2, -1))
    assert labelmix_loss(mixture(mask, real, fake), real, fake, mask).tolist() == [0, 0]
    loss = labelmix_loss(mixed, real, fake, mask)
    assert loss.shape == (2,) and (loss > 0).all()
    loss.sum().backward()
    assert torch.equal(real.grad.abs().sum(dim=1) > 0, mask[:, 0] == 1)
    assert torch.equal(fake.grad.abs().sum(dim=1) > 0, mask[:, 0] == 0)


@pytest.mark.parametrize(("kind", "vectors"), [("image", 1), ("class", 4), ("pixel", 8)])
def test_noise_is_of_the_image_the_class_or_the_pixel(kind, vectors):
    noise = draw_noise(LAYOUT, torch.tensor([3, 4]), 16, kind)
    assert noise.shape == (2, 16, 2, 4) and noise.dtype == torch.float32
    first = noise[0].flatten(1).t()
    assert len(first.unique(dim=0)) == vectors
    if kind == "class":
        index = LABELS[0].flatten()
        for value in index.unique():
            assert len(first[index == value].unique(dim=0)) == 1
    assert abs(draw_noise(LAYOUT, torch.tensor([3, 4]), 4096, kind).std() - 1) < 0.05


@pytest.mark.parametrize("kind", ["image", "class", "pixel"])
def test_noise_depends_on_its_own_seed_alone(kind):
    noise = draw_noise(LAYOUT, torch.tensor([3, 4]), 8, kind)
    torch.testing.assert_close(draw_noise(LAYOUT[1:], torch.tensor([4]), 8, kind), noise[1:])
    assert not torch.equal(draw_noise(LAYOUT, torch.tensor([3, 5]), 8, kind)[1], noise[1])


def test_unknown_noise_is_refused():
    with pytest.raises(ValueError, match="noise must be one of image, class, pixel, got 'row'"):
        draw_noise(LAYOUT, torch.tensor([0, 1]), 8, "row")
