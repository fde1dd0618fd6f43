# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Regularisers beside GGDR: their losses by hand and by reference vectors, and which networks learn from them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ggdr import (
    GGDR,
    Contrastive,
    EMAGuide,
    FeatureTap,
    RealFeatures,
    Semantic,
    class_balanced_cross_entropy,
    cosine_distance_loss,
    pixel_nce_loss,
)
from ggdr.contrastive import draw_pixels
from ggdr.semantic import IGNORED, warped_labels
from tests.reference_vectors import Golden, assert_agrees, golden_params
from tests.toy_gan import ToyD, ToyG

N = 3
ENCODER = ["e8", "e4"]


def networks():
    torch.manual_seed(0)
    return ToyG(), ToyD().eval()


def fakes_seen(item, G, D):
    """What the regulariser watches while D judges new fakes, and the latents."""
    z = torch.randn(N, 4)
    with item.watch() as feats:
        D(G(z).detach())
    return feats, z


def on_fakes(kind, G, D, **options):
    options = {"G_ema": copy.deepcopy(G).eval(), **options} if kind is EMAGuide else options
    return kind(G, D, guide="mid", encoder=ENCODER, probe=lambda: D(G(torch.zeros(2, 4))), **options)


def on_reals(kind, D, **options):
    """A regulariser on reals, and what it is to be given of three of them."""
    img = torch.randn(N, 3, 16, 16)
    options = {"size": 8, "encoder": ENCODER, "probe": lambda: D(img), **options}
    if kind is Semantic:
        return kind(D, classes=4, **options), img, torch.randint(4, [N, 1, 16, 16], dtype=torch.uint8)
    return kind(D, network=nn.Conv2d(3, 6, 4, 4), channels=6, **options), img, img


def reals_seen(item, D, img):
    with item.watch() as feats:
        D(img)
    return feats


# The class-balanced cross-entropy.


@pytest.mark.parametrize("path", golden_params("translation_losses"))
def test_the_class_balanced_cross_entropy_agrees_with_reference_vectors(path):
    golden = Golden(path)
    logits, labels = golden["logits"], golden["labels"] + 1  # channel 0 is "fake", which no real pixel is
    assert_agrees(class_balanced_cross_entropy(logits, labels).mean(), golden["oasis/all/real"])
    without_first = labels.where(labels != 1, IGNORED)
    assert_agrees(class_balanced_cross_entropy(logits, without_first).mean(), golden["oasis/ignore0/real"])


def test_each_class_counts_alike_however_few_its_pixels_are():
    logits = torch.zeros(2, 2, 2, 2)
    logits[0, 0, 0, 0] = math.log(3)  # of the only pixel of class 1: probability 1/4
    labels = torch.zeros(2, 2, 2, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    # Seven pixels of class 0 at log 2 each, one of class 1 at log 4: the mean of both classes.
    loss = class_balanced_cross_entropy(logits, labels)
    assert loss.shape == (2,)
    torch.testing.assert_close(loss.mean(), torch.tensor((math.log(2) + math.log(4)) / 2))


def test_pixels_of_no_class_have_no_part_and_no_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(3, [2, 4, 4])
    labels[0] = IGNORED
    loss = class_balanced_cross_entropy(logits, labels)
    loss.sum().backward()
    assert loss[0] == 0 and loss[1] > 0 and not logits.grad[0].any() and logits.grad[1].any()
    assert class_balanced_cross_entropy(logits, torch.full_like(labels, IGNORED)).tolist() == [0, 0]


def test_label_maps_are_never_interpolated():
    labels = torch.tensor([0, 9]).repeat(8)[None, None, :].expand(2, 16, 16)  # classes that a mean would be between
    turn = torch.tensor([[0.8, 0.6, 0.1], [-0.6, 0.8, 0.0]]).expand(2, 2, 3)

    def turned(x):
        grid = nn.functional.affine_grid(turn, list(x.shape), align_corners=False)
        return nn.functional.grid_sample(x, grid, align_corners=False)

    mixed = turned(labels[:, None].float())
    assert ((mixed > 1) & (mixed < 8)).any()  # as labels would be, were they interpolated
    for size in ((16, 16), (4, 4)):
        assert set(warped_labels(labels, turned, size).unique().tolist()) == {0, 9, IGNORED}


@pytest.mark.parametrize(
    "warp",
    [lambda x: x.flip(3), lambda x: x.rot90(1, (2, 3)), lambda x: x[..., 2:6, 1:5]],
    ids=["flip", "turn", "crop"],
)
def test_label_maps_move_as_images_do(warp):
    labels = torch.arange(64).reshape(1, 8, 8)
    moved = warped_labels(labels, warp, (8, 8))
    assert torch.equal(moved, warp(labels[:, None])[:, 0])


def test_what_comes_in_from_outside_has_no_class():
    labels = torch.arange(1, 65).reshape(1, 8, 8).to(torch.uint8)

    def shift(x):
        return nn.functional.pad(x[..., :-3], (3, 0))

    moved = warped_labels(labels, shift, (8, 8))
    assert (moved[..., :3] == IGNORED).all() and torch.equal(moved[..., 3:], labels[..., :-3])


# InfoNCE over pixels.


def test_nce_of_known_similarities():
    pred = torch.eye(2).reshape(1, 2, 1, 2) * 5  # two pixels of two channels, at right angles
    loss = pixel_nce_loss(pred, pred, temperature=0.5)
    torch.testing.assert_close(loss, torch.tensor([math.log(1 + math.exp(-2))]))
    swapped = pixel_nce_loss(pred, pred.flip(3), temperature=0.5)
    torch.testing.assert_close(swapped, torch.tensor([math.log(1 + math.exp(2))]))


def test_nce_is_what_cross_entropy_over_the_chosen_pixels_gives():
    pred, target = torch.randn(N, 5, 4, 6), torch.randn(N, 5, 4, 6)
    pixels = draw_pixels(N, 7, 24)
    loss = pixel_nce_loss(pred, target, pixels, temperature=0.2)
    for i in range(N):
        a, b = (x[i].flatten(1)[:, pixels[i]].t() for x in (pred, target))
        logits = nn.functional.cosine_similarity(a[:, None], b[None], dim=2) / 0.2
        torch.testing.assert_close(loss[i], nn.functional.cross_entropy(logits, torch.arange(7)))


def test_nce_of_a_prediction_that_says_nothing_is_the_log_of_the_number_of_pixels():
    loss = pixel_nce_loss(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    torch.testing.assert_close(loss, torch.tensor([math.log(16)]))


def test_pixels_from_outside_are_neither_positives_nor_negatives():
    torch.manual_seed(1)
    pred, target = torch.randn(2, 5, 1, 6, requires_grad=True), torch.randn(2, 5, 1, 6)
    target[0, ..., 4:] = 0
    target[1] = 0
    loss = pixel_nce_loss(pred, target)
    torch.testing.assert_close(loss[:1], pixel_nce_loss(pred[:1, ..., :4], target[:1, ..., :4]))
    loss.sum().backward()
    assert loss[1] == 0 and pred.grad.isfinite().all() and not pred.grad[0, ..., 4:].any()


def test_nce_of_an_image_does_not_depend_on_the_others():
    pred, target = torch.randn(N, 5, 4, 4), torch.randn(N, 5, 4, 4)
    torch.testing.assert_close(pixel_nce_loss(pred, target)[1:2], pixel_nce_loss(pred[1:2], target[1:2]))


def test_pixels_are_drawn_once_each_and_again_alike_from_the_same_seed():
    one, two = (draw_pixels(4, 10, 16, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == (4, 10) and 0 <= one.min() and one.max() < 16
    assert all(len(set(row.tolist())) == 10 for row in one) and not torch.equal(one[0], one[1])


def test_no_more_pixels_than_asked_for_are_compared():
    G, D = networks()
    item = on_fakes(Contrastive, G, D, negatives=20)
    draws = item.draw(N, generator=torch.Generator().manual_seed(1))
    assert draws["mid"].shape == (N, 21)
    assert on_fakes(Contrastive, G, D, negatives=63).draw(N) == {}  # all 64 pixels are used
    feats, _ = fakes_seen(item, G, D)
    expected = pixel_nce_loss(item.predict(feats)["mid"], feats.guides["mid"], draws["mid"])
    torch.testing.assert_close(item.penalty(feats, draws=draws), expected)
    torch.manual_seed(7)
    first = item.nce(feats)
    torch.manual_seed(7)
    assert torch.equal(item.nce(feats), first) and not torch.equal(item.nce(feats), first)


# The averaged generator as guide.


def test_the_guide_is_what_the_average_computes_for_the_same_latents():
    G, D = networks()
    G_ema = copy.deepcopy(G).eval()
    with torch.no_grad():
        G_ema.mid.conv.weight.add_(0.3)
    item = on_fakes(EMAGuide, G, D, G_ema=G_ema)
    feats, z = fakes_seen(item, G, D)
    with FeatureTap(G_ema, ["mid"]) as of_average, FeatureTap(G, ["mid"]) as of_g:
        G_ema(z)
        G(z)
    assert torch.equal(feats.guides["mid"], of_average["mid"]) and not torch.allclose(of_g["mid"], of_average["mid"])
    torch.testing.assert_close(
        item.distance(feats), cosine_distance_loss(item.predict(feats)["mid"], of_average["mid"])
    )


def test_a_part_of_the_generator_can_be_repeated():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.mapping, self.synthesis = nn.Linear(4, 4), ToyG()

    torch.manual_seed(0)
    G, D = Outer(), ToyD().eval()
    G_ema = copy.deepcopy(G)
    run = lambda: D(G.synthesis(G.mapping(torch.zeros(2, 4))))  # noqa: E731
    item = EMAGuide(G, D, G_ema=G_ema, part="synthesis", guide="synthesis.mid", encoder=ENCODER, probe=run)
    with item.watch() as feats:
        run()
    assert item.penalty(feats).shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "mids"}, "ToyG has no part 'mids'; it has low, mid"),
        ({"G_ema": None}, "G_ema is G itself"),
        ({"weight": -1}, "weight must not be negative, got -1"),
    ],
)
def test_a_wrong_average_is_named(options, message):
    G, D = networks()
    options = {key: G if value is None else value for key, value in options.items()}
    with pytest.raises(ValueError, match=message):
        on_fakes(EMAGuide, G, D, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"negatives": 0}, "at least 1 negative, got 0"), ({"temperature": 0}, "temperature must be above 0, got 0")],
)
def test_wrong_options_of_the_contrastive_loss_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        on_fakes(Contrastive, *networks(), **options)


# What they have in common.


@pytest.mark.parametrize("kind", [GGDR, EMAGuide, Contrastive])
def test_on_fakes_generators_get_no_gradient_and_discriminator_and_decoder_do(kind):
    G, D = networks()
    item = on_fakes(kind, G, D)
    feats, _ = fakes_seen(item, G, D)
    item.penalty(feats).mean().backward()
    generators = [G, item._G_ema] if kind is EMAGuide else [G]
    assert all(p.grad is None for net in generators for p in net.parameters())
    assert D.e8[0].weight.grad.abs().sum() > 0 and all(p.grad.abs().sum() > 0 for p in item.parameters())


@pytest.mark.parametrize("kind", [Semantic, RealFeatures])
def test_on_reals_the_frozen_network_gets_no_gradient_and_discriminator_and_decoder_do(kind):
    _, D = networks()
    item, img, known = on_reals(kind, D)
    item.penalty(reals_seen(item, D, img), known).mean().backward()
    assert kind is Semantic or all(p.grad is None for p in item.network.parameters())
    assert D.e8[0].weight.grad.abs().sum() > 0 and all(p.grad.abs().sum() > 0 for p in item.parameters())


@pytest.mark.parametrize("kind", [Semantic, RealFeatures])
def test_on_reals_weight_zero_trains_the_decoder_alone(kind):
    _, D = networks()
    item, img, known = on_reals(kind, D, weight=0)
    feats = reals_seen(item, D, img)
    item.penalty(feats, known).mean().backward()
    assert D.e8[0].weight.grad is None and all(p.grad.abs().sum() > 0 for p in item.parameters())


@pytest.mark.parametrize("kind", [Semantic, RealFeatures])
def test_on_reals_a_part_of_the_batch_can_be_theirs(kind):
    _, D = networks()
    item, img, known = on_reals(kind, D)
    alone = item.penalty(reals_seen(item, D, img), known)
    with item.watch() as feats:
        D(torch.stack([torch.zeros_like(img), img], dim=1).flatten(0, 1))
    torch.testing.assert_close(item.penalty(feats, known, reals=slice(1, None, 2)), alone)


def test_targets_of_reals_go_through_the_warp_of_their_images():
    _, D = networks()
    item, img, _ = on_reals(RealFeatures, D)
    feats = reals_seen(item, D, img)
    target = nn.functional.interpolate(item.network(img).flip(3), [8, 8], mode="bilinear", antialias=True)
    expected = cosine_distance_loss(item.predict(feats), target)
    torch.testing.assert_close(item.distance(feats, img, lambda x: x.flip(3)), expected)


@pytest.mark.parametrize("kind", [GGDR, EMAGuide, Contrastive, Semantic, RealFeatures])
def test_hooks_are_gone_after_an_exception(kind):
    G, D = networks()
    item = on_reals(kind, D)[0] if kind in (Semantic, RealFeatures) else on_fakes(kind, G, D)
    with pytest.raises(ZeroDivisionError), item.watch():
        D(G(torch.randn(1, 4)))
        raise ZeroDivisionError
    generators = [G, item._G_ema] if kind is EMAGuide else [G]
    assert not any(m._forward_hooks for net in (*generators, D) for m in net.modules())


@pytest.mark.parametrize("kind", [EMAGuide, Contrastive, Semantic, RealFeatures])
def test_training_lowers_what_is_penalised(kind):
    G, D = networks()
    if kind in (Semantic, RealFeatures):
        item, img, known = on_reals(kind, D)
        if kind is Semantic:
            known = (img[:, :1] > 0).to(torch.uint8) + 2 * (img[:, 1:2] > 0).to(torch.uint8)
        run = lambda: item.penalty(reals_seen(item, D, img), known)  # noqa: E731
    else:
        item = on_fakes(kind, G, D)
        run = lambda: item.penalty(fakes_seen(item, G, D)[0])  # noqa: E731
    optimizer = torch.optim.Adam([*D.parameters(), *item.parameters()], 0.01)
    history = []
    for _ in range(60):
        loss = run().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) / 5 < 0.8 * history[0]


def test_what_does_not_fit_the_images_is_named():
    _, D = networks()
    semantic, img, labels = on_reals(Semantic, D)
    with pytest.raises(ValueError, match=r"label maps \(3, 16, 16\), expected \[3, 1, H, W\]"):
        semantic.penalty(reals_seen(semantic, D, img), labels[:, 0])
    features, _, _ = on_reals(RealFeatures, D)
    with pytest.raises(ValueError, match="got 2 real images, and D saw 3; say which with `reals`"):
        features.penalty(reals_seen(features, D, img), img[:2])
    with pytest.raises(ValueError, match="watched by another RealFeatures"):
        semantic.penalty(reals_seen(features, D, img), labels)
    with pytest.raises(TypeError, match="expected what `with semantic.watch"):
        semantic.penalty({}, labels)
    features.network = nn.Flatten()
    with pytest.raises(ValueError, match=r"gives \(3, 768\) for images .* expected maps \[3, 6, h, w\]"):
        features.penalty(reals_seen(features, D, img), img)


def test_a_discriminator_that_ran_without_gradients_is_named():
    _, D = networks()
    item, img, known = on_reals(Semantic, D)
    with item.watch() as feats, torch.no_grad():
        D(img)
    with pytest.raises(RuntimeError, match="so that Semantic could teach D nothing.*semantic.cross_entropy"):
        item.penalty(feats, known)
