# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Training of the hosts of image translation in half precision, beside float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ggdr.translation import host
from ggdr.translation.config import Pix2PixConfig
from ggdr.translation.layers import InstanceNorm
from tests.translation import test_combogan, test_cyclegan, test_pix2pix
from tests.translation.hosts import BATCH, assert_equal, pairs, reload, run_phase, run_steps, runner_of, weights

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Of gradients, as parts of their norm. Rounding moves them most where an activation has its kink, and in a network of
# four channels one such value is much.
TOLERANCES = {"bf16": 0.3, "fp16": 0.1}
HOSTS = {
    "pix2pix": (test_pix2pix.make_task, {"G": test_pix2pix.UNET, "norm": "batch"}, pairs),
    "pix2pix-resnet": (test_pix2pix.make_task, {"G": test_pix2pix.RESNET}, pairs),
    "cyclegan": (test_cyclegan.make_task, {"G": test_cyclegan.NOISY, "pool": 6}, pairs),
    "combogan": (test_combogan.make_task, {"pool": 6, "latent_weight": 1.0, "forward_weight": 1.0}, None),
}


def make(name, **settings):
    """A task of a host, and its batches."""
    make_task, own, batches = HOSTS[name]
    return make_task(**own, **settings), batches or test_combogan.batches


def flat(grads):
    """The gradients of all networks as one vector."""
    return torch.cat([grad.flatten() for found in grads.values() for grad in found if grad is not None])


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", HOSTS)
def test_half_precision_is_near_float32_in_losses_and_gradients(name, precision):
    task, batches = make(name)
    half = make(name, half_dtype=HALVES[precision])[0]
    for phase in task.phases:
        expected, reported = run_phase(task, phase.name, batch=batches(seed=5))
        got, of_half = run_phase(half, phase.name, batch=batches(seed=5))
        a, b = flat(expected), flat(got)
        assert not torch.equal(a, b)
        assert (a - b).norm() < TOLERANCES[precision] * a.norm()
        losses = {key: value for key, value in reported.items() if key.startswith(("loss", "ggdr"))}
        assert {key: of_half[key] for key in losses} == pytest.approx(losses, rel=0.01)


@pytest.mark.parametrize("name", HOSTS)
def test_convolutions_compute_in_half_and_all_else_is_float32(name):
    task, batches = make(name, half_dtype=torch.bfloat16)
    kinds = {nn.Conv2d: set(), nn.ConvTranspose2d: set(), InstanceNorm: set(), nn.BatchNorm2d: set()}
    for net in task.networks.values():
        for layer in net.modules():
            if type(layer) in kinds:
                layer.register_forward_hook(lambda layer, args, out: kinds[type(layer)].add(out.dtype))
    run_steps(task, 0, 2, batches)
    assert set().union(*kinds.values()) == {torch.bfloat16} and kinds[nn.Conv2d] and kinds[nn.ConvTranspose2d]
    states = [v for state in task.snapshot()[0].values() for v in state.values()]
    moments = [x for phase in task.phases for state in phase.optimizer.state.values() for x in state.values()]
    fakes = [pool.images for pool in task.pools.values() if len(pool)]
    assert {x.dtype for x in [*states, *moments, *fakes] if x.is_floating_point()} == {torch.float32}
    for phase in task.phases:
        out = phase.losses(batches(seed=1), None if phase.draw is None else phase.draw(BATCH, 1))
        assert {x.dtype for x in [*out.losses.values(), *out.observed.values()]} == {torch.float32}


@pytest.mark.parametrize("precision", HALVES)
def test_statistics_of_instance_norms_are_float32(precision):
    # Far from zero, where a mean that is rounded to half shifts what is left of the images.
    x = (torch.randn([2, 3, 8, 8], generator=torch.Generator().manual_seed(0)) + 30).to(HALVES[precision])
    y, truth = InstanceNorm(3)(x), F.instance_norm(x.float())
    assert y.dtype == x.dtype
    torch.testing.assert_close(y.float(), truth, rtol=torch.finfo(x.dtype).eps, atol=1e-5)


def test_the_scale_of_the_loss_changes_no_bit_of_float32():
    plain, scaled = make("cyclegan")[0], make("cyclegan")[0]
    scaled.phases = [replace(phase, loss_scale=256.0) for phase in scaled.phases]
    for phase in plain.phases:
        expected, reported = run_phase(plain, phase.name)
        got, of_scaled = run_phase(scaled, phase.name)
        assert torch.equal(flat(got), flat(expected)) and of_scaled == reported


def test_gradients_that_vanish_in_float16_do_not_with_the_scale(monkeypatch):
    # The gradient in an image is that of 1e-3 x L1, 3e-7 a value; float16 knows multiples of 6e-8.
    config = Pix2PixConfig(0, 0, gan_weight=0, l1_weight=1e-3)
    settings = {"config": config, "weight": None}

    def gradient(**more):
        return flat({"G": run_phase(make("pix2pix", **settings, **more)[0], "G")[0]["G"]})

    truth = gradient()

    def error(scale):
        monkeypatch.setattr(host, "LOSS_SCALE", scale)
        return ((gradient(half_dtype=torch.float16) - truth).norm() / truth.norm()).item()

    assert error(host.LOSS_SCALE) < 0.05 < 0.3 < error(1.0)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", HOSTS)
def test_a_run_in_half_precision_resumes_exactly(name, precision):
    half = {"half_dtype": HALVES[precision]}
    (whole, batches), first, second = make(name, **half), make(name, **half)[0], make(name, seed=7, **half)[0]
    run_steps(whole, 0, 4, batches)
    run_steps(first, 0, 2, batches)
    reload(second, first.state())
    run_steps(second, 2, 2, batches)
    assert_equal(weights(second), weights(whole))


def test_a_state_of_one_precision_goes_on_in_another():
    first, second = make("cyclegan")[0], make("cyclegan", half_dtype=torch.bfloat16)[0]
    run_steps(first, 0, 2)
    reload(second, first.state())
    run_steps(second, 2, 2)
    run_steps(first, 2, 2)
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(second)[name], value, rtol=0, atol=2e-3)


def test_a_gradient_that_overflows_in_float16_leaves_the_weights_alone(monkeypatch):
    monkeypatch.setattr(host, "LOSS_SCALE", 2.0**40)
    task = make("cyclegan", half_dtype=torch.float16)[0]
    before, (runner, _) = weights(task), runner_of(task)
    runner.run(task.phases[-1], pairs(), 0)
    after = weights(task)
    assert_equal({k: v for k, v in after.items() if k[0] == "G"}, {k: v for k, v in before.items() if k[0] == "G"})


def test_bfloat16_learns_as_float32_does():
    def distance(half_dtype):
        task = test_cyclegan.make_task(
            test_cyclegan.ResnetGeneratorConfig(3, 3, 8, 1), lr=2e-3, weight=10.0, half_dtype=half_dtype
        )
        img = pairs(seed=99)["A"]
        before = (task.translate(task.translate(img, "A"), "B") - img).abs().mean().item()
        run_steps(task, 0, 60)
        return (task.translate(task.translate(img, "A"), "B") - img).abs().mean().item() / before

    one, other = distance(None), distance(torch.bfloat16)
    assert max(one, other) < 0.8 and abs(one - other) < 0.1
