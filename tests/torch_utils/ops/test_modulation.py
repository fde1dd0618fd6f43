# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The compiled passes around a modulated convolution against plain tensor operations, on CPUs and on GPUs."""

import pytest
import torch

from ggdr.torch_utils.ops.build import set_ops
from ggdr.torch_utils.ops.modulation import COMPILED_TYPES, demodulated_act, modulate
from tests.torch_utils.ops.test_native_ops import DEVICES, GPU

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 0.02}  # of the largest
CASES = [("cpu", dtype) for dtype in COMPILED_TYPES["cpu"]]
CASES += [pytest.param("cuda", dtype, marks=GPU) for dtype in COMPILED_TYPES["cuda"]]
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 17, 4, 4), (2, 64, 1, 300), (2, 40, 33, 17)]


def inputs(shape, dtype=torch.float32, memory_format=torch.channels_last, noise="images", device="cpu"):
    n, channels, height, width = shape
    rng = torch.Generator().manual_seed(0)
    accurate = torch.promote_types(dtype, torch.float32)
    draw = lambda *size: torch.randn(size, generator=rng).to(accurate).to(device)  # noqa: E731
    x, gy = (draw(*shape).to(dtype).contiguous(memory_format=memory_format) for _ in range(2))
    noise = {"images": draw(n, 1, height, width), "constant": draw(height, width), "none": None}[noise]
    return x, draw(n, channels), noise, draw().squeeze(), draw(channels), gy


def gradients(func, tensors, gy):
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = func(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, gy)]


def assert_near(actual, exact, dtype):
    assert actual.shape == exact.shape
    error = (actual.double() - exact).abs().max() / (exact.abs().max() + 1)
    assert error < TOLERANCE[dtype], f"error {error:.1e} of the largest value"


def in_both_modes(run):
    results = []
    for mode in ("native", "reference"):
        set_ops(mode)
        results.append(run())
    return zip(*results, strict=True)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("device, dtype", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_modulate_agrees_with_the_reference(native_ops, shape, device, dtype, memory_format):
    x, styles, _, _, _, gy = inputs(shape, dtype, memory_format, device=device)
    set_ops("reference")
    expected = gradients(modulate, [x.double(), styles.double()], gy.double())
    set_ops("native")
    for ours, exact in zip(gradients(modulate, [x, styles], gy), expected, strict=True):
        assert_near(ours, exact, dtype)


@pytest.mark.parametrize("noise", ["images", "constant", "none"])
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("device, dtype", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_demodulated_act_agrees_with_the_reference(native_ops, shape, device, dtype, clamp, noise):
    x, d, noise, strength, b, gy = inputs(shape, dtype, noise=noise, device=device)
    leaves = [x, d, b] if noise is None else [x, d, b, strength]

    def run(noise, *leaves):
        func = lambda x, d, b, s=strength: demodulated_act(x, d, noise, s, b, gain=0.7, clamp=clamp)  # noqa: E731
        return gradients(func, leaves, near_kink)

    # At a kink either gradient is right.
    set_ops("reference")
    exact = [t if t is None else t.double() for t in (noise, *leaves)]
    near_kink = torch.zeros_like(x).double()
    y = run(*exact)[0]
    bound = 0.7 * (clamp or float("inf"))
    kink = (y.abs() < 0.02) | ((y.abs() - bound).abs() < 0.02)
    near_kink = gy.double().masked_fill(kink, 0)
    expected = run(*exact)
    set_ops("native")
    near_kink = near_kink.to(dtype)
    for ours, exact in zip(run(noise, *leaves), expected, strict=True):
        assert_near(ours, exact, dtype)


@pytest.mark.parametrize("device, dtype", CASES)
def test_gradient_is_zero_exactly_where_the_result_was_clamped(native_ops, device, dtype):
    x, d, noise, strength, b, gy = inputs((2, 24, 8, 8), dtype, device=device)
    y, gx = gradients(lambda x: demodulated_act(x, d, noise, strength, b, clamp=0.7, gain=0.5), [x], gy)
    bound = torch.tensor(0.35, dtype=dtype, device=device)
    assert 0.1 < (y.abs() == bound).float().mean() < 0.9
    assert torch.equal(gx == 0, y.abs() == bound)


@pytest.mark.parametrize("first_of", [("x", "d", "strength", "b"), ("x",), ("d",), ("d", "b")])
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_up_to_the_third_agree_with_the_reference(native_ops, device, clamp, first_of):
    x, d, noise, strength, b, gy = inputs((2, 5, 4, 6), device=device)

    def run():
        named = {"x": x, "d": d, "strength": strength, "b": b, "gy": gy}
        leaves = {name: t.detach().requires_grad_() for name, t in named.items()}
        x_, d_, strength_, b_, gy_ = leaves.values()
        y = demodulated_act(modulate(x_, d_), d_, noise, strength_, b_, clamp=clamp)
        first = torch.autograd.grad(y, [leaves[name] for name in first_of], gy_, create_graph=True)
        size = sum(g.square().sum() for g in first)
        second = torch.autograd.grad(size, [x_, d_, gy_], create_graph=True)
        third = torch.autograd.grad(sum(g.square().sum() for g in second) / 1000, [x_, d_, gy_])
        return [y, *first, *second, *third]

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


@pytest.mark.parametrize("device", DEVICES)
def test_nan_and_infinity_reach_the_result(native_ops, device):
    x, d, noise, strength, b, _ = inputs((1, 16, 2, 2), device=device)
    x[0, 3] = torch.tensor([[float("nan"), float("inf")], [1, 1]])
    y = demodulated_act(x, d, noise, strength, b)
    assert y[0, 3, 0].isfinite().tolist() == [False, False] and y[0, 3, 1].isfinite().all()
    assert demodulated_act(x, d, noise, strength, b, clamp=1)[0, 3, 0, 0].isnan()


@pytest.mark.parametrize("device", DEVICES)
def test_registration_is_complete(native_ops, device):
    x, d, noise, strength, b, gy = inputs((2, 3, 4, 5), device=device)
    hx, hd, constants = x.neg(), d.neg(), (0.2, 1.4, -1.0)
    y = demodulated_act(x, d, noise, strength, b)
    for t in (x, d, strength, b, gy, hx, hd):
        t.requires_grad_()
    ops = torch.ops.ggdr
    for op, args in {
        ops.modulate: (x, d),
        ops.modulate_backward: (gy, x, d),
        ops.modulate_tangent: (x, d, hx, hd),
        ops.demodulated_act: (x, d, noise, strength, b, *constants),
        ops.demodulated_act_backward: (gy, y, x, d, noise, *constants),
        ops.demodulated_act_tangent: (y, x, d, noise, hx, hd, strength, b, *constants),
    }.items():
        torch.library.opcheck(op.default, args)
    torch.library.opcheck(ops.demodulated_act_tangent.default, (y, x, d, None, hx, hd, None, None, *constants))


def test_wrong_arguments_are_named(native_ops):
    x, d, noise, strength, b, _ = inputs((2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"d must be \[2, 3\] Float on cpu, got \[2, 4\] Float on cpu"):
        demodulated_act(x, torch.randn(2, 4), noise, strength, b)
    with pytest.raises(ValueError, match=r"noise must be \[2, 1, 4, 5\] Float"):
        demodulated_act(x, d, noise[:, :, :2], strength, b)
    with pytest.raises(ValueError, match=r"gain must be positive, got 0.2 and -1"):
        torch.ops.ggdr.demodulated_act(x, d, noise, strength, b, 0.2, -1.0, -1.0)
    with pytest.raises(ValueError, match=r"hx must be like x, .*\[2, 3, 4, 5\], got .*\[2, 3, 4, 4\]"):
        torch.ops.ggdr.modulate_tangent(x, d, x[..., 1:], d)


def test_values_of_another_type_than_the_kernels_take_go_the_plain_way(native_ops):
    x, d, noise, strength, b, _ = inputs((2, 3, 4, 5))
    y = demodulated_act(x, d.double(), noise.half(), strength, b)
    torch.testing.assert_close(y, demodulated_act(x, d, noise.half().float(), strength, b), rtol=1e-3, atol=1e-3)


def test_noise_that_is_looked_for_has_a_gradient(native_ops):
    x, d, noise, strength, b, gy = inputs((2, 3, 4, 5))
    run = lambda: gradients(lambda x, noise: demodulated_act(x, d, noise, strength, b), [x, noise], gy)  # noqa: E731
    for ours, reference in in_both_modes(run):
        torch.testing.assert_close(ours, reference)
    assert run()[2].any()
