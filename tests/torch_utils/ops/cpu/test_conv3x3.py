# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The compiled 3x3 convolution against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.ops.build import set_ops
from ggdr.torch_utils.ops.cpu import conv3x3 as module
from ggdr.torch_utils.ops.cpu.conv3x3 import conv3x3, conv3x3_up, is_compiled

# Rounding relative to the root mean square of the result.
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 0.05}

SCHEMES = [(1, 1), (1, 0), (2, 0)]  # stride and padding
SHAPES = [  # n, inputs, outputs, height, width of the smaller images
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 9),
    (3, 17, 33, 4, 4),
    (1, 64, 40, 1, 13),
    (2, 129, 128, 5, 4),
    (5, 16, 32, 32, 32),
    (1, 8, 8, 61, 83),
]


@pytest.fixture(autouse=True)
def native(native_ops):
    """Everything here takes the compiled kernels."""


@pytest.fixture
def no_minimum(monkeypatch):
    """Also tiny images take the compiled kernels."""
    monkeypatch.setattr(module, "_MIN_TILES", dict.fromkeys([(torch.float32, 1), (torch.float32, 2)], 1))
    monkeypatch.setattr(module, "_MIN_CHANNELS", 1)


def tensors(shape, dtype=torch.float32, *, stride=1, padding=0, memory_format=torch.channels_last):
    n, inputs, outputs, height, width = shape
    large = [n, inputs, *(stride * (size - 1) + 3 - 2 * padding for size in (height, width))]
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(large, generator=rng).to(dtype).contiguous(memory_format=memory_format)
    w = torch.randn([outputs, inputs, 3, 3], generator=rng).contiguous(memory_format=memory_format)
    gy = torch.randn([n, outputs, height, width], generator=rng).to(dtype).contiguous(memory_format=memory_format)
    return x, w, gy


def direct(x, w, stride, padding):
    return F.conv2d(x, w, stride=stride, padding=padding)


def assert_near(actual, expected, dtype):
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs().max() / expected.square().mean().sqrt()
    assert error < TOLERANCE[dtype], f"error {error:.1e} of the root mean square"


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_agree_with_direct_sums(shape, stride, padding, dtype, memory_format):
    x, w, gy = tensors(shape, dtype, stride=stride, padding=padding, memory_format=memory_format)
    xd, wd = x.double().requires_grad_(), w.double().requires_grad_()
    y = direct(xd, wd, stride, padding)
    gx, gw = torch.autograd.grad(y, [xd, wd], gy.double())
    assert_near(torch.ops.ggdr.conv3x3(x, w, stride, padding, False), y, dtype)
    assert_near(torch.ops.ggdr.conv3x3(gy, w, stride, padding, True), gx, dtype)
    assert_near(torch.ops.ggdr.conv3x3_weight_grad(x, gy, stride, padding), gw, dtype)


@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
def test_rounding_stays_near_that_of_the_direct_sum(stride, padding):
    x, w, _ = tensors((2, 256, 64, 16, 16), stride=stride, padding=padding)
    exact = direct(x.double(), w.double(), stride, padding)
    ours = torch.ops.ggdr.conv3x3(x, w, stride, padding, False)
    errors = [y - exact for y in (direct(x, w, stride, padding), ours)]
    plain, ours = (error.square().mean().sqrt() for error in errors)
    assert ours / plain < 10


def derivatives(conv, x, w, gy):
    """First derivatives, and second derivatives of all of them."""
    x, w, gy = (t.detach().requires_grad_() for t in (x, w, gy))
    gx, gw = torch.autograd.grad(conv(x, w).sin(), [x, w], gy, create_graph=True)
    return [gx, gw, *torch.autograd.grad(gx.square().sum() + gw.pow(3).sum(), [x, w, gy])]


@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
def test_first_and_second_derivatives_agree_with_those_of_direct_sums(no_minimum, stride, padding):
    x, w, gy = tensors((2, 5, 6, 7, 5), stride=stride, padding=padding)
    assert is_compiled(x, w, stride=stride, padding=padding)
    expected = derivatives(lambda x, w: direct(x, w, stride, padding), x.double(), w.double(), gy.double())
    ours = derivatives(lambda x, w: conv3x3(x, w, stride=stride, padding=padding), x, w, gy)
    for one, exact in zip(ours, expected, strict=True):
        assert_near(one, exact, torch.float32)


def test_derivatives_of_the_transposed_convolution_agree_with_those_of_direct_sums(no_minimum):
    large, w, small = tensors((2, 5, 6, 7, 5), stride=2)
    double = [t.double() for t in (small, w, large)]
    expected = derivatives(lambda x, w: F.conv_transpose2d(x, w, stride=2), *double)
    for ours, exact in zip(derivatives(conv3x3_up, small, w, large), expected, strict=True):
        assert_near(ours, exact, torch.float32)


def test_gradients_of_weights_that_nobody_needs_are_not_computed(no_minimum):
    x, w, _ = tensors((1, 4, 5, 6, 6))
    x, w = x.requires_grad_(), w.requires_grad_()
    calls = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    with Calls():
        (gx,) = torch.autograd.grad(conv3x3(x, w, padding=1).sin().sum(), x, create_graph=True)
    ops = torch.ops.ggdr
    assert ops.conv3x3.default in calls and ops.conv3x3_weight_grad.default not in calls
    with Calls():
        assert torch.autograd.grad(gx.square().sum(), w)[0].abs().max() > 0
    assert calls.count(ops.conv3x3_weight_grad.default) == 2


@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
def test_results_do_not_depend_on_the_number_of_threads(stride, padding):
    x, w, gy = tensors((5, 48, 40, 17, 19), stride=stride, padding=padding)
    threads, results = torch.get_num_threads(), []
    ops = torch.ops.ggdr
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            both = [ops.conv3x3(x, w, stride, padding, False), ops.conv3x3(gy, w, stride, padding, True)]
            results.append([*both, ops.conv3x3_weight_grad(x, gy, stride, padding)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
def test_nan_and_infinity_reach_the_result(stride, padding):
    x, w, _ = tensors((1, 16, 16, 8, 8), stride=stride, padding=padding)
    for value in (float("nan"), float("inf")):
        x[0, 0, 3, 3] = value
        y = torch.ops.ggdr.conv3x3(x, w, stride, padding, False)
        assert not y[0, :, 3 // stride, 3 // stride].isfinite().any()


@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
def test_empty_batches(stride, padding):
    x, w, gy = tensors((0, 4, 6, 8, 8), stride=stride, padding=padding)
    assert torch.ops.ggdr.conv3x3(x, w, stride, padding, False).shape == gy.shape
    assert torch.ops.ggdr.conv3x3(gy, w, stride, padding, True).shape == x.shape
    assert torch.equal(torch.ops.ggdr.conv3x3_weight_grad(x, gy, stride, padding), torch.zeros(6, 4, 3, 3))


def takes_kernel(x, *, up=False, **settings):
    w = torch.randn(16, 16, 3, 3, dtype=x.dtype, requires_grad=True)
    y = conv3x3_up(x, w) if up else conv3x3(x, w, **settings)
    compiled = "ggdr" in y.grad_fn.name()
    assert up or compiled == is_compiled(x, w, **settings)
    return compiled


def test_large_images_take_the_kernels_and_the_rest_the_direct_sum():
    assert takes_kernel(torch.randn(4, 16, 32, 32), padding=1)
    assert takes_kernel(torch.randn(4, 16, 18, 18)) and not takes_kernel(torch.randn(3, 16, 18, 18))
    assert takes_kernel(torch.randn(4, 16, 33, 33), stride=2)
    assert takes_kernel(torch.randn(4, 16, 16, 16), up=True)
    assert not takes_kernel(torch.randn(1, 16, 4, 4), padding=1)
    assert not takes_kernel(torch.randn(4, 16, 32, 32), stride=2)
    assert not takes_kernel(torch.randn(4, 16, 33, 33), stride=2, padding=1)
    assert not takes_kernel(torch.randn(4, 16, 32, 32, dtype=torch.float64), padding=1)
    set_ops("reference")
    assert not takes_kernel(torch.randn(4, 16, 32, 32), padding=1)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("stride", "padding"), SCHEMES)
def test_registration_is_complete(stride, padding, transpose):
    x, w, gy = (t.requires_grad_() for t in tensors((2, 4, 5, 3, 4), stride=stride, padding=padding))
    torch.library.opcheck(torch.ops.ggdr.conv3x3.default, (gy if transpose else x, w, stride, padding, transpose))
    torch.library.opcheck(torch.ops.ggdr.conv3x3_weight_grad.default, (x, gy, stride, padding))


def test_wrong_arguments_are_named():
    x, w = torch.randn(1, 4, 8, 8), torch.randn(4, 3, 3, 3)
    with pytest.raises(ValueError, match=r"w must be \[Cout, 4, 3, 3\] for x \(1, 4, 8, 8\), got \(4, 3, 3, 3\)"):
        conv3x3(x, w)
    with pytest.raises(ValueError, match=r"w must be \[4, Cout, 3, 3\] for x \(1, 4, 8, 8\), got \(3, 3, 3, 3\)"):
        conv3x3_up(x, w[:3])
    with pytest.raises(RuntimeError, match="x must be .* float32 or bfloat16, got .* Double"):
        torch.ops.ggdr.conv3x3(x.double(), torch.randn(4, 4, 3, 3), 1, 1, False)
    with pytest.raises(RuntimeError, match="stride 2 needs odd sizes"):
        torch.ops.ggdr.conv3x3(x, torch.randn(4, 4, 3, 3), 2, 0, False)
    with pytest.raises(RuntimeError, match="padding must be 0, or 1 with stride 1, got 1 with stride 2"):
        torch.ops.ggdr.conv3x3(x, torch.randn(4, 4, 3, 3), 2, 1, False)
    with pytest.raises(RuntimeError, match="with padding 0 x must have at least 3 pixels a side, got"):
        torch.ops.ggdr.conv3x3(x[:, :, :2], torch.randn(4, 4, 3, 3), 1, 0, False)
