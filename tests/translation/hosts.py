# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the tests of all hosts of image translation do with a host."""

from __future__ import annotations

import io

import torch
from torch import nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import part
from ggdr.torch_utils.loop import Counters, LoopConfig, PhaseRunner, StatsSum, train

RES, BATCH = 32, 4


def pairs(n=BATCH, seed=5):
    """Smooth images, and the same with their channels turned round."""
    rng = torch.Generator().manual_seed(seed)
    a = nn.functional.interpolate(torch.rand([n, 3, 4, 4], generator=rng) * 2 - 1, RES, mode="bilinear")
    return {"A": a, "B": a.flip(1)}


def runner_of(task, rounds=1):
    stats = StatsSum(torch.device("cpu"))
    share = BATCH // task.group.world
    return PhaseRunner(task, LoopConfig(1000, BATCH, share // rounds, 100, 1), task.group, stats), stats


def run_phase(task, name, rounds=1, batch=None):
    """Runs one phase as the loop does; its gradients by network, and what it reports."""
    runner, stats = runner_of(task, rounds)
    runner.run(next(p for p in task.phases if p.name == name), batch or pairs(), 0)
    grads = {name: [p.grad for p in net.parameters()] for name, net in task.networks.items()}
    return grads, stats.means(ProcessGroup())


def run_steps(task, start, num, batches=pairs, rounds=1):
    """Iterations with this process' shares of fixed batches."""
    runner, at = runner_of(task, rounds)[0], Counters(start * BATCH, start)
    for step in range(start, start + num):
        runner.iteration(part(batches(seed=step), slice(task.group.rank, None, task.group.world)), at)
    runner.check_finite()


def reload(task, state):
    """Gives a task a state that went through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    task.load_state(torch.load(file, weights_only=True))


def run_on_the_loop(task, batches=pairs):
    """Four iterations with a tick every second one: what was reported at each, by nimg."""
    log = {}

    class Log:
        def info(self, msg):
            raise AssertionError(msg)

        def scalars(self, nimg, values):
            log[nimg] = dict(values)

        def progress(self, nimg, **fields):
            pass

    snapshots, states = [], []
    config = LoopConfig(4 * BATCH, BATCH, BATCH // 2, tick_nimg=2 * BATCH, snap_ticks=1)
    data = (batches(seed=i) for i in range(100))
    assert train(task, data, config, log=Log(), save_state=states.append, on_snapshot=snapshots.append)
    assert list(log) == [2 * BATCH, 4 * BATCH] and snapshots == [0, *log] and len(states) == 2
    return log


def weights(task):
    return {f"{net}.{name}": v.clone() for net, state in task.snapshot()[0].items() for name, v in state.items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    differing = [name for name in a if not torch.equal(a[name], b[name])]
    assert not differing, differing


def assert_gradients_agree(a, b):
    for x, y in zip(a, b, strict=True):
        # What biases before norms get is rounding.
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5 if x.ndim > 1 else 1e-4)
