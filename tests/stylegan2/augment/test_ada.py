# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The controller of the augmentation's strength."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ggdr.stylegan2.augment.ada import AdaController


def run(ada: AdaController, logits: list[float], steps: int = 4, batch_size: int = 64) -> float:
    for _ in range(steps):
        ada.observe(torch.tensor(logits))
        p = ada.update(batch_size)
    return p


def test_p_rises_by_the_published_step_while_reals_score_above_target():
    ada = AdaController(target=0.6, interval=4, speed_kimg=500)
    assert run(ada, [3.0, 0.1]) == pytest.approx(64 * 4 / 500_000)
    assert ada.mean_sign == 1.0
    assert run(ada, [2.0, 2.0], steps=400) == pytest.approx(101 * 64 * 4 / 500_000)


def test_p_falls_below_target_and_stays_at_target():
    ada = AdaController(p=0.5)
    below = run(ada, [1.0, 1.0, 1.0, -1.0])  # mean sign 0.5
    assert below == pytest.approx(0.5 - 64 * 4 / 500_000)
    assert ada.mean_sign == 0.5
    exactly = AdaController(p=0.5, target=0.5)
    assert run(exactly, [1.0, 1.0, 1.0, -1.0]) == 0.5


def test_sign_counts_not_the_size_of_logits():
    ada = AdaController(p=0.5)
    assert run(ada, [1000.0, -0.001, -0.001, -0.001]) < 0.5


def test_p_changes_only_at_the_end_of_an_interval_and_over_all_its_logits():
    ada = AdaController(p=0.5, interval=3)
    assert run(ada, [-1.0] * 10, steps=2) == 0.5
    assert math.isnan(ada.mean_sign)
    assert run(ada, [1.0] * 100, steps=1) > 0.5
    assert ada.mean_sign == pytest.approx(80 / 120)


def test_p_stays_between_0_and_1():
    fast = {"speed_kimg": 0.1, "interval": 1}
    up, down = AdaController(p=0.9, **fast), AdaController(p=0.1, **fast)
    assert run(up, [1.0], steps=3) == 1.0
    assert run(down, [-1.0], steps=3) == 0.0


def test_logits_may_come_in_several_parts_and_half_precision():
    whole, parts = AdaController(p=0.5), AdaController(p=0.5)
    logits = torch.randn(16, 1, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        whole.observe(logits)
        for part in logits.split(4):
            parts.observe(part.half())
        assert whole.update(16) == parts.update(16)
    assert whole.mean_sign == parts.mean_sign


def test_resume_in_the_middle_of_an_interval_is_exact():
    rng = torch.Generator().manual_seed(0)
    steps = [torch.randn(8, generator=rng) + 0.8 for _ in range(23)]
    straight = AdaController(p=0.3, speed_kimg=1)
    expected = [(straight.observe(logits), straight.update(8))[1] for logits in steps]
    assert len(set(expected)) > 3

    for stop in range(23):
        first, second = AdaController(p=0.3, speed_kimg=1), AdaController(speed_kimg=1)
        got = [(first.observe(logits), first.update(8))[1] for logits in steps[:stop]]
        second.load_state(json.loads(json.dumps(first.state())))
        got += [(second.observe(logits), second.update(8))[1] for logits in steps[stop:]]
        assert got == expected
        assert second.state() == straight.state()


def test_two_ranks_agree_with_one():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    one, ranks = AdaController(p=0.5), [AdaController(p=0.5), AdaController(p=0.5)]
    for step in logits:
        one.observe(step)
        one.update(8)
        total = torch.tensor([step.sign().sum(), 8.0])
        for rank, ada in enumerate(ranks):
            ada.observe(step[rank::2])
            ada.update(8, reduce=lambda _local, total=total: total)
    assert ranks[0].state() == ranks[1].state() == one.state()


def test_interval_without_logits_leaves_p():
    ada = AdaController(p=0.5)
    for _ in range(4):
        assert ada.update(64) == 0.5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"p": math.nan}, r"p must be in \[0, 1\], got nan"),
        ({"target": 1.0}, r"target must be in \(-1, 1\), got 1.0"),
        ({"interval": 0}, "interval must be at least 1 step, got 0"),
        ({"speed_kimg": 0.0}, "speed_kimg must be positive, got 0.0"),
    ],
)
def test_values_out_of_range_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AdaController(**kwargs)


def test_damaged_state_is_refused():
    state = AdaController(p=0.5).state()
    with pytest.raises(ValueError, match="p must be in"):
        AdaController().load_state({**state, "p": 21.8})
    del state["num_steps"]
    with pytest.raises(ValueError, match=r"lacks \['num_steps'\]"):
        AdaController().load_state(state)
