# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks, phases and iterations of OASIS with GGDR."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.torch_utils.data.label_maps import IGNORED, numbered_classes
from ggdr.translation.label_maps import one_hot
from ggdr.translation.layout_config import OASISConfig, OASISDiscriminatorConfig, OASISGeneratorConfig
from ggdr.translation.layout_losses import class_weights, labelmix_mask, mixture
from ggdr.translation.networks import build_network
from ggdr.translation.oasis import OASISTask, oasis_attachment
from ggdr.translation.spectral_norm import init_xavier
from ggdr.translation.translator import OASISTranslator
from tests.translation.hosts import (
    BATCH,
    RES,
    assert_equal,
    assert_gradients_agree,
    reload,
    run_on_the_loop,
    run_phase,
    run_steps,
    weights,
)

CLASSES = numbered_classes(3)
FOREVER = OASISConfig(0, 0)


def layouts(n=BATCH, seed=5):
    """Blocks of classes, some of none, and an image in a colour for each."""
    rng = torch.Generator().manual_seed(seed)
    blocks = torch.randint(4, [n, 1, 4, 4], generator=rng)
    numbers = F.interpolate(torch.where(blocks == 3, IGNORED, blocks).float(), RES).to(torch.uint8)
    a = one_hot(numbers, 3)
    return {"A": a, "B": a * 1.6 - 0.8 + 0.05 * torch.randn(a.shape, generator=rng)}


def make_networks(norm="batch", seed=0, channels=4):
    G = build_network(OASISGeneratorConfig(3, 3, channels, 5, 3, norm))
    D = build_network(OASISDiscriminatorConfig(3, 3, channels, 4))
    for net in (G, D):
        init_xavier(net, torch.Generator().manual_seed(seed), gain=0.5)
    return G, D


def make_task(*, weight=10.0, norm="batch", guide=8, config=FOREVER, seed=0, group=None, channels=4, half_dtype=None):
    """A tiny task; weight None is without GGDR."""
    torch.manual_seed(seed)
    G, D = make_networks(norm, seed, channels)
    settings = {} if weight is None else {"ggdr": GGDRSettings((guide,), weight)}
    regularizers = build_regularizers(oasis_attachment(G, D, RES), settings)
    return OASISTask(G, D, config, CLASSES, regularizers=regularizers, seed=seed, group=group, half_dtype=half_dtype)


def phase_of(task, name):
    return next(phase for phase in task.phases if phase.name == name)


def test_networks_have_the_published_widths():
    G, D = build_network(OASISGeneratorConfig()), build_network(OASISDiscriminatorConfig())
    widths = [G.first.out_channels, *(block.conv_1.out_channels for block in G.blocks)]
    assert widths == [1024, 1024, 1024, 512, 256, 128, 64]
    assert [down.conv_1.out_channels for down in D.down] == [128, 128, 256, 256, 512, 512]
    assert [(up.conv_0.in_channels, up.conv_1.out_channels) for up in D.up] == [
        (512, 512), (1024, 256), (512, 256), (512, 128), (256, 128), (256, 64),
    ]  # fmt: skip
    assert D.last.out_channels == 4 and G.blocks[0].norm_0.shared[0].out_channels == 128


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (21, 9), (3, 5)], ids=repr)
def test_images_have_the_size_of_their_label_maps(size):
    G, D = make_networks()
    layout = layouts(2)["A"][:, :, : size[0], : size[1]] if max(size) <= RES else torch.zeros(2, 3, *size)
    out = G.eval()(layout, torch.randn(2, 5, 1, 1))
    assert out.shape == (2, 3, *size) and out.abs().max() <= 1
    if size == (16, 48):
        assert D(out).shape == (2, 4, 16, 48)


def test_d_says_which_sizes_it_takes():
    with pytest.raises(ValueError, match="4 layers takes images whose sides are multiples of 16 pixels, got 24x16"):
        make_networks()[1](torch.zeros(1, 3, 16, 24))


def test_the_generator_sees_classes_and_noise_where_they_are():
    G = make_networks()[0].eval()
    layout, noise = layouts(1)["A"], torch.zeros(1, 5, RES, RES)
    plain = G(layout, noise)
    for name in ("layout", "noise"):
        a, b = layout.clone(), noise.clone()
        changed = a if name == "layout" else b
        changed[:, :, 24:, 24:] += 1
        # What the smallest maps see is the whole image.
        change = (G(a, b) - plain).abs().sum(dim=1)[0]
        assert change[24:, 24:].mean() > 4 * change[:16, :16].mean() > 0, name


def test_the_discriminator_step_leaves_the_generator_without_gradient_and_the_other_way_round():
    task = make_task()
    grads, _ = run_phase(task, "D", batch=layouts())
    assert all(g is None for g in grads["G"]) and all(g.abs().sum() > 0 for g in grads["D"])
    decoder = list(task.regularizers[""].parameters())
    assert decoder and all(p.grad.abs().sum() > 0 for p in decoder)
    for p in [*task.D.parameters(), *decoder]:
        p.grad = None
    grads, _ = run_phase(task, "G", batch=layouts())
    assert all(g.abs().sum() > 0 for g in grads["G"]) and all(g is None for g in grads["D"] + grads["G_ema"])


def test_the_losses_are_those_of_the_paper():
    task, batch = make_task(weight=None, norm="instance", config=OASISConfig(0, 0, labelmix_weight=3.0)), layouts()
    draws = phase_of(task, "D").draw(BATCH, 1)
    draws["coins"] = torch.tensor([1.0, 0, 1, 0]).expand(BATCH, -1)
    for net in (task.G, task.D):
        net.eval()  # so that no pass changes the next one
    out = task._D_losses(batch, draws)
    layout, real, fake = batch["A"], batch["B"], task.G(batch["A"], draws["noise"])
    mask = labelmix_mask(layout, draws["coins"])
    of_real, of_fake, of_mixed = (task.D(x) for x in (real, fake, mixture(mask, real, fake)))
    target = torch.where(layout.sum(dim=1) > 0, layout.argmax(dim=1) + 1, 0)
    table = torch.cat([torch.zeros(1), class_weights(layout.sum(dim=(0, 2, 3)), target.numel())])
    expected = F.cross_entropy(of_real, target, reduction="none") * table[target]
    torch.testing.assert_close(out.losses["D_real"], expected.mean(dim=(1, 2)))
    fakes = F.cross_entropy(of_fake, torch.zeros_like(target), reduction="none").mean(dim=(1, 2))
    torch.testing.assert_close(out.losses["D_fake"], fakes)
    mixed = 3 * (of_mixed - mixture(mask, of_real, of_fake)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(out.losses["D_labelmix"], mixed)
    of_G = F.cross_entropy(of_fake, target, reduction="none") * table[target]
    torch.testing.assert_close(task._G_losses(batch, draws).losses["G_classes"], of_G.mean(dim=(1, 2)))


def test_without_labelmix_d_sees_no_mixed_images():
    task, seen = make_task(weight=None, config=OASISConfig(0, 0, labelmix_weight=0.0)), []
    task.D.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    _, means = run_phase(task, "D", batch=layouts())
    assert seen == [2 * BATCH] and phase_of(task, "D").terms == ("D_fake", "D_real")
    assert "loss_term/D_labelmix" not in means


def test_coins_are_the_same_for_all_images_and_differ_over_steps():
    task = make_task(weight=None)
    draws = [phase_of(task, "D").draw(BATCH, 1) for _ in range(12)]
    assert all((draw["coins"] == draw["coins"][0]).all() and draw["coins"].shape == (BATCH, 4) for draw in draws)
    assert all(0 < sum(draw["coins"][0, i] for draw in draws) < 12 for i in range(4))
    assert len(draws[0]["noise"].unique(dim=0)) == BATCH


def test_d_learns_four_times_as_fast_and_both_rates_fall():
    task = make_task(config=OASISConfig(100, 100, lr=0.01))
    task.step_end(150, 50)
    rates = {phase.name: phase.optimizer.param_groups[0]["lr"] for phase in task.phases}
    assert rates == {"D": pytest.approx(0.02), "G": pytest.approx(0.005)}
    assert [phase.optimizer.param_groups[0]["betas"] for phase in task.phases] == [(0.0, 0.999)] * 2


@pytest.mark.parametrize("guide", [8, 16, 32])
def test_ggdr_takes_every_guide_that_is_larger_than_the_smallest_map_of_d(guide):
    probe = run_phase(make_task(weight=0.0, guide=guide), "D", batch=layouts())
    plain = run_phase(make_task(weight=None), "D", batch=layouts())
    assert 0 < probe[1]["ggdr/distance"] < 2
    assert_gradients_agree(probe[0]["D"], plain[0]["D"])
    taught = run_phase(make_task(weight=10.0, guide=guide), "D", batch=layouts())[0]["D"]
    assert not all(torch.allclose(a, b) for a, b in zip(taught, plain[0]["D"], strict=True))


def test_guides_are_the_blocks_by_the_size_of_their_maps():
    G, D = make_networks()
    attachment, seen = oasis_attachment(G, D, RES), {}
    for res, name in attachment.guides.items():
        G.get_submodule(name).register_forward_hook(lambda m, i, out, res=res: seen.update({res: out.shape[2:]}))
    G(layouts(1)["A"], torch.zeros(1, 5, 1, 1))
    assert seen == {res: (res, res) for res in (4, 8, 16, 32)}
    with pytest.raises(ValueError, match="side is a multiple of 8 for this generator, got 36"):
        oasis_attachment(G, D, 36)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_resumed_task_goes_on_exactly(norm):
    config = OASISConfig(8, 40)
    whole = make_task(norm=norm, config=config)
    run_steps(whole, 0, 6, batches=lambda seed: layouts(seed=seed))
    first = make_task(norm=norm, config=config)
    run_steps(first, 0, 3, batches=lambda seed: layouts(seed=seed))
    second = make_task(norm=norm, config=config, seed=7)
    reload(second, first.state())
    assert not second.G_ema.training and second.G.training
    run_steps(second, 3, 3, batches=lambda seed: layouts(seed=seed))
    assert_equal(weights(second), weights(whole))


def test_the_moving_average_follows_the_generator():
    task = make_task(config=OASISConfig(0, 0, lr=1e-2))
    start = {name: x.clone() for name, x in task.G.state_dict().items()}
    run_steps(task, 0, 3, batches=lambda seed: layouts(seed=seed))
    weight, first, average = (net["last.1.weight"] for net in (task.G.state_dict(), start, task.G_ema.state_dict()))
    assert 0 < (average - weight).norm() < (first - weight).norm()
    assert torch.equal(task.G_ema.blocks[0].conv_0.u, task.G.blocks[0].conv_0.u)


def test_its_run_on_the_loop_reports_what_it_declares():
    task = make_task()
    log = run_on_the_loop(task, batches=lambda seed: layouts(seed=seed))
    names = {panel.name for panel in task.panels}
    assert names == {"pixels/real", "pixels/fake", "pixels/fooled", "ggdr/distance", "rate"} and names < log[16].keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_in_half_precision_the_losses_are_nearly_those_of_float32(dtype):
    # The seed is the same, so that noise and coins are.
    half, full = (run_phase(make_task(half_dtype=x), "D", batch=layouts())[1] for x in (dtype, None))
    for name in ("loss_term/D_real", "loss_term/D_fake", "loss_term/ggdr"):
        assert half[name] == pytest.approx(full[name], rel=0.05), name


def test_it_learns_to_make_what_d_takes_for_the_classes():
    task = make_task(weight=None, config=OASISConfig(0, 0, lr=4e-3))
    batch = layouts(8, seed=99)

    def distance():
        known = batch["A"].sum(dim=1, keepdim=True)
        return ((task.translate(batch["A"]) - batch["B"]).abs() * known).mean().item()

    before = distance()
    run_steps(task, 0, 40, batches=lambda seed: layouts(seed=seed))
    assert distance() < 0.7 * before


def test_translated_maps_do_not_depend_on_each_other_and_leave_no_trace():
    task = make_task()
    run_steps(task, 0, 2, batches=lambda seed: layouts(seed=seed))
    before, layout = weights(task), layouts(3)["A"]
    out = task.translate(layout, seed=4)
    torch.testing.assert_close(task.translate(layout[1:2], seed=5), out[1:2])
    assert not torch.equal(task.translate(layout, seed=9), out)
    assert_equal(weights(task), before)


def test_noise_of_classes_changes_results_by_seed():
    G = make_networks()[0].eval()
    translator, layout = OASISTranslator(G, CLASSES), layouts(1)["A"]
    results = []
    for noise in ("image", "class", "pixel"):
        translator.noise = noise
        results += [translator(layout, seed=seed) for seed in (0, 1)]
    assert translator.is_random and len(torch.stack(results).flatten(1).unique(dim=0)) == 6


def test_looking_at_what_d_sees_leaves_no_trace():
    task = make_task()
    before = weights(task)
    found = task.segment(layouts(10)["B"])
    assert found.shape == (10, 1, RES, RES) and found.dtype == torch.uint8
    assert set(found.unique().tolist()) <= {0, 1, 2, IGNORED}
    assert_equal(weights(task), before)
    assert task.D.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan_loss": "hinge"}, "gan_loss must be one of segmentation, got 'hinge'"),
        ({"labelmix_weight": -1}, "labelmix_weight must be a number from 0 to below"),
        ({"beta1": 1.0}, "beta1 must be a number from 0 to below 1, got 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OASISConfig(0, 0, **settings)
