# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The compiled passes around a modulated convolution against plain tensor operations."""

import pytest
import torch

from ggdr.torch_utils.ops.build import set_ops
from ggdr.torch_utils.ops.cpu.modulation import demodulated_act, modulate

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}  # of the largest value
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 17, 4, 4), (2, 64, 1, 300), (2, 40, 33, 17)]


def inputs(shape, dtype=torch.float32, memory_format=torch.channels_last, noise="images"):
    n, channels, height, width = shape
    rng = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(size, generator=rng)  # noqa: E731
    x, gy = (draw(*shape).to(dtype).contiguous(memory_format=memory_format) for _ in range(2))
    noise = {"images": draw(n, 1, height, width), "constant": draw(height, width), "none": None}[noise]
    return x, draw(n, channels), noise, draw().squeeze(), draw(channels), gy


def gradients(func, tensors, gy):
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = func(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, gy)]


def assert_near(actual, exact, dtype):
    assert actual.shape == exact.shape
    error = (actual.float() - exact).abs().max() / (exact.abs().max() + 1)
    assert error < TOLERANCE[dtype], f"error {error:.1e} of the largest value"


def in_both_modes(run):
    results = []
    for mode in ("native", "reference"):
        set_ops(mode)
        results.append(run())
    return zip(*results, strict=True)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_modulate_agrees_with_the_reference(native_ops, shape, dtype, memory_format):
    x, styles, _, _, _, gy = inputs(shape, dtype, memory_format)
    set_ops("reference")
    expected = gradients(modulate, [x.float(), styles], gy.float())
    set_ops("native")
    for ours, exact in zip(gradients(modulate, [x, styles], gy), expected, strict=True):
        assert_near(ours, exact, dtype)


@pytest.mark.parametrize("noise", ["images", "constant", "none"])
@pytest.mark.parametrize("dtype, clamp", [(torch.float32, None), (torch.float32, 0.7), (torch.bfloat16, None)])
@pytest.mark.parametrize("shape", SHAPES)
def test_demodulated_act_agrees_with_the_reference(native_ops, shape, dtype, clamp, noise):
    x, d, noise, strength, b, gy = inputs(shape, dtype, noise=noise)
    leaves = [d, b] if noise is None else [d, b, strength]

    def run(dtype):
        func = lambda x, d, b, s=strength: demodulated_act(x, d, noise, s, b, gain=0.7, clamp=clamp)  # noqa: E731
        return gradients(func, [x.to(dtype), *leaves], gy.to(dtype))

    set_ops("reference")
    expected = run(torch.float32)
    set_ops("native")
    for ours, exact in zip(run(dtype), expected, strict=True):
        assert_near(ours, exact, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradient_is_zero_exactly_where_the_result_was_clamped(native_ops, dtype):
    x, d, noise, strength, b, gy = inputs((2, 24, 8, 8), dtype)
    y, gx = gradients(lambda x: demodulated_act(x, d, noise, strength, b, clamp=0.7, gain=0.5), [x], gy)
    bound = torch.tensor(0.35, dtype=dtype)
    assert 0.1 < (y.abs() == bound).float().mean() < 0.9
    assert torch.equal(gx == 0, y.abs() == bound)


@pytest.mark.parametrize("clamp", [None, 0.7])
def test_second_derivatives_agree_with_the_reference(native_ops, clamp):
    x, d, noise, strength, b, gy = inputs((2, 5, 4, 6))

    def run():
        leaves = [t.detach().requires_grad_() for t in (x, d, strength, b, gy)]
        x_, d_, strength_, b_, gy_ = leaves
        y = demodulated_act(modulate(x_, d_), d_, noise, strength_, b_, clamp=clamp)
        first = torch.autograd.grad(y, [x_, d_, strength_, b_], gy_, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x_, d_, gy_])
        return [*first, *second]

    for ours, reference in in_both_modes(run):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_sums_do_not_depend_on_the_number_of_threads(native_ops):
    x, d, noise, strength, b, gy = inputs((3, 24, 40, 33))
    threads, results = torch.get_num_threads(), []
    func = lambda x, d, b, s: demodulated_act(modulate(x, d), d, noise, s, b)  # noqa: E731
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(gradients(func, [x, d, b, strength], gy))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_nan_and_infinity_reach_the_result(native_ops):
    x, d, noise, strength, b, _ = inputs((1, 16, 2, 2))
    x[0, 3] = torch.tensor([[float("nan"), float("inf")], [1, 1]])
    y = demodulated_act(x, d, noise, strength, b)
    assert y[0, 3, 0].isfinite().tolist() == [False, False] and y[0, 3, 1].isfinite().all()
    assert demodulated_act(x, d, noise, strength, b, clamp=1)[0, 3, 0, 0].isnan()


def test_registration_is_complete(native_ops):
    x, d, noise, strength, b, gy = inputs((2, 3, 4, 5))
    for t in (x, d, strength, b):
        t.requires_grad_()
    ops = torch.ops.ggdr
    torch.library.opcheck(ops.modulate.default, (x, d))
    torch.library.opcheck(ops.demodulated_act.default, (x, d, noise, strength, b, 0.2, 1.4, -1.0))
    x, d, strength = (t.detach() for t in (x, d, strength))
    torch.library.opcheck(ops.modulate_backward.default, (gy, x, d))
    y = ops.demodulated_act(x, d, noise, strength, b.detach(), 0.2, 1.4, -1.0)
    torch.library.opcheck(ops.demodulated_act_backward.default, (gy, y, x, d, noise, strength, 0.2, 1.4, -1.0))


def test_wrong_arguments_are_named(native_ops):
    x, d, noise, strength, b, _ = inputs((2, 3, 4, 5))
    with pytest.raises(RuntimeError, match=r"d must be \[2, 3\] float32, got \[2, 4\]"):
        demodulated_act(x, torch.randn(2, 4), noise, strength, b)
    with pytest.raises(RuntimeError, match="noise must be"):
        demodulated_act(x, d, noise[:, :, :2], strength, b)
