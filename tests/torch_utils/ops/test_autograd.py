# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The derivatives of the compiled operations as nodes of PyTorch's graph: what they keep, skip, and free."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ggdr.torch_utils.ops import convolution
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.convolution import conv2d
from ggdr.torch_utils.ops.modulation import demodulated_act, modulate
from ggdr.torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from ggdr.torch_utils.timing.operations import OperationTrace

pytestmark = pytest.mark.usefixtures("native_ops")

FIR = setup_filter([1, 3, 3, 1])


@pytest.fixture(autouse=True)
def own_convolutions(monkeypatch):
    """A CPU takes those of other devices."""
    monkeypatch.setattr(convolution, "_LEFT_TO_PYTORCH", ())


def layer(x, w, b, s, d, strength):
    """All operations: x [1, 2, 4, 4] with w [3, 2, 3, 3], b [3], s [1, 2], d [1, 3] and strength [] to [1, 3, 4, 4]."""
    x = modulate(upsample2d(bias_act(x, act="swish"), FIR.to(x.device)), s)
    noise = torch.ones([4, 4], device=x.device)
    return bias_act(demodulated_act(conv2d(x, w, stride=2, padding=1), d, noise, strength, b), b, act="lrelu")


def leaves(device="cpu"):
    shapes = [1, 2, 4, 4], [3, 2, 3, 3], [3], [1, 2], [1, 3], []
    return [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]


class Calls(TorchDispatchMode):
    """(operation, arguments) of all calls to kernels."""

    def __init__(self):
        super().__init__()
        self.all = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.all.append((func, args))
        return func(*args, **(kwargs or {}))

    def of(self, operation):
        return [args for func, args in self.all if func is operation.default]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_nothing_is_kept(mode):
    inputs = leaves()
    expected = layer(*inputs).detach()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t), mode():
        y = layer(*inputs)
        inside = layer(*(torch.ones_like(t) for t in inputs))
    assert not saved and y.grad_fn is None and inside.grad_fn is None
    assert torch.equal(y, expected)


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_sums_for_a_bias_are_computed_where_they_are_asked_for(act):
    x, b = leaves()[0], torch.randn(2, requires_grad=True)
    for wanted, dtype in (((x,), None), ((b,), torch.float32), ((x, b), torch.float32)):
        for create_graph in (False, True):
            with Calls() as calls:
                grad(bias_act(x, b, act=act).sum(), wanted, create_graph=create_graph)
            (args,) = calls.of(torch.ops.ggdr.bias_act_grad)
            assert args[-1] == dtype, f"{len(wanted)} wanted, create_graph {create_graph}"


def test_second_derivatives_of_curved_activations_are_computed_where_they_are_asked_for():
    x, g = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    (first,) = grad(bias_act(x, act="swish"), x, g, create_graph=True)
    orders = {}
    for name, wanted in (("x", x), ("g", g)):
        with Calls() as calls:
            grad(first.sum(), wanted, retain_graph=True)
        orders[name] = [args[4] for args in calls.of(torch.ops.ggdr.bias_act_grad)]
    assert orders == {"x": [2], "g": [1]}


def test_a_graph_is_used_twice_if_it_is_retained_and_told_to_be_gone_if_not():
    inputs = leaves()
    total = layer(*inputs).square().sum()
    first, second = grad(total, inputs, retain_graph=True), grad(total, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        grad(total, inputs)


def test_a_result_that_backward_needs_must_not_change():
    y = layer(*leaves())
    with torch.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_results_are_freed_without_the_garbage_collector():
    inputs = leaves()
    gc.disable()
    try:
        y = layer(*inputs)
        first = grad(y.square().sum(), inputs, create_graph=True)
        freed = [weakref.ref(t) for t in (y, *first)]
        del y, first
        assert [ref() for ref in freed] == [None] * 7
    finally:
        gc.enable()


def test_hooks_and_checkpoints_are_as_for_any_operation():
    inputs = leaves()
    expected = grad(layer(*inputs).square().sum(), inputs)
    y, seen = layer(*inputs), []
    y.register_hook(lambda g: seen.append(g) or 2 * g)
    doubled = grad(y.square().sum(), inputs)
    assert torch.equal(seen[0], 2 * y)
    torch.testing.assert_close(doubled, [2 * g for g in expected])
    again = grad(checkpoint(layer, *inputs, use_reentrant=False).square().sum(), inputs)
    torch.testing.assert_close(again, expected)


def test_a_gradient_of_one_of_two_results_is_enough():
    g, b, y = torch.randn(2, 3, 4, requires_grad=True), torch.randn(3, requires_grad=True), torch.randn(2, 3, 4)
    args = (1, "lrelu", 0.2, 1.5, None)
    out, sums = torch.ops.ggdr.bias_act_grad(g, b, y, None, 1, *args, torch.float32)
    slope = torch.where(y > 0, 1.5, 0.3)
    torch.testing.assert_close(grad(out.sum(), (g, b), retain_graph=True), (slope, slope.sum([0, 2])))
    torch.testing.assert_close(grad(sums.sum(), (g, b)), (slope, slope.sum([0, 2])))


MODULATION = (0.2, 1.5, 2.0)  # slope, gain, clamp


@pytest.mark.parametrize("has_noise, has_strength, has_bias", list(itertools.product([False, True], repeat=3)))
def test_passes_of_modulation_run_where_they_are_asked_for(has_noise, has_strength, has_bias):
    x, hx, g, y = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(4))
    s, hs = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    noise = torch.randn(4, 5) if has_noise else None
    hstrength = torch.randn([], requires_grad=True) if has_strength else None
    hb = torch.randn(3, requires_grad=True) if has_bias else None
    y = y.detach()
    ops = torch.ops.ggdr
    act_tangent = y, x, s, noise, hx, hs, hstrength, hb, *MODULATION
    # Leaves that need the same pass of those that the derivative has.
    for operation, args, *passes in (
        (ops.modulate_backward, (g, x, s), [g], [x, s]),
        (ops.modulate_tangent, (x, s, hx, hs), [x, hs], [s, hx]),
        (ops.demodulated_act_backward, (g, y, x, s, noise, *MODULATION), [g], [x, s]),
        (ops.demodulated_act_tangent, act_tangent, [x, hs, hstrength, hb], [s, hx]),
    ):
        results = operation(*args)
        total = sum(t.square().sum() for t in (results if isinstance(results, tuple) else [results]))
        passes = [[t for t in wanted if t is not None] for wanted in passes]
        expected = grad(total, sum(passes, []), retain_graph=True)
        for t, of_all in zip(sum(passes, []), expected, strict=True):
            with Calls() as calls:
                (alone,) = grad(total, t, retain_graph=True)
            assert torch.equal(alone, of_all)
            assert sum(func.namespace == "ggdr" for func, _ in calls.all) == 1, operation


def test_a_layer_fills_no_zeros_for_sums_that_a_penalty_does_not_take():
    g, x, y = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(3))
    d = torch.randn(2, 3, requires_grad=True)
    gx, gd, gb, gstrength = torch.ops.ggdr.demodulated_act_backward(g, y.detach(), x, d, None, *MODULATION)
    size = gx.square().sum() + gd.square().sum()
    with Calls() as calls:
        fewer = grad(size, (g, x, d), retain_graph=True)
    assert len(calls.of(torch.ops.ggdr.demodulated_act_tangent)) == 1
    assert not [func for func, _ in calls.all if "zero" in func.name()]
    torch.testing.assert_close(fewer, grad(size + 0 * gb.sum() + 0 * gstrength, (g, x, d)))


def test_a_gradient_of_one_result_of_modulation_is_enough():
    g, x = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))
    s = torch.randn(2, 3, requires_grad=True)
    gx, gs = torch.ops.ggdr.modulate_backward(g, x, s)
    torch.testing.assert_close(
        grad(gx.sum(), (g, x, s), retain_graph=True),
        (s.detach()[:, :, None, None].expand_as(g), torch.zeros_like(x), g.detach().sum([2, 3])),
    )
    torch.testing.assert_close(grad(gs.sum(), (g, x, s)), (x.detach(), g.detach(), torch.zeros_like(s)))


def test_what_a_penalty_does_not_depend_on_has_a_gradient_of_zeros():
    """An optimiser would leave out what has none."""
    x, w, b, _, d, strength = leaves()
    y = demodulated_act(conv2d(x, w), d, torch.ones(2, 2), strength, b)
    (g,) = grad(bias_act(y, b, act="lrelu").sum(), x, create_graph=True)
    g.square().sum().backward()
    for t in (b, strength):
        assert t.grad is not None and not t.grad.any()
    assert w.grad.any() and d.grad.any()


def test_shapes_without_data_have_the_same_derivatives():
    def shapes(device):
        inputs = leaves(device)
        first = grad(layer(*inputs).square().sum(), inputs, create_graph=True)
        return [t.shape for t in (*first, *grad(sum(g.square().sum() for g in first), inputs))]

    expected = shapes("cpu")
    assert shapes("meta") == expected
    with FakeTensorMode(allow_non_fake_inputs=True):  # the filter is no fake
        assert shapes("cpu") == expected


def test_no_derivative_of_a_gpus_path_runs_in_python():
    inputs = leaves("meta")
    with OperationTrace() as trace:
        trace.begin("run")
        first = grad(layer(*inputs).square().sum(), inputs, create_graph=True)
        sum(g.square().sum() for g in first).backward()
    assert trace.pieces["run"].functions == 0
    expected = {"bias_act_grad", "upfirdn2d", "modulate_backward", "modulate_tangent", "demodulated_act_backward"}
    assert {f"ggdr::{name}" for name in expected} <= {x.name for x in trace.pieces["run"].operations}
