# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Losses, phases and iterations of pix2pix with GGDR."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.translation import host
from ggdr.translation.attachment import guide_layers
from ggdr.translation.config import (
    PatchDiscriminatorConfig,
    Pix2PixConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.host import LOGIT_LOSSES
from ggdr.translation.layers import batch_statistics, init_weights
from ggdr.translation.networks import build_network
from ggdr.translation.pix2pix import Pix2PixTask, judge, pix2pix_attachment
from tests.translation.hosts import (
    BATCH,
    RES,
    assert_equal,
    assert_gradients_agree,
    pairs,
    reload,
    run_on_the_loop,
    run_phase,
    run_steps,
    weights,
)

UNET = UnetGeneratorConfig(3, 3, 4, 5, "batch", True)
RESNET = ResnetGeneratorConfig(3, 3, 4, 2, "instance", True)
NOISY = ResnetGeneratorConfig(3, 3, 4, 2, "batch", True)  # a U-Net of 5 levels has no place for dropout
FOREVER = Pix2PixConfig(0, 0)


def make_task(G=UNET, *, weight=10.0, norm="instance", guide=16, config=FOREVER, seed=0, group=None, half_dtype=None):
    """A tiny task; weight None is without GGDR."""
    torch.manual_seed(seed)
    G, D = build_network(G), build_network(PatchDiscriminatorConfig(6, 4, 2, norm))
    for net in (G, D):
        init_weights(net, torch.Generator().manual_seed(seed))
    settings = {} if weight is None else {"ggdr": GGDRSettings((guide,), weight)}
    regularizers = build_regularizers(pix2pix_attachment(G, D, RES), settings)
    return Pix2PixTask(G, D, config, regularizers=regularizers, seed=seed, group=group, half_dtype=half_dtype)


@pytest.mark.parametrize("G", [UNET, RESNET], ids=repr)
def test_the_discriminator_step_leaves_the_generator_without_gradient_and_the_other_way_round(G):
    task = make_task(G)
    grads, _ = run_phase(task, "D")
    assert all(g is None for g in grads["G"]) and all(g is not None for g in grads["D"])
    decoder = list(task.regularizers[""].parameters())
    assert decoder and all(p.grad.abs().sum() > 0 for p in decoder)
    for p in [*task.D.parameters(), *decoder]:
        p.grad = None
    grads, _ = run_phase(task, "G")
    assert all(g is not None for g in grads["G"]) and all(g is None for g in grads["D"])
    assert all(p.grad is None for p in decoder)


@pytest.mark.parametrize(
    ("settings", "terms", "passes_of_D"),
    [
        ({"gan_weight": 0.5}, {"G_gan", "G_l1"}, 1),
        ({"gan_weight": 0}, {"G_l1"}, 0),
        ({"l1_weight": 0}, {"G_gan"}, 1),
    ],
)
def test_terms_of_weight_0_are_not_computed(settings, terms, passes_of_D):
    task, calls = make_task(weight=None, config=Pix2PixConfig(0, 0, **settings)), []
    task.D.register_forward_hook(lambda *args: calls.append(1))
    phase, batch = task.phases[1], pairs()
    draws = phase.draw(len(batch["A"]), 1)
    out = phase.losses(batch, draws)
    assert set(phase.terms) == terms == set(out.losses) and len(calls) == passes_of_D
    if settings.get("gan_weight") == 0.5:
        fake = task.G(batch["A"], draws["seeds"])
        expected = LOGIT_LOSSES["cross_entropy"](judge(task.D, batch["A"], fake), True) / 2
        torch.testing.assert_close(out.losses["G_gan"], expected)


def test_without_a_loss_there_is_nothing_to_learn():
    with pytest.raises(ValueError, match="all of G's losses are 0"):
        Pix2PixConfig(0, 0, gan_weight=0, l1_weight=0)


def test_the_losses_are_those_of_the_paper():
    task = make_task(weight=None, config=Pix2PixConfig(0, 0, l1_weight=7.0))
    batch, seeds = pairs(), torch.arange(BATCH)
    fake = task.G(batch["A"], seeds)
    fake_logits, real_logits = (task.D(torch.cat([batch["A"], b], dim=1)) for b in (fake, batch["B"]))
    softplus = nn.functional.softplus
    out = task._D_losses(batch, {"seeds": seeds})
    torch.testing.assert_close(out.losses["D_fake"], softplus(fake_logits).mean(dim=[1, 2, 3]) / 2)
    torch.testing.assert_close(out.losses["D_real"], softplus(-real_logits).mean(dim=[1, 2, 3]) / 2)
    torch.testing.assert_close(out.observed["score/real"], real_logits.mean(dim=[1, 2, 3]))
    out = task._G_losses(batch, {"seeds": seeds})
    torch.testing.assert_close(out.losses["G_gan"], softplus(-fake_logits).mean(dim=[1, 2, 3]))
    torch.testing.assert_close(out.losses["G_l1"], 7 * (fake - batch["B"]).abs().mean(dim=[1, 2, 3]))
    torch.testing.assert_close(out.observed["l1"], out.losses["G_l1"] / 7)
    squares = make_task(weight=None, config=Pix2PixConfig(0, 0, gan_loss="least_squares"))
    out = squares._D_losses(batch, {"seeds": seeds})
    torch.testing.assert_close(out.losses["D_fake"], fake_logits.square().mean(dim=[1, 2, 3]) / 2)


@pytest.mark.parametrize(("norm", "sizes"), [("instance", [2 * BATCH]), ("batch", [BATCH, BATCH])])
def test_d_sees_fakes_and_reals_in_one_pass_unless_it_has_batch_norms(norm, sizes, monkeypatch):
    task, other, seen = make_task(norm=norm), make_task(norm=norm), []
    task.D.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    got, of_one = run_phase(task, "D")
    monkeypatch.setattr(host, "has_batch_norms", lambda net: True)
    expected, of_two = run_phase(other, "D")
    assert seen == sizes and of_one == pytest.approx(of_two, rel=1e-4)
    assert_gradients_agree(got["D"], expected["D"])


def test_with_weight_0_ggdr_measures_and_changes_nothing_in_d():
    plain, probe = make_task(weight=None), make_task(weight=0.0)
    expected, got = run_phase(plain, "D")[0]["D"], run_phase(probe, "D")
    assert all(torch.equal(a, b) for a, b in zip(expected, got[0]["D"], strict=True))
    assert 0 < got[1]["ggdr/distance"] < 2
    taught = run_phase(make_task(weight=10.0), "D")[0]["D"]
    assert not all(torch.equal(a, b) for a, b in zip(expected, taught, strict=True))


@pytest.mark.parametrize("G", [UNET, RESNET, UnetGeneratorConfig(3, 3, 2, 5, "instance", False)], ids=repr)
def test_ggdr_takes_every_guide_that_is_larger_than_the_smallest_map_of_d(G):
    guides = guide_layers(build_network(G), RES)
    assert list(guides) == ([16, 8, 4, 2] if isinstance(G, UnetGeneratorConfig) else [8, 16, 32])
    for res in guides:
        if res > 8:
            task = make_task(G, guide=res)
            feats = run_phase(task, "D")[1]
            assert 0 < feats["ggdr/distance"] < 2
    net, img, seen = build_network(G).eval(), torch.randn(1, 3, RES, RES), {}
    for res, name in guides.items():
        net.get_submodule(name).register_forward_hook(lambda m, i, out, res=res: seen.update({res: out.shape[2:]}))
    net(img)
    assert seen == {res: (res, res) for res in guides}


def test_ggdr_says_what_it_cannot_attach_to():
    G = build_network(UNET)
    with pytest.raises(ValueError, match="a patch discriminator, got PixelDiscriminator"):
        pix2pix_attachment(G, build_network(PixelDiscriminatorConfig(6, 4)), RES)
    with pytest.raises(ValueError, match="side is a multiple of 32 for this generator, got 48"):
        pix2pix_attachment(G, build_network(PatchDiscriminatorConfig(6, 4)), 48)
    assert pix2pix_attachment(build_network(RESNET), build_network(PatchDiscriminatorConfig(6, 4)), 48).encoder == [
        "model.1", "model.4", "model.7",
    ]  # fmt: skip


def test_rounds_do_not_change_the_gradient():
    for name in "DG":
        # Instance norms see one image each; batch norms would see the share of a round.
        whole, split = (run_phase(make_task(RESNET), name, rounds)[0][name] for rounds in (1, 4))
        assert_gradients_agree(whole, split)


@pytest.mark.parametrize("weight", [None, 10.0])
def test_a_resumed_task_goes_on_exactly(weight):
    config = Pix2PixConfig(8, 40)
    whole = make_task(NOISY, weight=weight, norm="batch", config=config)
    run_steps(whole, 0, 6)
    first = make_task(NOISY, weight=weight, norm="batch", config=config)
    run_steps(first, 0, 3)
    second = make_task(NOISY, weight=weight, norm="batch", config=config, seed=7)
    reload(second, first.state())
    run_steps(second, 3, 3)
    assert_equal(weights(second), weights(whole))


def test_a_state_of_another_network_is_refused():
    state = copy.deepcopy(make_task().state())
    moments = make_task()
    run_steps(moments, 0, 1)
    state["optimizers"] = copy.deepcopy(moments.state()["optimizers"])
    state["optimizers"][0]["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match="exp_avg of an optimiser is not of the shape"):
        make_task().load_state(state)


def test_the_rate_is_constant_and_then_falls_to_zero():
    config = Pix2PixConfig(100, 100, lr=0.01)
    assert [config.rate(n) for n in (0, 100, 150, 200, 300)] == pytest.approx([0.01, 0.01, 0.005, 0, 0])
    assert Pix2PixConfig(0, 0, lr=0.01).rate(10**9) == 0.01
    task = make_task(config=config)
    assert task.step_end(175, 1) == {"rate": pytest.approx(0.0025)}
    rates = [g["lr"] for phase in task.phases for g in phase.optimizer.param_groups]
    assert rates == pytest.approx([0.0025, 0.0025])
    before = weights(task)
    task.step_end(200, 1)
    run_phase(task, "G")
    after = weights(task)
    assert all(torch.equal(after[name], before[name]) for name in after if "running" not in name and "num" not in name)


def test_it_learns_to_translate():
    task = make_task(UnetGeneratorConfig(3, 3, 8, 5), norm="batch", config=Pix2PixConfig(0, 0, lr=2e-3))
    batch = pairs(8, seed=99)

    def distance():
        return (task.translate(batch["A"]) - batch["B"]).abs().mean().item()

    before = distance()
    run_steps(task, 0, 60)
    assert distance() < 0.7 * before


def test_its_run_on_the_loop_reports_what_it_declares():
    task = make_task(config=Pix2PixConfig(8, 8))
    log = run_on_the_loop(task)
    names = {panel.name for panel in task.panels}
    assert names == {"score/real", "score/fake", "l1", "ggdr/distance", "rate"} and names < log[16].keys()
    assert log[16]["rate"] == 0


def test_translated_images_do_not_depend_on_each_other_and_leave_no_trace():
    task = make_task(NOISY)
    run_steps(task, 0, 2)
    before, img = weights(task), pairs(3)["A"]
    out = task.translate(img, seed=4)
    assert out.shape == img.shape and out.abs().max() <= 1
    torch.testing.assert_close(task.translate(img[1:2], seed=5), out[1:2])
    assert not torch.equal(task.translate(img, seed=9), out)
    assert_equal(weights(task), before)
    assert task.G.training and all(m.track_running_stats for m in task.G.modules() if isinstance(m, nn.BatchNorm2d))


def test_batch_statistics_end_with_the_block():
    norm = nn.BatchNorm2d(2).eval()
    x = torch.randn(3, 2, 4, 4) * 5 + 3
    with pytest.raises(RuntimeError), batch_statistics(norm):
        y = norm(x)
        raise RuntimeError
    assert abs(y.mean()) < 1e-5 and abs(y.std() - 1) < 0.05
    assert not norm.training and norm.track_running_stats and norm.running_mean.abs().sum() == 0
    torch.testing.assert_close(norm(x), x, rtol=1e-4, atol=1e-4)


def test_d_sees_input_and_output_in_this_order():
    seen = []
    judge(lambda x: seen.append(x), torch.zeros(1, 2, 4, 4), torch.ones(1, 3, 4, 4))
    assert seen[0].mean(dim=[0, 2, 3]).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan_loss": "hinge"}, "gan_loss must be one of cross_entropy, least_squares, got 'hinge'"),
        ({"constant_nimg": -1}, "constant_nimg must be a whole number from 0 up, got -1"),
        ({"falling_nimg": 1.5}, "falling_nimg must be a whole number from 0 up, got 1.5"),
        ({"l1_weight": float("nan")}, "l1_weight must be a number from 0 to below 1e.30, got nan"),
        ({"beta1": 1}, "beta1 must be a number from 0 to below 1, got 1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Pix2PixConfig(**{"constant_nimg": 1, "falling_nimg": 1, **settings})
