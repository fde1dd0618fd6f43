# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Losses, phases, pools and iterations of CycleGAN with GGDR."""

from __future__ import annotations

import pytest
import torch

from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.torch_utils.regularizers import Regularizers
from ggdr.translation import cyclegan, host
from ggdr.translation.config import CycleGANConfig, PatchDiscriminatorConfig, ResnetGeneratorConfig
from ggdr.translation.cyclegan import CycleGANTask, cyclegan_attachments
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network
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

RESNET = ResnetGeneratorConfig(3, 3, 4, 1)
NOISY = ResnetGeneratorConfig(3, 3, 4, 1, dropout=True)


def make_networks(G=RESNET, norm="instance", seed=0):
    nets = [build_network(config) for config in (G, G, *[PatchDiscriminatorConfig(3, 4, 2, norm)] * 2)]
    rng = torch.Generator().manual_seed(seed)
    for net in nets:
        init_weights(net, rng)
    return nets


def make_task(G=RESNET, *, weight=10.0, norm="instance", pool=0, seed=0, group=None, half_dtype=None, **settings):
    """A tiny task; weight None is without GGDR."""
    torch.manual_seed(seed)
    nets = make_networks(G, norm, seed)
    ggdr = {} if weight is None else {"ggdr": GGDRSettings((16,), weight)}
    sides = {side: build_regularizers(x, ggdr) for side, x in cyclegan_attachments(*nets, RES).items()}
    config = CycleGANConfig(**{"constant_nimg": 0, "falling_nimg": 0, "pool_size": pool, **settings})
    return CycleGANTask(*nets, config, regularizers=sides, seed=seed, group=group, half_dtype=half_dtype)


def draws_of(task, name):
    return next(phase for phase in task.phases if phase.name == name).draw(BATCH, 1)


def all_swapped(task, side, value):
    """Fills a pool with images of one value; draws in which all of them come out, in another order."""
    pool = task.pools[side]
    pool.load_state({"images": torch.full([BATCH, 3, RES, RES], value), "rng": pool.rng.get_state()})
    draws = draws_of(task, f"D_{side}")
    draws["pool"]["slot"].copy_(torch.arange(BATCH).flip(0))
    draws["pool"]["swap"].fill_(True)
    return draws


@pytest.mark.parametrize("side", "AB")
def test_the_losses_are_those_of_the_paper(side):
    other = {"A": "B", "B": "A"}[side]
    weights_of_cycles = {"A": 7.0, "B": 2.0}
    settings = {f"cycle_weight_{name}": weight for name, weight in weights_of_cycles.items()}
    task, batch = make_task(weight=None, gan_weight=0.5, identity_weight=3.0, **settings), pairs()
    nets = task.networks
    fake = nets[f"G_{side}"](batch[side])
    fake_logits, real_logits = (nets[f"D_{side}"](x) for x in (fake, batch[other]))
    out = task._D_losses(side, batch, draws_of(task, f"D_{side}"))
    torch.testing.assert_close(out.losses[f"D_{side}_fake"], fake_logits.square().mean(dim=[1, 2, 3]) / 2)
    torch.testing.assert_close(out.losses[f"D_{side}_real"], (real_logits - 1).square().mean(dim=[1, 2, 3]) / 2)
    torch.testing.assert_close(out.observed[f"score_{side}/real"], real_logits.mean(dim=[1, 2, 3]))
    out = task._G_losses(batch, draws_of(task, "G"))
    cycle = (nets[f"G_{other}"](fake) - batch[side]).abs().mean(dim=[1, 2, 3])
    identity = (nets[f"G_{side}"](batch[other]) - batch[other]).abs().mean(dim=[1, 2, 3])
    torch.testing.assert_close(out.losses[f"gan_{side}"], (fake_logits - 1).square().mean(dim=[1, 2, 3]) / 2)
    torch.testing.assert_close(out.losses[f"cycle_{side}"], weights_of_cycles[side] * cycle)
    torch.testing.assert_close(out.observed[f"cycle/{side}"], cycle)
    torch.testing.assert_close(out.losses[f"identity_{side}"], 3 * identity)
    torch.testing.assert_close(out.observed[f"identity/{side}"], identity)
    assert len(out.losses) == 6


@pytest.mark.parametrize(
    ("settings", "terms", "passes"),
    [
        ({"identity_weight": 0}, {"gan_A", "gan_B", "cycle_A", "cycle_B"}, {"G_A": 2, "G_B": 2, "D_A": 1, "D_B": 1}),
        (
            {"identity_weight": 0, "cycle_weight_B": 0},
            {"gan_A", "gan_B", "cycle_A"},
            {"G_A": 1, "G_B": 2, "D_A": 1, "D_B": 1},
        ),
        ({"identity_weight": 0, "cycle_weight_A": 0, "gan_weight": 0}, {"cycle_B"}, {"G_A": 1, "G_B": 1}),
        (
            {"cycle_weight_A": 0, "cycle_weight_B": 0, "gan_weight": 0},
            {"identity_A", "identity_B"},
            {"G_A": 1, "G_B": 1},
        ),
    ],
)
def test_terms_of_weight_0_are_not_computed(settings, terms, passes):
    task, calls = make_task(weight=None, **settings), []
    for name, net in task.networks.items():
        net.register_forward_hook(lambda module, args, out, name=name: calls.append(name))
    out = task._G_losses(pairs(), draws_of(task, "G"))
    assert set(task.phases[-1].terms) == terms == set(out.losses)
    assert {name: calls.count(name) for name in set(calls)} == passes
    reported = {panel.name for panel in task.panels if panel.name.startswith(("cycle", "identity", "loss_term"))}
    shown = {term.replace("_", "/") for term in terms if not term.startswith("gan")}
    assert reported == shown | {f"loss_term/{term}" for term in terms if term.startswith("gan")}
    assert set(out.observed) == shown
    run_steps(task, 0, 2)  # D learns all the same


def test_losses_that_cannot_be_are_refused():
    weights = dict.fromkeys(("gan_weight", "cycle_weight_A", "cycle_weight_B", "identity_weight"), 0.0)
    with pytest.raises(ValueError, match="all of G's losses are 0"):
        CycleGANConfig(0, 0, **weights)
    nets = make_networks()
    nets[:2] = [build_network(ResnetGeneratorConfig(*channels, 4, 1)) for channels in ((1, 3), (3, 1))]
    with pytest.raises(ValueError, match="identity_weight must be 0 where A has 1 channels and B 3"):
        CycleGANTask(*nets, CycleGANConfig(0, 0))
    CycleGANTask(*nets, CycleGANConfig(0, 0, identity_weight=0))


def test_each_phase_trains_its_networks_alone():
    for name, trained in {"D_A": {"D_A"}, "D_B": {"D_B"}, "G": {"G_A", "G_B"}}.items():
        task = make_task()
        grads, _ = run_phase(task, name)
        assert {net for net, found in grads.items() if any(g is not None for g in found)} == trained
        assert all(g is not None for net in trained for g in grads[net])
        for side in "AB":
            decoder = list(task.regularizers[side].parameters())
            assert decoder and all((p.grad is not None) == (name == f"D_{side}") for p in decoder)


def test_d_learns_from_the_pool_and_ggdr_from_the_new_fake():
    task, batch = make_task(pool=BATCH), pairs()
    draws, seen = all_swapped(task, "B", 0.5), []
    handle = task.D["B"].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    out = task._D_losses("B", batch, draws)
    handle.remove()
    fake = task.G["B"](batch["B"]).detach()
    assert len(seen) == 2
    shown = torch.cat([torch.full_like(fake, 0.5), batch["A"]])
    assert torch.equal(seen[0][0], fake) and torch.equal(seen[1][0], shown)
    torch.testing.assert_close(out.losses["D_B_fake"], seen[1][1][:BATCH].square().mean(dim=[1, 2, 3]) / 2)
    ggdr = task.regularizers["B"].by_name["ggdr"]
    with ggdr.watch() as feats:
        task.D["B"](task.G["B"](batch["B"]).detach())
    torch.testing.assert_close(out.losses["ggdr_B"], ggdr.penalty(feats))
    task.pools["B"].step_end()
    assert torch.equal(task.pools["B"].images, fake.flip(0))


@pytest.mark.parametrize(("norm", "expected"), [("instance", [1, 1, 1, 2]), ("batch", [2, 2, 2, 3])])
def test_d_runs_on_new_fakes_once_more_only_for_a_regulariser_and_only_beside_older_ones(norm, expected):
    calls = []
    for weight in (None, 10.0):
        for swapped in (False, True):
            task = make_task(weight=weight, pool=BATCH, norm=norm)
            draws = all_swapped(task, "A", 0.5) if swapped else draws_of(task, "D_A")
            task.D["A"].register_forward_hook(lambda module, args, out: calls.append((weight, swapped)))  # noqa: B023
            task._D_losses("A", pairs(), draws)
    counts = [calls.count((weight, swapped)) for weight in (None, 10.0) for swapped in (False, True)]
    assert counts == expected


def test_one_pass_over_images_of_both_kinds_gives_what_two_give(monkeypatch):
    joint, separate = make_task(NOISY), make_task(NOISY)
    calls = []
    for task in (joint, separate):
        for name in ("G_A", "D_A"):
            hook = lambda module, args, out, key=(task, name): calls.append(key)  # noqa: E731
            task.networks[name].register_forward_hook(hook)
    for phase in ("D_A", "G"):
        a, of_joint = run_phase(joint, phase)
        with monkeypatch.context() as patch:
            for module in (cyclegan, host):
                patch.setattr(module, "has_batch_norms", lambda net: True)
            b, of_separate = run_phase(separate, phase)
        for net in a:
            if any(grad is not None for grad in a[net]):
                assert_gradients_agree(a[net], b[net])
        assert of_joint == pytest.approx(of_separate, rel=1e-4)
    # A fake and D's step; the fake with the identity, and the way back of the other side.
    assert [calls.count((joint, name)) for name in ("G_A", "D_A")] == [3, 2]
    assert [calls.count((separate, name)) for name in ("G_A", "D_A")] == [4, 3]


def test_batch_norms_see_the_images_of_one_kind_alone():
    task, seen = make_task(ResnetGeneratorConfig(3, 3, 4, 1, "batch"), norm="batch"), []
    for name in ("G_A", "D_A"):
        task.networks[name].register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    for name in ("D_A", "G"):
        run_phase(task, name)
    assert seen == [BATCH] * 7


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_with_weight_0_ggdr_measures_and_changes_nothing_in_d(norm):
    def run(weight):
        task = make_task(weight=weight, pool=3, norm=norm)
        run_steps(task, 0, 3)
        return {name: value for name, value in weights(task).items() if not name.startswith("ggdr")}

    plain = run(None)
    assert_equal(run(0.0), plain)
    taught = run(10.0)
    assert not any(torch.equal(taught[f"D_{side}.model.2.weight"], plain[f"D_{side}.model.2.weight"]) for side in "AB")


def test_attaching_leaves_the_networks_and_their_names_alone():
    plain, attached = make_task(weight=None), make_task()
    assert_equal({name: v for name, v in weights(attached).items() if "ggdr" not in name}, weights(plain))
    states, configs = attached.snapshot()
    assert configs.pop("domains") == ["A", "B"]
    assert list(configs) == list(plain.snapshot()[0]) == ["G_A", "G_B", "D_A", "D_B"]
    assert list(states) == [*configs, "ggdr_A", "ggdr_B"]
    other = make_task(seed=3)
    other.load_networks(states)
    assert_equal(weights(other), weights(attached))


@pytest.mark.parametrize("weight", [None, 10.0])
def test_a_resumed_task_goes_on_exactly(weight):
    settings = {"weight": weight, "pool": 6, "norm": "batch", "constant_nimg": 8, "falling_nimg": 40}
    whole, first = make_task(NOISY, **settings), make_task(NOISY, **settings)
    run_steps(whole, 0, 6)
    run_steps(first, 0, 3)
    assert [len(pool) for pool in first.pools.values()] == [6, 6]
    second = make_task(NOISY, seed=7, **settings)
    reload(second, first.state())
    run_steps(second, 3, 3)
    assert_equal(weights(second), weights(whole))
    for side in "AB":
        assert torch.equal(second.pools[side].images, whole.pools[side].images)
        assert not torch.equal(first.pools[side].images, whole.pools[side].images)


def test_the_pools_of_the_sides_are_drawn_from_independently():
    task = make_task(weight=None, pool=20)
    first, second = ([pool.rng.initial_seed() for pool in make_task(seed=s).pools.values()] for s in (0, 1))
    assert len({*first, *second}) == 4 and [pool.rng.initial_seed() for pool in task.pools.values()] == first


def test_rounds_do_not_change_the_gradient():
    for name, nets in {"D_A": ["D_A"], "G": ["G_A", "G_B"]}.items():
        whole, split = (run_phase(make_task(), name, rounds)[0] for rounds in (1, 4))
        for net in nets:
            assert_gradients_agree(whole[net], split[net])


def test_its_run_on_the_loop_reports_what_it_declares():
    task = make_task(pool=2, constant_nimg=8, falling_nimg=8)
    log = run_on_the_loop(task)
    names = {panel.name for panel in task.panels}
    assert len(names) == len(task.panels) == 13 and {"cycle/A", "score_B/fake", "ggdr_A/distance"} < names
    assert names < log[16].keys() and log[16]["rate"] == 0
    assert {panel.label for panel in task.panels if panel.name.startswith("ggdr")} == {"ggdr_A", "ggdr_B"}


def test_it_learns_to_translate_there_and_back():
    task = make_task(ResnetGeneratorConfig(3, 3, 8, 1), lr=2e-3)
    img = pairs(seed=99)["A"]

    def distance():
        there = task.translate(img, "A")
        return (task.translate(there, "B") - img).abs().mean().item()

    before = distance()
    run_steps(task, 0, 60)
    assert distance() < 0.8 * before
    assert task.translate(img[:1], "A").shape == (1, 3, RES, RES)


def test_snapshots_say_what_the_domains_are_called():
    named = CycleGANTask(*make_networks(), CycleGANConfig(0, 0), domains=["horse", "zebra"])
    assert named.snapshot()[1]["domains"] == ["horse", "zebra"]
    for domains, message in (("A", "the names of A and B"), ("AA", "a name of its own"), (["A", ""], "a name of its")):
        with pytest.raises(ValueError, match=f"domains: expected {message}"):
            CycleGANTask(*make_networks(), CycleGANConfig(0, 0), domains=domains)


def test_a_regulariser_may_not_be_called_as_a_network():
    class Named:
        name, parameters = "D", staticmethod(lambda: [])

    with pytest.raises(ValueError, match="regulariser 'D'"):
        CycleGANTask(*make_networks(), CycleGANConfig(0, 0), regularizers={"A": Regularizers([Named()])})


def test_a_pool_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="pool_size must be a whole number from 0 up, got -1"):
        CycleGANConfig(0, 0, pool_size=-1)
