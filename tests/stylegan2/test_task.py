# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Losses, phases and iterations of StyleGAN2-ADA with GGDR."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from ggdr import GGDR
from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.augment.ada import AdaController
from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig, LossConfig, OptimConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.losses import (
    fake_logistic_loss,
    generator_logistic_loss,
    mix_styles,
    path_lengths,
    r1_penalty,
    real_logistic_loss,
)
from ggdr.stylegan2.task import StyleGAN2Task, freezable_layers
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ema import ema_beta, update_ema
from ggdr.torch_utils.gan import part
from ggdr.torch_utils.loop import LoopConfig, NonFiniteError, PhaseRunner, StatsSum

RES, BATCH = 16, 8


def make_task(*, weight=10.0, ada=True, seed=0, lr=0.002, **loss) -> StyleGAN2Task:
    """A tiny conditional task; weight None is without GGDR."""
    torch.manual_seed(seed)
    size = dict(img_resolution=RES, c_dim=3, channel_base=64, channel_max=8)
    G = Generator(GeneratorConfig(**size, z_dim=8, w_dim=8, mapping_num_layers=2))
    D = Discriminator(DiscriminatorConfig(**size, mbstd_group_size=2))
    with torch.no_grad():
        for block in G.synthesis.blocks:
            block.conv1.noise_strength.fill_(0.3)
    return StyleGAN2Task(
        G,
        D,
        loss=LossConfig(1.0, **loss),
        optim=OptimConfig(lr, D_reg_interval=2, G_reg_interval=2, ema_halflife_kimg=0.05),
        sample_labels=lambda n, rng: torch.eye(3)[torch.randint(3, [n], generator=rng)],
        augment=AugmentPipe(PIPES["bgc"], 0.5) if ada else None,
        ada=AdaController(0.5) if ada else None,
        regularizers=build_regularizers(
            attachment(G, D), {} if weight is None else {"ggdr": GGDRSettings((8,), weight)}
        ),
        seed=seed,
    )


def reals(n=BATCH):
    rng = torch.Generator().manual_seed(5)
    return {"img": torch.rand([n, 3, RES, RES], generator=rng) * 2 - 1, "c": torch.eye(3)[torch.arange(n) % 3]}


def run_phase(task, name, *, rounds=1, step=True):
    """Runs one phase as the loop does; returns its gradients by parameter id."""
    config = LoopConfig(1000, BATCH, BATCH // rounds, 100, 1)
    runner = PhaseRunner(task, config, ProcessGroup(), stats := StatsSum(torch.device("cpu")))
    phase = next(p for p in task.phases if p.name == name)
    runner.run(phase, reals(), 0)
    return {id(p): p.grad.clone() for p in phase.params if p.grad is not None}, stats.means(ProcessGroup())


def grads_of(task, net):
    return [p.grad for p in getattr(task, net).parameters()]


def test_discriminator_step_leaves_generator_without_gradient():
    task = make_task()
    run_phase(task, "D")
    assert all(g is None for g in grads_of(task, "G"))
    assert all(g is not None for g in grads_of(task, "D"))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.regularizers.parameters())


def test_generator_steps_leave_discriminator_and_decoder_without_gradient():
    for name in ("G", "G_pl"):
        task = make_task()
        run_phase(task, name)
        assert all(g is None for g in grads_of(task, "D"))
        assert all(p.grad is None for p in task.regularizers.parameters())
        assert any(g is not None and g.abs().sum() > 0 for g in grads_of(task, "G"))


def test_r1_does_not_reach_decoder_or_generator():
    task = make_task()
    run_phase(task, "D_r1")
    assert all(p.grad is None for p in task.G.parameters())
    assert not any(p.grad.any() for p in task.regularizers.parameters())


def test_weight_zero_leaves_gradients_of_d_as_without_ggdr():
    grads = {}
    for weight in (None, 0.0, 10.0):
        task = make_task(weight=weight)
        run_phase(task, "D")
        grads[weight] = [g.clone() for g in grads_of(task, "D")]
    assert all(torch.equal(a, b) for a, b in zip(grads[None], grads[0.0], strict=True))
    assert not all(torch.allclose(a, b) for a, b in zip(grads[None], grads[10.0], strict=True))


@pytest.mark.parametrize("name", ["G_ema", "D_fake"])
def test_a_regularizer_called_as_a_network_or_a_loss_term_is_refused(name, monkeypatch):
    monkeypatch.setattr(GGDR, "name", name)
    with pytest.raises(ValueError, match=f"regulariser '{name}': the host has networks or loss terms of that name"):
        make_task()


def test_curves_show_what_a_regularizer_reports_under_whatever_name(monkeypatch):
    monkeypatch.setattr(GGDR, "quantity", "angle")
    task = make_task()
    _, reported = run_phase(task, "D")
    assert "ggdr/angle" in reported and "ggdr/angle" in {panel.name for panel in task.panels}


@pytest.mark.parametrize("name", ["G", "G_pl", "D", "D_r1"])
@pytest.mark.parametrize("rounds", [2, 4])
def test_accumulating_gradients_equals_one_large_batch(name, rounds):
    whole_task, parts_task = make_task(), make_task()
    whole, whole_stats = run_phase(whole_task, name)
    parts, parts_stats = run_phase(parts_task, name, rounds=rounds)
    assert whole_stats == pytest.approx(parts_stats, rel=1e-4, abs=1e-6)
    for a, b in zip(whole.values(), parts.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_lazy_phases_count_as_often_as_they_are_skipped():
    task = make_task()
    grads, stats = run_phase(task, "D_r1")
    task = make_task()
    phase = task.phases[-1]
    for p in phase.params:
        p.requires_grad_(True)
    out = phase.losses(reals(), phase.draw(BATCH, 1))
    out.losses["D_r1"].mean().backward()
    for p, grad in zip([p for p in phase.params if p.grad is not None], grads.values(), strict=True):
        torch.testing.assert_close(grad, 2 * p.grad)


def test_lazy_regularisation_scales_rate_and_betas():
    task = make_task(lr=0.003)
    for optimizer in {phase.optimizer for phase in task.phases}:
        group = optimizer.param_groups[0]
        assert group["lr"] == pytest.approx(0.003 * 2 / 3) and group["betas"] == (0.0, 0.99 ** (2 / 3))


def test_without_path_length_there_is_no_such_phase():
    assert [p.name for p in make_task(pl_weight=0).phases] == ["G", "D", "D_r1"]
    assert [p.name for p in make_task().phases] == ["G", "G_pl", "D", "D_r1"]


def test_frozen_layers_keep_their_weights_and_the_rest_learns():
    torch.manual_seed(0)
    D = make_task().D
    names = [name for name, m in D.named_modules() if m in freezable_layers(D)]
    assert names == ["b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip"]
    task = make_task()
    task.optim = OptimConfig(0.002, freeze_d=3)
    task.phases = task._build_phases()
    before = {k: v.clone() for k, v in task.D.named_parameters()}
    run_phase(task, "D")
    changed = {k.rsplit(".", 1)[0] for k, v in task.D.named_parameters() if not torch.equal(v, before[k])}
    assert not changed & {"b16.fromrgb", "b16.conv0", "b16.conv1"}
    assert {"b16.skip", "b8.conv0", "b4.out"} <= changed


def test_a_nan_leaves_weights_and_moments_alone_and_stops_with_phase_and_position():
    task = make_task()
    run_phase(task, "G")
    G_opt = task.phases[0].optimizer
    with torch.no_grad():
        task.D.b4.out.bias.fill_(float("nan"))
    before = copy.deepcopy([list(task.G.parameters()), list(G_opt.state_dict()["state"].values())])
    runner = PhaseRunner(task, LoopConfig(1000, BATCH, BATCH, 100, 1), ProcessGroup(), StatsSum(torch.device("cpu")))
    runner.run(task.phases[0], reals(), 1234)
    with pytest.raises(NonFiniteError, match="loss of phase G became nan in step 154, at 1234 images"):
        runner.check_finite()
    assert all(torch.equal(a, b) for a, b in zip(before[0], task.G.parameters(), strict=True))
    for a, b in zip(before[1], G_opt.state_dict()["state"].values(), strict=True):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) and a["step"] == b["step"]


def test_steps_with_an_overflow_are_left_out_as_often_as_allowed():
    task = make_task()
    config = LoopConfig(1000, BATCH, BATCH, 100, 1, max_skips=2)
    runner = PhaseRunner(task, config, ProcessGroup(), StatsSum(torch.device("cpu")))
    bias = task.D.b4.out.bias.detach()
    for value in (float("inf"), float("inf"), 0, float("inf"), float("inf")):
        bias.fill_(value)
        runner.run(task.phases[0], reals(), 0)
        runner.check_finite()
    runner.run(task.phases[0], reals(), 0)
    with pytest.raises(NonFiniteError):
        runner.check_finite()


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="batch 8 does not split into 1 process"):
        PhaseRunner(make_task(), LoopConfig(1, 8, 3, 1, 1), ProcessGroup(), StatsSum(torch.device("cpu")))


def test_step_end_moves_averages_and_controller():
    task = make_task()
    assert task.augment.p == 0.5
    for name in ("G", "G_pl", "D"):
        _, stats = run_phase(task, name)
    w_mean = task._w_sum / BATCH
    pl_mean = task._pl_sum / task._pl_count
    before = [p.clone() for p in task.G_ema.parameters()]
    assert task.step_end(BATCH, BATCH)["ada/p"] == 0.5  # ADA acts every fourth step
    torch.testing.assert_close(task.G.mapping.w_avg, 0.005 * w_mean)
    torch.testing.assert_close(task.pl_mean, 0.01 * pl_mean)
    beta = ema_beta(BATCH, BATCH, halflife_kimg=0.05, rampup=None)
    for old, new, ema in zip(before, task.G.parameters(), task.G_ema.parameters(), strict=True):
        torch.testing.assert_close(ema, beta * old + (1 - beta) * new)
    task.step_end(2 * BATCH, BATCH)
    torch.testing.assert_close(task.pl_mean, 0.01 * pl_mean)  # no path lengths in this step
    for _ in range(2):
        task.step_end(0, BATCH)
    assert task.augment.p == pytest.approx(0.5 + math.copysign(BATCH * 4 / 500e3, task.ada.mean_sign - 0.6))


def test_an_overflow_in_path_lengths_leaves_their_mean_alone():
    task = make_task()
    run_phase(task, "G_pl")
    task.step_end(BATCH, BATCH)
    before = task.pl_mean.clone()
    run_phase(task, "G_pl")
    task._pl_sum.fill_(float("inf"))
    task.step_end(2 * BATCH, BATCH)
    assert before > 0 and torch.equal(task.pl_mean, before)


def test_the_features_are_warped_by_the_very_draw_of_their_images():
    task = make_task()
    task.augment = AugmentPipe(replace(PIPES["blit"], rotate90=0, xint=0), 1.0)  # flips or not, nothing else
    seen = {}

    def penalty(feats, warp=None, *, fakes):
        seen["warp"], seen["fakes"] = warp, fakes
        return torch.zeros(BATCH)

    class Recorder(torch.nn.Module):
        def forward(self, img, c, *, num_batches):
            seen["img"] = img
            return img.mean(dim=[1, 2, 3])[:, None]

    task.regularizers.by_name["ggdr"].penalty = penalty
    task.regularizers.by_name["ggdr"].watch = nullcontext
    task.D = Recorder()
    phase = next(p for p in task.phases if p.name == "D")
    draws = phase.draw(BATCH, 1)
    img, _ = task._run_G(draws)
    ramp = torch.linspace(-1, 1, 8).expand(BATCH, 1, 8, 8)
    phase.losses(reals(), draws)
    flips = seen["warp"](ramp)[:, 0, 0, 0] > 0
    assert 0 < flips.sum() < BATCH
    expected = torch.where(flips[:, None, None, None], img.flip(3), img)
    assert (seen["img"][seen["fakes"]] - expected).abs().mean() < 0.1 * (img - img.flip(3)).abs().mean()


@pytest.mark.parametrize("name", ["D", "D_r1"])
def test_reals_are_augmented_where_the_discriminator_sees_them(name):
    losses = []
    for p in (0.0, 1.0):
        task = make_task()
        task.augment.p = p
        phase = next(ph for ph in task.phases if ph.name == name)
        losses.append(phase.losses(reals(), phase.draw(BATCH, 1)).losses)
    key = {"D": "D_real", "D_r1": "D_r1"}[name]
    assert not torch.allclose(losses[0][key], losses[1][key])


def test_path_lengths_are_held_to_their_mean():
    task = make_task()
    phase = next(p for p in task.phases if p.name == "G_pl")
    draws = phase.draw(BATCH, 1)
    lengths = phase.losses(reals(), draws).observed["pl/length"]
    task.pl_mean.fill_(lengths[0].item())
    penalty = phase.losses(reals(), draws).losses["G_pl"]
    torch.testing.assert_close(penalty, 2 * (lengths - lengths[0]).square())


def test_state_round_trips_to_the_same_next_step():
    one, two = make_task(seed=1), make_task(seed=2)
    one.ada.load_state({**one.ada.state(), "p": 0.25})
    for name in ("G", "G_pl", "D"):
        run_phase(one, name)
    one.step_end(BATCH, BATCH)
    assert one.pl_mean > 0 and one.augment.p == 0.25
    two.load_state(copy.deepcopy(one.state()))  # as a file would: the optimisers keep what they are given
    for task in (one, two):
        for name in ("G", "G_pl", "D", "D_r1"):
            run_phase(task, name)
        task.step_end(2 * BATCH, BATCH)
    assert two.augment.p == 0.25 and torch.equal(one.pl_mean, two.pl_mean)
    a, b = one.snapshot()[0], two.snapshot()[0]
    for net in a:
        assert all(torch.equal(a[net][k], b[net][k]) for k in a[net]), net


def test_samples_do_not_depend_on_the_batch():
    task = make_task()
    z, c = torch.randn(5, 8), torch.eye(3)[[0, 1, 2, 0, 1]]
    torch.testing.assert_close(task.sample(z, c, batch=2), task.sample(z, c), rtol=1e-4, atol=1e-5)


def test_part_slices_every_tensor_of_a_nest():
    nest = {"a": torch.arange(4), "b": [torch.arange(4) * 2, None], "c": None}
    assert part(nest, slice(1, None, 2))["b"][0].tolist() == [2, 6]
    assert part(nest, slice(0, 1))["a"].tolist() == [0]


def test_logistic_losses_have_their_closed_form_and_direction():
    logits = torch.tensor([[2.0], [-3.0]])
    expected = torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(3))])
    torch.testing.assert_close(generator_logistic_loss(logits), expected)
    torch.testing.assert_close(real_logistic_loss(logits), expected)
    torch.testing.assert_close(fake_logistic_loss(-logits), expected)


def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_weights():
    w = torch.randn(3 * 4 * 4)
    img = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty((img.flatten(1) @ w)[:, None], img, gamma=3.0)
    torch.testing.assert_close(penalty, torch.full([5], 1.5 * w.square().sum().item()))


def test_path_length_of_a_linear_generator_is_the_norm_of_its_jacobian_product():
    J = torch.randn(3 * 4 * 4, 6)
    ws = torch.randn(2, 5, 6, requires_grad=True)
    y = torch.randn(2, 3, 4, 4)
    img = (ws.sum(dim=1) @ J.t()).reshape(2, 3, 4, 4)
    expected = (y.flatten(1) / 4 @ J).norm(dim=1)  # the same for each of the 5 ws, so also their mean
    torch.testing.assert_close(path_lengths(img, ws, y), expected)


def test_style_mixing_takes_the_other_latent_from_the_cutoff_on():
    a, b = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    mixed = mix_styles(a, b, torch.tensor([1, 3, 4]))[:, :, 0]
    assert mixed.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_style_mixing_draws_every_cutoff():
    task = make_task(style_mixing_prob=0.5)
    cutoff = task._draw_latents(2000)["cutoff"]
    assert set(cutoff.tolist()) == set(range(1, task.G.num_ws + 1))
    assert (cutoff < task.G.num_ws).float().mean() == pytest.approx(0.5, abs=0.05)


def test_ema_follows_its_half_life_and_rampup():
    assert ema_beta(1000, 10**9, halflife_kimg=1, rampup=None) == pytest.approx(0.5)
    assert ema_beta(50, 1000, halflife_kimg=1, rampup=0.05) == pytest.approx(0.5)
    assert ema_beta(50, 0, halflife_kimg=1, rampup=0.05) == 0
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.75 * a.weight + 0.25 * b.weight
    update_ema(a, b, 0.75)
    torch.testing.assert_close(a.weight, expected)
