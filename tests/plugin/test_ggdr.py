# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR on networks that were not written for it, and against reference vectors."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ggdr import FeatureDecoder, FeatureTap, cosine_distance_loss
from tests.golden_cases import ggdr_errors
from tests.reference_vectors import Golden, assert_all_agree, golden_params
from tests.toy_gan import ToyD, ToyG, attach, d_step


@pytest.mark.parametrize("path", golden_params("ggdr_"))
def test_decoder_loss_and_gradients_agree_with_reference_vectors(path):
    assert_all_agree(ggdr_errors(Golden(path)))


def test_decoder_has_the_published_size_at_256():
    def width(res):
        return min(16384 // res, 512)

    encoder = {f"b{r}": (width(r // 2), r // 2, r // 2) for r in (256, 128, 64, 32, 16, 8)}
    decoder = FeatureDecoder(encoder, {"guide": (width(64), 64, 64)})
    assert round(sum(p.numel() for p in decoder.parameters()) / 1e6, 2) == 1.57


def test_discriminator_step_leaves_generator_without_gradient():
    G, D = ToyG(), ToyD()
    ggdr = attach(G, D)
    torch.manual_seed(0)
    with ggdr.watch() as feats:
        logits = D(G(torch.randn(3, 4)).detach())  # G itself runs with gradients on
    (logits.mean() + ggdr.penalty(feats).mean()).backward()
    assert all(p.grad is None for p in G.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ggdr.parameters())
    assert D.e8[0].weight.grad.abs().sum() > 0


def test_attaching_changes_neither_network_nor_random_state():
    G, D = ToyG(), ToyD()
    D.e4.eval()
    before = {k: v.clone() for k, v in D.state_dict().items()}
    modes = [m.training for m in D.modules()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    ggdr = attach(G, D)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert D.state_dict().keys() == before.keys()
    assert all(torch.equal(D.state_dict()[k], v) for k, v in before.items())
    assert [m.training for m in D.modules()] == modes
    assert not any(m._forward_hooks for net in (G, D) for m in net.modules())
    assert not set(map(id, ggdr.parameters())) & set(map(id, D.parameters()))


def test_weight_zero_leaves_gradients_of_d_as_without_ggdr_and_still_trains_the_decoder():
    torch.manual_seed(0)
    G, D = ToyG(), ToyD()
    plain = d_step(None, G, D)
    probe = attach(G, D, weight=0)
    for got, expected in zip(d_step(probe, G, D), plain, strict=True):
        assert torch.equal(got, expected)
    assert all(p.grad.abs().sum() > 0 for p in probe.parameters())
    guided = d_step(attach(G, D, weight=10), G, D)
    assert not torch.allclose(guided[0], plain[0])


def test_penalty_is_weight_times_distance():
    torch.manual_seed(0)
    G, D = ToyG(), ToyD().eval()
    ggdr = attach(G, D, weight=7)
    with ggdr.watch() as feats:
        D(G(torch.randn(3, 4)).detach())
    torch.testing.assert_close(ggdr.penalty(feats), 7 * ggdr.distance(feats))
    assert ggdr.penalty(feats).shape == (3,)


def test_training_the_discriminator_with_ggdr_lowers_the_cosine_distance():
    torch.manual_seed(0)
    G, D = ToyG(), ToyD()
    ggdr = attach(G, D)
    optimizer = torch.optim.Adam([*D.parameters(), *ggdr.parameters()], 0.01)
    history = []
    for _ in range(60):
        with ggdr.watch() as feats:
            D(G(torch.randn(8, 4)).detach())
        loss = ggdr.penalty(feats).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item() / 10)
    assert history[0] > 0.7 and sum(history[-5:]) / 5 < 0.5 * history[0]


def test_hooks_are_gone_after_an_exception():
    G, D = ToyG(), ToyD()
    ggdr = attach(G, D)
    with pytest.raises(ZeroDivisionError), ggdr.watch():
        G(torch.randn(1, 4))
        raise ZeroDivisionError
    assert not any(m._forward_hooks for net in (G, D) for m in net.modules())
    d_step(ggdr, G, D)  # and the next block works


def test_warp_is_applied_to_the_target_only():
    torch.manual_seed(0)
    G, D = ToyG(), ToyD().eval()
    ggdr = attach(G, D)
    with ggdr.watch() as feats:
        D(G(torch.randn(3, 4)).detach())
    flipped = ggdr.distance(feats, warp=lambda x: x.flip(3))
    pred = ggdr.decoder(feats.encoder)["mid"]
    torch.testing.assert_close(flipped, cosine_distance_loss(pred, feats.guides["mid"].flip(3)))
    assert not torch.allclose(flipped, ggdr.distance(feats))


def test_several_guides_share_one_decoder():
    G, D = ToyG(), ToyD()
    ggdr = attach(G, D, guide=["mid", "top"])
    assert list(ggdr.decoder._modules) == ["b8_dec", "b16_dec"]
    with ggdr.watch() as feats:
        D(G(torch.randn(2, 4)).detach())
    pred = ggdr.decoder(feats.encoder)
    assert pred["mid"].shape == (2, 5, 8, 8) and pred["top"].shape == (2, 3, 16, 16)
    each = [cosine_distance_loss(pred[name], feats.guides[name]) for name in ("mid", "top")]
    torch.testing.assert_close(ggdr.distance(feats), (each[0] + each[1]) / 2)


def test_half_precision_features_are_compared_in_float32():
    decoder = FeatureDecoder({"e": (3, 4, 4)}, {"g": (2, 8, 8)})
    pred = decoder({"e": torch.randn(1, 3, 4, 4).half()})["g"]
    assert pred.dtype == torch.float32
    assert cosine_distance_loss(pred, torch.randn(1, 2, 8, 8).half()).dtype == torch.float32


def test_a_discriminator_that_ran_without_gradients_is_refused():
    G, D = ToyG(), ToyD()
    ggdr, probe = attach(G, D), attach(G, D, weight=0)
    with ggdr.watch() as feats, probe.watch() as same_feats, torch.no_grad():
        D(G(torch.randn(2, 4)))
    with pytest.raises(RuntimeError, match="layer 'e4' of D ran without gradients, so that GGDR could teach D nothing"):
        ggdr.penalty(feats)
    # To look at the number is no mistake, nor to train the decoder alone.
    with torch.no_grad():
        assert torch.equal(ggdr.penalty(feats), 10 * ggdr.distance(feats))
    probe.penalty(same_feats).mean().backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_pass_checkpoints_or_are_missed(use_reentrant):
    class Checkpointed(ToyD):
        def down(self, img):
            return 1 * self.e4(self.act(self.e8(img)))

        def forward(self, img):
            if not self.training:
                return self.out(self.down(img).flatten(1))
            x = checkpoint(self.down, img.requires_grad_(), use_reentrant=use_reentrant)
            return self.out(x.flatten(1))

    G, D = ToyG(), Checkpointed()
    ggdr = attach(G, D)
    with ggdr.watch() as feats:
        D(G(torch.randn(2, 4)).detach())
    if use_reentrant:
        with pytest.raises(RuntimeError, match="ran without gradients.*use_reentrant=False"):
            ggdr.penalty(feats)
    else:
        ggdr.penalty(feats).mean().backward()
        assert D.e8[0].weight.grad.abs().sum() > 0


def test_what_a_reentrant_checkpoint_itself_returns_keeps_its_gradient():
    class Checkpointed(ToyD):
        def forward(self, img):
            return self.out(checkpoint(self.e4, self.act(self.e8(img)), use_reentrant=True).flatten(1))

    G, D = ToyG(), Checkpointed()
    ggdr = attach(G, D, encoder=["e4"])
    with ggdr.watch() as feats:
        D(G(torch.randn(2, 4)).detach())
    ggdr.penalty(feats).mean().backward()
    assert D.e8[0].weight.grad.abs().sum() > 0


def test_state_round_trips():
    G, D = ToyG(), ToyD()
    one, two = attach(G, D), attach(G, D)
    two.load_state_dict(one.state_dict())
    with one.watch() as feats, two.watch() as same_feats:
        D(G(torch.randn(2, 4)).detach())
    assert torch.equal(one.distance(feats), two.distance(same_feats))


def test_cosine_distance_ignores_positive_scale_and_is_two_for_opposite_vectors():
    x = torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(cosine_distance_loss(3 * x, x), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_distance_loss(-x, x), torch.full([2], 2.0))
    with pytest.raises(ValueError, match="differ in shape"):
        cosine_distance_loss(x, x[:1])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_derivatives_of_the_cosine_distance_are_those_of_its_formula_also_below_the_floor_on_norms(memory_format):
    rng = torch.Generator().manual_seed(0)
    pred, target = (torch.randn(2, 5, 4, 6, generator=rng) for _ in range(2))
    pred[0, :, 0], target[1, :, 2], target[1, :, 3] = 0.1 * pred[0, :, 0], 0, 0.1 * target[1, :, 3]
    pred = pred.contiguous(memory_format=memory_format).requires_grad_()
    weights = torch.tensor([1.0, -3.0], requires_grad=True)
    eps = 1.0

    def formula():
        norms = pred.norm(dim=1).clamp(min=eps) * target.norm(dim=1).clamp(min=eps)
        return 1 - ((pred * target).sum(dim=1) / norms).mean(dim=[1, 2])

    found = []
    for distance in (cosine_distance_loss(pred, target, eps=eps), formula()):
        (first,) = torch.autograd.grad(distance @ weights, pred, create_graph=True)
        second = torch.autograd.grad(first.pow(3).sum(), [pred, weights], retain_graph=True)
        (alone,) = torch.autograd.grad(distance @ weights, pred)  # which takes what the forward pass kept
        found.append([distance, first, *second, alone])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert found[0][-1].is_contiguous(memory_format=memory_format)


def test_a_vector_of_zeros_gets_a_finite_gradient_and_the_target_none():
    pred, target = torch.zeros(1, 3, 2, 2, requires_grad=True), torch.ones(1, 3, 2, 2, requires_grad=True)
    distance = cosine_distance_loss(pred, target, eps=0.1)
    grad, of_target = torch.autograd.grad(distance.sum(), [pred, target], allow_unused=True)
    assert of_target is None
    torch.testing.assert_close(grad, torch.full_like(grad, -1 / (4 * 0.1 * 3**0.5)))


def test_mistakes_say_what_to_do():
    G, D = ToyG(), ToyD()
    with pytest.raises(ValueError, match="ToyG has no layer 'synthesis.b8'; it has low, mid, mid.conv"):
        attach(G, D, guide="synthesis.b8")
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        attach(G, D, weight=-1)
    with pytest.raises(RuntimeError, match=r"'out' returned no .* got Tensor of shape \(2, 1\)"):
        attach(G, D, encoder=["e4", "out"])
    with pytest.raises(RuntimeError, match="'e8' did not run .* attached to, no copies of them"):
        attach(G, D, probe=lambda: G(torch.zeros(1, 4)))
    with pytest.raises(ValueError, match="guide 'mid' is 8x8, and the smallest map of the discriminator, 'e8', is 8x8"):
        attach(G, D, encoder=["e8"])
    with pytest.raises(ValueError, match="are both 8x8"):
        attach(G, D, encoder=["e4", "e8.0", "e8.1"])
    ggdr = attach(G, D)
    with pytest.raises(RuntimeError, match="ran twice inside one watch block"), ggdr.watch():
        D(torch.zeros(2, 3, 16, 16))
        D(torch.zeros(2, 3, 16, 16))
    with ggdr.watch() as feats:
        D(G(torch.zeros(3, 4))[:2])
    with pytest.raises(ValueError, match="G ran on 3 images and D on 2"):
        ggdr.penalty(feats)
    with pytest.raises(ValueError, match="watched by another GGDR"):
        attach(G, D).penalty(feats)
    with pytest.raises(TypeError, match="what `with ggdr.watch"):
        ggdr.penalty(ggdr.watch())
    pool = G(torch.zeros(2, 4))
    with ggdr.watch() as feats:
        D(pool)
        G(torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match="D ran before G inside the watch block"):
        ggdr.penalty(feats)
    with pytest.raises(ValueError, match="at least once in a watch block, got calls=0"), ggdr.watch(calls=0):
        pass


def test_maps_that_in_place_operations_overwrite_are_what_their_layers_returned_with_their_gradients():
    G, plain, inplace = ToyG(), ToyD().eval(), ToyD(inplace=True).eval()
    inplace.load_state_dict(plain.state_dict())
    distances, gradients = [], []
    for D in (plain, inplace):
        torch.manual_seed(0)
        ggdr = attach(G, D, guide="top", encoder=["e8", "e4"])
        with ggdr.watch() as feats:
            D(G(torch.ones(2, 4)).detach())
        distances.append(ggdr.distance(feats))
        distances[-1].mean().backward()
        gradients.append(D.e8[0].weight.grad)
    assert torch.equal(*distances) and torch.equal(*gradients) and gradients[0].abs().sum() > 0


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [False, True])
def test_dropout_in_place_does_no_harm_in_any_mode(mode, training):
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Dropout(0.5, inplace=True)).train(training)
    img = torch.rand(2, 3, 5, 5)
    with mode(), FeatureTap(layers, ["0", "1"]) as feats:
        out = layers(img)
    assert torch.equal(feats["0"], layers[0](img)) and torch.equal(feats["1"], out)
    assert torch.equal(feats["0"], feats["1"]) != training


def test_maps_that_nothing_overwrites_are_the_tensors_themselves():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU())
    with FeatureTap(layers, ["1"]) as feats:
        out = layers(torch.rand(2, 3, 5, 5))
    assert feats["1"] is out


def copies(feats, name):
    return [output.copy for output in feats._all(name) if output.copy is not None]


def test_maps_are_copied_until_a_block_in_the_same_mode_has_shown_that_nothing_overwrites_them():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Dropout(0.5, inplace=True), torch.nn.ReLU())
    tap, img = FeatureTap(layers, ["0", "2"]), torch.rand(2, 3, 5, 5)
    found = []
    for training in (False, False, True, True):
        layers.train(training)
        with tap as feats:
            layers(img)
        assert torch.equal(feats["0"], layers[0](img))
        found.append([len(copies(feats, name)) for name in ("0", "2")])
    # Dropout overwrites in training alone.
    assert found == [[1, 1], [0, 0], [1, 1], [1, 0]]


def test_a_map_that_is_overwritten_later_than_others_of_its_layer_is_missed_once():
    layer, img = torch.nn.Conv2d(3, 4, 1), torch.rand(2, 3, 5, 5)
    tap = FeatureTap(torch.nn.Sequential(layer), ["0"])
    with torch.no_grad():
        for _ in range(2):
            with tap as feats:
                out = layer(img)
        expected = out.clone()
        out.zero_()
        with pytest.raises(RuntimeError, match="'0' returned was overwritten in place, .* run the watch block again"):
            feats["0"]
        with tap as feats:
            layer(img).zero_()
    assert torch.equal(feats["0"], expected)


def test_a_map_that_is_overwritten_after_the_block_is_copied_in_the_next():
    layer, img = torch.nn.Conv2d(3, 4, 1), torch.rand(2, 3, 5, 5)
    tap = FeatureTap(torch.nn.Sequential(layer), ["0"])
    for _ in range(3):
        with torch.no_grad(), tap as feats:
            out = layer(img)
        expected = out.clone()
        out.zero_()
        assert torch.equal(feats["0"], expected)


def test_features_can_be_looked_at_in_inference_mode():
    G = ToyG().eval()
    z = torch.randn(2, 4)
    with FeatureTap(G, ["mid"]) as expected, torch.no_grad():
        G(z)
    with FeatureTap(G, ["mid"]) as feats, torch.inference_mode():
        G(z)
    assert torch.equal(feats["mid"], expected["mid"])


def test_the_decoder_predicts_for_images_of_any_origin():
    G, D = ToyG(), ToyD().eval()
    ggdr = attach(G, D)
    img = torch.rand(3, 3, 16, 16)
    with ggdr.watch() as feats, torch.no_grad():
        D(img)
    assert ggdr.guides == ["mid"] and ggdr.encoder == ["e4"] and ggdr.predict(feats)["mid"].shape == (3, 5, 8, 8)
