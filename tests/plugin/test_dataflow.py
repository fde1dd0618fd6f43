# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which maps lie in a branch, by the operations that ran."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ggdr.dataflow import Dataflow, Stage

LARGE, SMALL = (2, 8, 8, 8), (2, 8, 4, 4)
WEIGHT = torch.randn(8, 8, 3, 3)


def conv(x):
    return F.conv2d(x, WEIGHT, padding=1)


def half(x):
    return F.avg_pool2d(conv(x), 2)


def double(x):
    return F.interpolate(conv(x), scale_factor=2)


def on(x):
    """Three more maps, each from the one before."""
    first = conv(x)
    second = conv(first)
    return [first, second, conv(second)]


def chain():
    a = conv(torch.randn(LARGE))
    b = half(a)
    return [a, b, *on(b)], []


def residual():
    a = conv(torch.randn(LARGE))
    inside = conv(a)
    b = half(inside) + F.avg_pool2d(a, 2)
    return [a, b, *on(b)], [inside]


def residual_in_place():
    a = conv(torch.randn(LARGE))
    before = a.clone()  # the map that the block overwrites
    inside = conv(before.relu_())
    b = inside.add_(before)
    return [a, b, *on(b)], []


def shortcut_with_a_layer():
    a = conv(torch.randn(LARGE))
    inside, shortcut = half(a), F.avg_pool2d(conv(a), 2)
    b = inside + shortcut
    return [a, b, *on(b)], [inside, shortcut]


def growing():
    a = conv(torch.randn(SMALL))
    inside = double(a)
    b = conv(inside) + F.interpolate(a, scale_factor=2)
    return [a, b, *on(b)], [inside]


def skip_of_an_encoder_decoder():
    a = conv(torch.randn(LARGE))
    deep = half(a)
    up = double(conv(deep))
    return [a, deep, *on(torch.cat([up, a], 1)[:, :8])], [up]


def long_skip():
    a = conv(torch.randn(LARGE))
    inside = [a]
    for _ in range(4):
        inside.append(conv(inside[-1]))
    return [*inside, conv(a + inside[-1])], []


def thin_image_beside():
    a = conv(torch.randn(LARGE))
    b = conv(a)
    image = a[:, :1] + b[:, :1]
    return [a, b, image, *on(b)], []


def channel_attention():
    a = conv(torch.randn(LARGE))
    pooled = F.adaptive_avg_pool2d(a, 2)
    b = conv(a) * F.conv2d(pooled, WEIGHT[..., :2, :2]).sigmoid()
    return [a, b, *on(b)], [pooled]


def through_a_vector():
    a = conv(torch.randn(LARGE))
    code = half(a).flatten(1) @ torch.randn(128, 128)
    return [a, half(a), *on(code.view(SMALL))], []


def skip_round_a_vector():
    a = conv(torch.randn(LARGE))
    deep = half(a)
    code = deep.flatten(1) @ torch.randn(128, 128)
    up = F.interpolate(code.view(SMALL), scale_factor=2)
    return [a, deep, *on(torch.cat([up, a], 1)[:, :8])], []


def written_into():
    a = conv(torch.randn(LARGE))
    inside = conv(a)
    b = a + 0
    b[:, 1:] = inside[:, 1:]
    return [a, *on(b)], [inside]


def tokens():
    x = conv(torch.randn(SMALL)).flatten(2).transpose(1, 2)
    heads = x.unflatten(2, (2, 4)).transpose(1, 2) * 1  # [N, 2, 16, 4]
    y = x + heads.transpose(1, 2).flatten(2)
    return [x, y, z := y * 2, z * 2], [heads]


@pytest.mark.parametrize(
    "run",
    [
        chain,
        residual,
        residual_in_place,
        shortcut_with_a_layer,
        growing,
        skip_of_an_encoder_decoder,
        long_skip,
        thin_image_beside,
        channel_attention,
        through_a_vector,
        skip_round_a_vector,
        written_into,
        tokens,
    ],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_others_lead_round_is_a_branch_and_nothing_else(run, mode):
    with Dataflow() as flow, mode():
        trunk, branch = run()
    stages = [
        Stage(flow.step(x), x.shape[2], x.shape[1]) if x.ndim == 3 else Stage(flow.step(x), x.shape[1], x[0, 0].numel())
        for x in (*trunk, *branch)
    ]
    assert flow.branches(stages) == [False] * len(trunk) + [True] * len(branch)


class Opaque(torch.autograd.Function):
    """An operation that torch does not show, as those of compiled extensions."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() + 1)


def test_layers_join_what_operations_in_between_hide():
    img = torch.randn(LARGE)
    with Dataflow() as flow:
        a = conv(img)
        hidden = Opaque.apply(a)
        b = conv(hidden)
        alone = flow.step(b)
        flow.join((a,), [b])
        joined = flow.step(b)
        flow.join({"x": img}, (b,))
    steps = {step: Stage(step, 8, 64) for step in (flow.step(a), alone, joined)}
    assert flow.step(a) in joined.parents and flow.step(a) not in alone.parents
    assert flow.step(b) is joined  # the image was known to lead there
    seen = flow.sizes_seen([steps[flow.step(a)]._replace(area=100), steps[alone], steps[joined]])
    assert seen == [100, 64, 100]


def test_tensors_that_are_gone_leave_no_trace():
    with Dataflow() as flow:
        x = torch.randn(LARGE)
        steps = {flow.step(x * 1) for _ in range(5)}
        assert len(steps) == 5
        assert flow.step(x) is flow.step(x)
