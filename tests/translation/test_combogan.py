# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Losses, phases, domains and iterations of ComboGAN with GGDR."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.torch_utils.regularizers import Regularizers
from ggdr.translation.combogan import ComboGANTask, combogan_attachments
from ggdr.translation.config import ComboGANConfig, ComboGANDiscriminatorConfig, ComboGANGeneratorConfig
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network
from tests.translation.hosts import (
    BATCH,
    RES,
    assert_equal,
    pairs,
    reload,
    run_on_the_loop,
    run_phase,
    run_steps,
    weights,
)

DOMAIN_PAIRS = ((0, 1), (1, 2), (0, 2))


def make_networks(domains=3, shared=(1, 0), seed=0):
    G = build_network(ComboGANGeneratorConfig(3, 4, 1, 1, *shared, domains))
    D = [build_network(ComboGANDiscriminatorConfig(4, 2)) for _ in range(domains)]
    rng = torch.Generator().manual_seed(seed)
    for net in (G, *D):
        init_weights(net, rng)
    return G, D


def make_task(*, weight=10.0, pool=0, seed=0, group=None, half_dtype=None, frozen=(), networks=None, **settings):
    """A tiny task; weight None is without GGDR."""
    torch.manual_seed(seed)
    G, D = networks or make_networks(seed=seed)
    ggdr = {} if weight is None else {"ggdr": GGDRSettings((16,), weight)}
    regularizers = {i: build_regularizers(x, ggdr) for i, x in combogan_attachments(G, D, RES).items()}
    config = ComboGANConfig(**{"constant_nimg": 0, "falling_nimg": 0, "pool_size": pool, **settings})
    return ComboGANTask(
        G, D, config, regularizers=regularizers, seed=seed, group=group, half_dtype=half_dtype, frozen=frozen
    )


def batch_of(a, b, n=BATCH, seed=5):
    numbers = {"domain_A": torch.full([n], a), "domain_B": torch.full([n], b)}
    return {**pairs(n, seed), **numbers}


def batches(seed):
    """Every pair of three domains in turn."""
    return batch_of(*DOMAIN_PAIRS[seed % 3], seed=seed)


def owner(name):
    """Which domain a weight belongs to; None: all."""
    net, *rest = name.split(".")
    return int(net[-1]) if net[-1].isdigit() else int(rest[1]) if rest[0] in ("encoders", "decoders") else None


def judged(maps, target):
    """The published sum over maps of two channels each, by hand for three of them and for two."""
    factors = {2: (1, 3), 3: (1, 2, 4)}[len(maps)]
    terms = [f * (x - target).square().mean(dim=[1, 2, 3]) for f, x in zip(factors, maps, strict=True)]
    return sum(terms) / (sum(factors) * len(maps))


def test_the_losses_are_those_of_the_paper():
    settings = {"cycle_weight": 7.0, "identity_weight": 3.0, "latent_weight": 5.0, "forward_weight": 0.2}
    task = make_task(weight=None, constant_nimg=60, falling_nimg=40, **settings)
    task.step_end(25, 1)
    G, D, batch = task.G, task.D, batch_of(2, 0)
    expected = dict.fromkeys(("D_fake", "D_real", "G_gan", "cycle", "identity", "latent", "forward"), 0)

    def smooth(a, b):
        return F.smooth_l1_loss(a, b, reduction="none").mean(dim=[1, 2, 3])

    for img, real, a, b in ((batch["A"], batch["B"], 2, 0), (batch["B"], batch["A"], 0, 2)):
        code = G.encode(img, a)
        fake = G.decode(code, b)
        pooled = [F.avg_pool2d(x, 3, stride=2) for x in (img, G.decode(code, a), fake)]
        expected["D_fake"] += judged(D[b](fake), 0) / 2
        expected["D_real"] += judged(D[b](real), 1) / 2
        expected["G_gan"] += judged(D[b](fake), 1)
        expected["cycle"] += 7 * smooth(G.decode(G.encode(fake, b), a), img)
        expected["identity"] += 3 * smooth(pooled[1], pooled[0])
        expected["latent"] += 5 * 0.25 * smooth(G.encode(fake, b), code)
        expected["forward"] += 0.2 * smooth(pooled[2], pooled[0])
    D_out = task._D_losses(batch, task.phases[0].draw(BATCH, 1))
    G_out = task._G_losses(batch, None)
    found = {**D_out.losses, **G_out.losses}
    assert found.keys() == expected.keys() == {*task.phases[0].terms, *task.phases[1].terms}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, msg=name)
    torch.testing.assert_close(G_out.observed["cycle/distance"], expected["cycle"] / 14)


def test_terms_of_weight_0_are_left_out():
    task = make_task(weight=None)
    assert task.phases[1].terms == ("G_gan", "cycle") == tuple(task._G_losses(batch_of(0, 1), None).losses)


def test_the_latent_weight_grows_over_training():
    config = ComboGANConfig(60, 40)
    assert [config.latent_factor(n) for n in (0, 25, 100, 200)] == [0, 0.25, 1, 1]
    assert ComboGANConfig(0, 0).latent_factor(0) == 1


@pytest.mark.parametrize("phase", "DG")
def test_a_phase_gives_gradients_to_the_two_domains_that_were_drawn(phase):
    task = make_task()
    run_phase(task, phase, batch=batch_of(0, 2))
    for net, module in task.networks.items():
        for name, p in module.named_parameters():
            is_trained = net.startswith(phase) and owner(f"{net}.{name}") != 1
            assert (p.grad is not None) == is_trained, (net, name)
    for i in range(3):
        decoder = list(task.regularizers[str(i)].parameters())
        assert decoder and all((p.grad is not None) == (phase == "D" and i != 1) for p in decoder)


def test_only_what_was_drawn_steps_and_each_domain_counts_its_own_steps():
    task = make_task()
    for step in range(2):
        before = weights(task)
        run_steps(task, step, 1, batches)
        after = weights(task)
        moved = {owner(name) for name in after if not torch.equal(after[name], before[name])}
        assert moved == {None, *DOMAIN_PAIRS[step]}
    for phase in task.phases:
        groups = phase.optimizer.param_groups
        steps = [{int(phase.optimizer.state[p]["step"]) for p in group["params"]} for group in groups]
        assert steps == [{1}, {2}, {1}, {2}][: len(groups)]


def test_d_learns_from_the_pool_and_ggdr_from_the_new_fake_of_its_decoder():
    task, batch = make_task(pool=BATCH), batch_of(1, 2)
    pool, old = task.pools["2"], torch.full([BATCH, 3, RES, RES], 0.5)
    pool.load_state({"images": old, "rng": pool.rng.get_state()})
    draws = task.phases[0].draw(BATCH, 1)
    task._pool_draws(2, draws["index"])
    task._plans[2]["swap"].fill_(True)
    task._plans[2]["slot"].copy_(torch.arange(BATCH))
    seen = []
    handle = task.D[2].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    out = task._D_losses(batch, draws)
    handle.remove()
    fakes = {1: task.G(batch["B"], 2, 1).detach(), 2: task.G(batch["A"], 1, 2).detach()}
    assert len(seen) == 2
    assert torch.equal(seen[0], fakes[2]) and torch.equal(seen[1], torch.cat([old, batch["B"]]))
    shown = judged(task.D[2](old), 0) + judged(task.D[1](fakes[1]), 0)
    torch.testing.assert_close(out.losses["D_fake"], shown / 2)
    penalties = []
    for img, source, target in ((batch["A"], 1, 2), (batch["B"], 2, 1)):
        ggdr = task.regularizers[str(target)].by_name["ggdr"]
        assert ggdr.guides == [f"decoders.{target}.model.3"]
        with ggdr.watch() as feats:
            task.D[target](task.G(img, source, target).detach())
        penalties.append(ggdr.penalty(feats))
    torch.testing.assert_close(out.losses["ggdr"], sum(penalties))
    torch.testing.assert_close(out.observed["ggdr/distance"], sum(penalties) / 20)
    task.step_end(BATCH, BATCH)
    assert torch.equal(pool.images, fakes[2]) and torch.equal(task.pools["1"].images, fakes[1])
    assert len(task.pools["0"]) == 0


def test_with_weight_0_ggdr_measures_and_changes_nothing_in_d():
    def run(weight):
        task = make_task(weight=weight, pool=3)
        run_steps(task, 0, 4, batches)
        return {name: value for name, value in weights(task).items() if not name.startswith("ggdr")}

    plain = run(None)
    assert_equal(run(0.0), plain)
    taught = run(10.0)
    changed = {name for name in plain if name[0] == "D" and not torch.equal(taught[name], plain[name])}
    # The stack of the luminance is the one that GGDR teaches.
    assert all(any(name.startswith(f"D_{i}.model_gray") for name in changed) for i in range(3))


@pytest.mark.parametrize("weight", [None, 10.0])
def test_a_resumed_task_goes_on_exactly(weight):
    settings = {"weight": weight, "pool": 3, "constant_nimg": 8, "falling_nimg": 40, "latent_weight": 1.0}
    whole, first = make_task(**settings), make_task(**settings)
    run_steps(whole, 0, 6, batches)
    run_steps(first, 0, 3, batches)
    second = make_task(networks=make_networks(seed=7), **settings)
    reload(second, first.state())
    run_steps(second, 3, 3, batches)
    assert_equal(weights(second), weights(whole))
    for name, pool in whole.pools.items():
        assert torch.equal(second.pools[name].images, pool.images)
        assert not torch.equal(first.pools[name].images, pool.images)


def test_rounds_do_not_change_what_is_in_the_pools():
    whole, split = make_task(pool=3), make_task(pool=3)
    run_steps(whole, 0, 3, batches)
    run_steps(split, 0, 3, batches, rounds=4)
    for name, pool in whole.pools.items():
        assert len(pool) == 3
        torch.testing.assert_close(split.pools[name].images, pool.images, rtol=0, atol=0.02)


def test_parameters_are_linear_in_the_number_of_domains():
    counts = [sum(p.numel() for p in make_networks(n, shared=(0, 0))[0].parameters()) for n in (2, 3, 5)]
    assert counts[1] / 3 == counts[0] / 2 == counts[2] / 5
    tasks = [make_task(networks=make_networks(n), weight=None) for n in (2, 3, 4)]
    numbers = [sum(p.numel() for phase in task.phases for p in phase.params) for task in tasks]
    # Shared blocks see a plane of each domain, in each of their two 3x3 convolutions.
    assert numbers[2] - numbers[1] == numbers[1] - numbers[0]


def test_attaching_leaves_the_networks_and_their_names_alone():
    plain, attached = make_task(weight=None), make_task()
    assert_equal({name: v for name, v in weights(attached).items() if "ggdr" not in name}, weights(plain))
    states, configs = attached.snapshot()
    assert configs.pop("domains") == ["0", "1", "2"]
    assert list(configs) == list(plain.snapshot()[0]) == ["G", "D_0", "D_1", "D_2"]
    assert list(states) == [*configs, "ggdr_0", "ggdr_1", "ggdr_2"]
    other = make_task(networks=make_networks(seed=3))
    other.load_networks(states)
    assert_equal(weights(other), weights(attached))


def test_snapshots_say_what_the_domains_are_called():
    G, D = make_networks()
    names = ["summer", "autumn", "winter"]
    assert ComboGANTask(G, D, ComboGANConfig(0, 0), domains=names).snapshot()[1]["domains"] == names
    with pytest.raises(ValueError, match="a name for each of 3 domains, got 2"):
        ComboGANTask(G, D, ComboGANConfig(0, 0), domains=names[:2])


def test_frozen_domains_stay_bit_for_bit_while_the_others_learn():
    task = make_task(frozen=[0, 1], pool=2)
    before = weights(task)
    for step, (a, b) in enumerate([(0, 2), (2, 1), (1, 2)]):
        run_steps(task, step, 1, lambda seed, a=a, b=b: batch_of(a, b, seed=seed))
    after = weights(task)
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert {owner(name) for name in changed} == {2}
    assert {name.split(".")[0] for name in changed} == {"G", "D_2", "ggdr_2"}
    assert list(task.pools) == ["2"] and all(p.grad is None for net in task.D[:2] for p in net.parameters())
    with pytest.raises(ValueError, match=r"domains 0 and 1 of a batch are both frozen; one must be of \[2\]"):
        run_steps(task, 3, 1, lambda seed: batch_of(0, 1))


@pytest.mark.parametrize("frozen", [[0, 1, 2], [3], [-1]])
def test_frozen_domains_are_some_of_those_there(frozen):
    with pytest.raises(ValueError, match="frozen: expected some of the domains 0 to 2, got"):
        make_task(frozen=frozen, weight=None)


def test_batches_that_cannot_be_are_refused():
    task = make_task(weight=None)
    for a, b in ((1, 1), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match=f"two of the domains 0 to 2, got {a} and {b}"):
            task._G_losses(batch_of(a, b), None)
    odd = {name: x[..., :30] if x.ndim == 4 else x for name, x in batch_of(0, 1).items()}
    with pytest.raises(ValueError, match="multiples of 4, from 8 pixels up, got 30x32"):
        task._G_losses(odd, None)
    with pytest.raises(ValueError, match="a multiple of 4, got 30"):
        combogan_attachments(task.G, task.D, 30)
    with pytest.raises(ValueError, match="a discriminator for each of 3 domains, got 2"):
        ComboGANTask(task.G, task.D[:2], ComboGANConfig(0, 0))


def test_its_run_on_the_loop_reports_what_it_declares():
    task = make_task(pool=2, constant_nimg=8, falling_nimg=8)
    log = run_on_the_loop(task, batches)
    names = {panel.name for panel in task.panels}
    assert names == {"score/real", "score/fake", "cycle/distance", "ggdr/distance", "rate"} and names < log[16].keys()
    assert log[16]["rate"] == 0 and {g["lr"] for p in task.phases for g in p.optimizer.param_groups} == {0}


def test_every_end_of_a_stage_is_a_guide():
    G, D = make_networks()
    found = combogan_attachments(G, D, RES)[1]
    assert found.encoder == ["model_gray.0", "model_gray.1"]
    seen = {}
    for res, name in found.guides.items():
        G.get_submodule(name).register_forward_hook(lambda m, i, out, res=res: seen.update({res: out.shape[2:]}))
    found.probe()
    assert seen == {res: (res, res) for res in (8, 16, 32)}
    without_blocks = build_network(ComboGANGeneratorConfig(3, 4, 1, 0, domains=3))
    assert list(combogan_attachments(without_blocks, D, RES)[0].guides) == [16, 32]


def test_it_learns_to_translate_there_and_back():
    task = make_task(lr=2e-3)
    img = pairs(seed=99)["A"]

    def distance():
        there = task.translate(img, 0, 1)
        return (task.translate(there, 1, 0) - img).abs().mean().item()

    before = distance()
    run_steps(task, 0, 25, lambda seed: batch_of(0, 1, seed=seed))
    assert distance() < 0.8 * before
    assert task.translate(img[:1, :, :30, :29], 0, 2).shape == (1, 3, 30, 29)


def test_a_regulariser_may_not_be_called_as_a_network():
    class Named:
        name, parameters = "D", staticmethod(lambda: [])

    G, D = make_networks()
    with pytest.raises(ValueError, match="regulariser 'D'"):
        ComboGANTask(G, D, ComboGANConfig(0, 0), regularizers={1: Regularizers([Named()])})
