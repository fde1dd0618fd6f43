# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A host unlike StyleGAN2, trained by the same loop."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Phase, PhaseOutput
from ggdr.torch_utils.loop import LoopConfig, NonFiniteError, PhaseRunner, StatsSum, run_panels, train
from ggdr.torch_utils.regularizers import Regularizers
from tests.conftest import torchrun
from tests.toy_host import TOTAL_NIMG, FeatureSize, ToyTask, batches, network

BATCH = 4


class Log:
    """Keeps what the loop reports."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []
        self.shown: dict[str, float] = {}

    def info(self, msg): ...

    def scalars(self, nimg, values):
        self.lines.append({"nimg": nimg, **values})

    def progress(self, nimg, *, tick=None, sec_per_kimg=None, **fields):
        self.shown = fields


def config(nimg=TOTAL_NIMG, batch_gpu=BATCH, **more):
    return LoopConfig(nimg, BATCH, batch_gpu, tick_nimg=8, snap_ticks=1, **more)


def run(task, settings=None, resume=None, log=None):
    """Trains; returns the last state that was saved."""
    saved = []
    start = 0 if resume is None else resume["counters"]["nimg"]
    train(
        task,
        batches(start, BATCH),
        settings or config(),
        log=log or Log(),
        save_state=lambda state: saved.append(copy.deepcopy(state)),
        on_snapshot=lambda nimg: None,
        resume=resume,
    )
    return saved[-1]


def weights(task):
    return torch.cat([x.flatten() for state in task.snapshot()[0].values() for x in state.values()])


def test_every_network_trains_and_only_declared_terms_make_up_the_loss():
    task, log = ToyTask(), Log()
    before = {name: copy.deepcopy(state) for name, state in task.snapshot()[0].items()}
    run(task, log=log)
    assert all(not torch.equal(task.snapshot()[0][name]["0.weight"], before[name]["0.weight"]) for name in before)
    line = log.lines[-1]
    assert line["loss/G"] == pytest.approx(line["loss_term/fool"] + line["loss_term/cycle"], rel=1e-5)
    assert line["loss/D_A"] == pytest.approx(line["loss_term/real_A"] + line["loss_term/fake_A"], rel=1e-5)
    assert line["loss_term/identity"] > 0 and line["rate"] == 0
    assert log.shown.keys() == {"G", "D_A", "D_B", "A"}


def test_what_a_run_declares_it_reports():
    task, log = ToyTask(), Log()
    run(task, log=log)
    declared = {panel.name for panel in run_panels(task)} - {"memory/gpu_gib"}
    assert declared <= log.lines[-1].keys()


def test_resume_is_exact_with_pool_schedule_and_momentum():
    whole, half, rest = ToyTask(), ToyTask(), ToyTask()
    run(whole)
    state = run(half, config(24))
    rest.load_state(state["task"])
    run(rest, resume=state)
    assert torch.equal(weights(rest), weights(whole)) and torch.equal(rest.pool["A"], whole.pool["A"])
    assert len(whole.pool["A"]) == 10 and rest.optimizers["D_A"].param_groups[0]["lr"] == 0


def test_what_takes_long_comes_after_the_state_and_again_when_a_run_is_resumed():
    order = []
    last = {}

    def save(state):
        order.append(("state", state["counters"]["nimg"]))
        last.update(copy.deepcopy(state))

    def on_saved(nimg, is_stopped):
        order.append(("saved", nimg))
        return True

    how = {"log": Log(), "save_state": save, "on_snapshot": lambda nimg: order.append(("snapshot", nimg))}
    assert train(ToyTask(), batches(0, BATCH), config(8), **how, on_saved=on_saved)
    assert order == [("snapshot", 0), ("snapshot", 8), ("state", 8), ("saved", 8)]
    order.clear()
    assert not train(ToyTask(), batches(8, BATCH), config(8), **how, on_saved=lambda *_: False, resume=last)
    assert train(ToyTask(), batches(8, BATCH), config(8), **how, on_saved=on_saved, resume=last)
    assert order == [("saved", 8)]


def test_accumulation_gives_the_same():
    whole, parts = ToyTask(), ToyTask()
    run(whole)
    run(parts, config(batch_gpu=1))
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)


def test_two_processes_give_what_one_gives(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "from ggdr.torch_utils.distributed import init_process_group\n"
        "from ggdr.torch_utils.loop import PhaseRunner, StatsSum, Counters, LoopConfig\n"
        "from tests.toy_host import TOTAL_NIMG, ToyTask, batches\n"
        "group = init_process_group('cpu')\n"
        "task = ToyTask(group)\n"
        f"config = LoopConfig(TOTAL_NIMG, {BATCH}, 1, 8, 1)\n"
        "runner, at = PhaseRunner(task, config, group, StatsSum(group.device)), Counters()\n"
        f"data = batches(0, {BATCH}, group)\n"
        "while at.nimg < TOTAL_NIMG:\n"
        "    runner.iteration(next(data), at)\n"
        "if group.is_main:\n"
        "    torch.save(task.snapshot()[0], sys.argv[1])\n"
        "group.leave()\n"
    )
    code, output = torchrun(script, tmp_path / "nets.pt")
    assert code == 0, output
    one = ToyTask()
    run(one)
    for name, state in torch.load(tmp_path / "nets.pt", weights_only=True).items():
        for key, value in state.items():
            torch.testing.assert_close(value, one.snapshot()[0][name][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("phase_name", ["G", "D_A"])
def test_a_step_with_a_nan_is_left_out_by_any_optimizer(phase_name):
    task = ToyTask()
    run(task, config(8))  # so that there are moments
    phase = next(phase for phase in task.phases if phase.name == phase_name)
    losses = phase.losses
    phase.losses = lambda batch, draws: PhaseOutput({k: v * torch.nan for k, v in losses(batch, draws).losses.items()})
    before, moments = weights(task), copy.deepcopy(phase.optimizer.state_dict()["state"])
    runner = PhaseRunner(task, config(max_skips=1), ProcessGroup(), StatsSum(torch.device("cpu")))
    for allowed in (True, False):
        runner.run(phase, next(batches(0, BATCH)), 0)
        assert torch.equal(weights(task), before)
        after = phase.optimizer.state_dict()["state"]
        assert all(torch.equal(after[i][k], v) for i, values in moments.items() for k, v in values.items())
        if allowed:
            runner.check_finite()
    with pytest.raises(NonFiniteError, match=f"phase {phase_name} became nan"):
        runner.check_finite()


@pytest.mark.parametrize("loss_scale", [1.0, 8.0])
@pytest.mark.parametrize("batch_gpu", [BATCH, 1])
def test_each_parameter_gets_a_gradient_of_its_own_that_lies_in_memory_as_it_does(batch_gpu, loss_scale):
    draw = lambda *size: torch.randn(size, generator=torch.Generator().manual_seed(0))  # noqa: E731
    first, second, turned, summed = (nn.Parameter(draw(3, 4)) for _ in range(4))
    unused, image = nn.Parameter(draw(1)), draw(1, 3, 4).requires_grad_()
    params = [first, second, turned, summed, unused]

    def losses(batch, draws):
        weighted = batch * (first + second) + batch * turned.t().contiguous().t() + image
        return PhaseOutput({"loss": weighted.square().sum(dim=[1, 2]) + summed.sum()})

    data = draw(BATCH, 3, 4)
    expected = torch.autograd.grad(losses(data, None).losses["loss"].mean(), params, allow_unused=True)
    phase = Phase("G", params, torch.optim.SGD(params, 0.0), losses, ("loss",), loss_scale=loss_scale)
    task = SimpleNamespace(phases=[phase])
    PhaseRunner(task, config(batch_gpu=batch_gpu), ProcessGroup(), StatsSum(torch.device("cpu"))).run(phase, data, 0)
    for p, grad in zip(params[:-1], expected, strict=False):
        torch.testing.assert_close(p.grad, grad)
        assert p.grad.stride() == p.stride()
    assert len({p.grad.data_ptr() for p in params[:-1]}) == 4
    assert unused.grad is None and image.grad is None


def test_a_phase_whose_losses_lack_a_term_says_which():
    task = ToyTask()
    task.phases[0].terms = ("fool", "circle")
    with pytest.raises(ValueError, match="phase G: its losses lack circle; they are fool, cycle, identity"):
        run(task)


STRAY = torch.zeros([], requires_grad=True)


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda losses: {}, "lack fool, cycle; they are none"),
        (lambda losses: {name: x.detach() for name, x in losses.items()}, "depend on no parameter that it trains"),
        (lambda losses: {name: x.detach() + STRAY for name, x in losses.items()}, "depend on no parameter that it"),
    ],
    ids=["no losses", "constant", "of others"],
)
def test_a_phase_that_can_learn_nothing_is_named(change, fault):
    task = ToyTask()
    losses = task.phases[0].losses
    task.phases[0].losses = lambda batch, draws: PhaseOutput(change(losses(batch, draws).losses))
    with pytest.raises(ValueError, match=f"phase G: its losses {fault}"):
        run(task)


def test_a_batch_of_another_size_is_refused():
    runner = PhaseRunner(ToyTask(), config(), ProcessGroup(), StatsSum(torch.device("cpu")))
    with pytest.raises(ValueError, match="expected 4 samples in this process' share of a batch, got 3"):
        runner.iteration(next(batches(0, 3)), None)


def test_a_second_regularizer_stands_beside_the_first_and_reports_its_quantity():
    D = network(0, 1)
    first, second = FeatureSize(D), FeatureSize(D)
    second.name, second.gain = "other", 2.0
    both = Regularizers([first, second])
    with both.watch() as feats:
        D(torch.ones(3, 6))
    out = both.penalties(feats)
    assert torch.allclose(out.losses["other"], 4 * out.losses["size"])
    assert torch.allclose(out.observed["other/square"], out.observed["size/square"])
    with pytest.raises(ValueError, match="different names"):
        Regularizers([first, FeatureSize(D)])


def test_a_regularizer_without_gain_is_refused_before_it_reports_nan():
    D = network(0, 1)
    item = FeatureSize(D)
    item.gain = 0
    regularizers = Regularizers([item])
    with regularizers.watch() as feats:
        D(torch.ones(3, 6))
    with pytest.raises(ValueError, match="regulariser 'size': expected a gain other than 0, to report square"):
        regularizers.penalties(feats)


def test_the_regularizer_changes_what_is_learnt():
    with_it, without = ToyTask(), ToyTask(regularize=False)
    run(with_it)
    run(without)
    assert not torch.allclose(weights(with_it), weights(without))
