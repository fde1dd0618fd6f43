# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What all models of label maps do alike: phases, moving average, resuming, GGDR, results."""

from __future__ import annotations

import pytest
import torch

from tests.translation.hosts import (
    RES,
    assert_equal,
    assert_gradients_agree,
    reload,
    run_on_the_loop,
    run_phase,
    run_steps,
    weights,
)
from tests.translation.layout_hosts import MODELS, layouts, make_networks, make_task, of_seed

pytestmark = pytest.mark.parametrize("model", MODELS)


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (21, 9), (3, 5)], ids=repr)
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_images_have_the_size_of_their_label_maps(model, norm, size):
    G, _ = make_networks(model, norm)
    out = G.eval()(torch.rand(2, 3, *size).round(), torch.randn(2, 5, 1, 1))
    assert out.shape == (2, 3, *size) and out.abs().max() <= 1


def test_the_generator_sees_classes_and_noise_where_they_are(model):
    G = make_networks(model)[0].eval()
    layout, noise = layouts(1)["A"], torch.zeros(1, 5, RES, RES)
    plain = G(layout, noise)
    for name in ("layout", "noise"):
        a, b = layout.clone(), noise.clone()
        changed = a if name == "layout" else b
        changed[:, :, 24:, 24:] += 1
        # What the smallest maps see is the whole image.
        change = (G(a, b) - plain).abs().sum(dim=1)[0]
        assert change[24:, 24:].mean() > 2 * change[:16, :16].mean() > 0, name


def test_the_discriminator_step_leaves_the_generator_without_gradient_and_the_other_way_round(model):
    task = make_task(model)
    grads, _ = run_phase(task, "D", batch=layouts())
    assert all(g is None for g in grads["G"]) and all(g.abs().sum() > 0 for g in grads["D"])
    decoder = list(task.regularizers[""].parameters())
    assert decoder and all(p.grad.abs().sum() > 0 for p in decoder)
    for p in [*task.D.parameters(), *decoder]:
        p.grad = None
    grads, _ = run_phase(task, "G", batch=layouts())
    assert all(g.abs().sum() > 0 for g in grads["G"]) and all(g is None for g in grads["D"] + grads["G_ema"])


def test_d_learns_four_times_as_fast_and_both_rates_fall(model):
    task = make_task(model, config=MODELS[model].config(100, 100, lr=0.01))
    task.step_end(150, 50)
    rates = {phase.name: phase.optimizer.param_groups[0]["lr"] for phase in task.phases}
    assert rates == {"D": pytest.approx(0.02), "G": pytest.approx(0.005)}
    assert [phase.optimizer.param_groups[0]["betas"] for phase in task.phases] == [(0.0, 0.999)] * 2


@pytest.mark.parametrize("guide", [8, 16, 32])
def test_ggdr_takes_every_guide_that_is_larger_than_the_smallest_map_of_d(model, guide):
    probe = run_phase(make_task(model, weight=0.0, guide=guide), "D", batch=layouts())
    plain = run_phase(make_task(model, weight=None), "D", batch=layouts())
    assert 0 < probe[1]["ggdr/distance"] < 2
    assert_gradients_agree(probe[0]["D"], plain[0]["D"])
    taught = run_phase(make_task(model, weight=10.0, guide=guide), "D", batch=layouts())[0]["D"]
    assert not all(torch.allclose(a, b) for a, b in zip(taught, plain[0]["D"], strict=True))


def test_guides_are_the_blocks_by_the_size_of_their_maps(model):
    G, D = make_networks(model)
    attachment, seen = MODELS[model].attachment(G, D, RES), {}
    for res, name in attachment.guides.items():
        G.get_submodule(name).register_forward_hook(lambda m, i, out, res=res: seen.update({res: out.shape[2:]}))
    G(layouts(1)["A"], torch.zeros(1, 5, 1, 1))
    assert seen == {res: (res, res) for res in (4, 8, 16, 32)}
    with pytest.raises(ValueError, match="side is a multiple of 8 for this generator, got 36"):
        MODELS[model].attachment(G, D, 36)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_resumed_task_goes_on_exactly(model, norm):
    config = MODELS[model].config(8, 40)
    whole = make_task(model, norm=norm, config=config)
    run_steps(whole, 0, 4, of_seed)
    first = make_task(model, norm=norm, config=config)
    run_steps(first, 0, 2, of_seed)
    second = make_task(model, norm=norm, config=config, seed=7)
    reload(second, first.state())
    assert not second.G_ema.training and second.G.training
    run_steps(second, 2, 2, of_seed)
    assert_equal(weights(second), weights(whole))


def test_the_moving_average_follows_the_generator(model):
    task = make_task(model, config=MODELS[model].config(0, 0, lr=1e-2))
    start = {name: x.clone() for name, x in task.G.state_dict().items()}
    run_steps(task, 0, 3, of_seed)
    weight, first, average = (net["last.1.weight"] for net in (task.G.state_dict(), start, task.G_ema.state_dict()))
    assert 0 < (average - weight).norm() < (first - weight).norm()
    buffers = dict(task.G.named_buffers())
    assert buffers and all(torch.equal(x, buffers[name]) for name, x in task.G_ema.named_buffers())


def test_its_run_on_the_loop_reports_what_it_declares(model):
    task = make_task(model)
    log = run_on_the_loop(task, of_seed)
    names = {panel.name for panel in task.panels}
    assert {"ggdr/distance", "rate"} < names < log[16].keys()


def test_in_half_precision_the_losses_are_nearly_those_of_float32(model):
    # The seed is the same, so that noise and coins are.
    half, full = (run_phase(make_task(model, half_dtype=x), "D", batch=layouts())[1] for x in (torch.bfloat16, None))
    for name in ("loss_term/D_real", "loss_term/D_fake", "loss_term/ggdr"):
        assert half[name] == pytest.approx(full[name], rel=0.05), name


def test_it_learns_to_make_images_of_the_classes(model):
    task = make_task(model, weight=None, config=MODELS[model].config(0, 0, lr=4e-3))
    batch = layouts(8, seed=99)

    def distance():
        known = batch["A"].sum(dim=1, keepdim=True)
        return ((task.translate(batch["A"]) - batch["B"]).abs() * known).mean().item()

    before = distance()
    run_steps(task, 0, 40, of_seed)
    assert distance() < 0.7 * before


def test_results_do_not_depend_on_each_other_and_leave_no_trace(model):
    task = make_task(model)
    run_steps(task, 0, 1, of_seed)
    before, layout = weights(task), layouts(3)["A"]
    out = task.translate(layout, seed=4)
    torch.testing.assert_close(task.translate(layout[1:2], seed=5), out[1:2])
    assert not torch.equal(task.translate(layout, seed=9), out)
    assert_equal(weights(task), before)


def test_each_kind_of_noise_gives_other_results_by_seed(model):
    G, layout, results = make_networks(model)[0].eval(), layouts(1)["A"], []
    translator = MODELS[model].task.translator(G, make_task(model).labels)
    assert translator.is_random and translator.noise == {"oasis": "image", "cc-fpse": "pixel"}[model]
    for noise in ("image", "class", "pixel"):
        translator.noise = noise
        results += [translator(layout, seed=seed) for seed in (0, 1)]
    assert len(torch.stack(results).flatten(1).unique(dim=0)) == 6
