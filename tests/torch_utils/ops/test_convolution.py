# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Convolutions that are differentiated twice, against PyTorch's and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.ops import convolution
from ggdr.torch_utils.ops.convolution import conv2d, conv_transpose2d

CASES = [  # kernel, stride, padding, height, width
    (3, 1, 1, 5, 4),
    (3, 2, 0, 7, 6),
    (3, 2, 1, 6, 7),
    (3, 2, 0, 4, 5),
    (3, 3, 2, 4, 6),
    (1, 1, 0, 3, 4),
    (1, 2, 0, 5, 4),
    (4, 2, 1, 6, 5),
]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 3e-2, torch.bfloat16: 0.2}  # of the largest


@pytest.fixture(autouse=True)
def own_functions(ops, monkeypatch):
    """A CPU takes the functions of other devices: compiled ones, and those of the reference."""
    monkeypatch.setattr(convolution, "_LEFT_TO_PYTORCH", ())


def tensors(kernel, height, width, *, dtype=torch.float64, memory_format=torch.contiguous_format):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn([2, 3, height, width], generator=rng).to(dtype).contiguous(memory_format=memory_format)
    w = torch.randn([3, 2, kernel, kernel], generator=rng).to(dtype).contiguous(memory_format=memory_format)
    return x.requires_grad_(), w.requires_grad_()


def both_ways(kernel, stride, padding):
    """(ours, PyTorch's) of a convolution and of a transposed one, as functions of x and w [3, 2, kernel, kernel]."""
    args = dict(stride=stride, padding=padding)
    yield lambda x, w: conv2d(x, w.transpose(0, 1), **args), lambda x, w: F.conv2d(x, w.transpose(0, 1), **args)
    yield lambda x, w: conv_transpose2d(x, w, **args), lambda x, w: F.conv_transpose2d(x, w, **args)


def derivatives(conv, x, w):
    """The result, first derivatives, and second derivatives of all of them, in x and w."""
    y = conv(x, w)
    first = grad(y.sin().sum(), (x, w), create_graph=True)
    return [y, *first, *grad(sum(g.float().square().sum() for g in first), (x, w))]


@pytest.mark.parametrize("kernel, stride, padding, height, width", CASES)
def test_all_derivatives_agree_with_finite_differences(kernel, stride, padding, height, width):
    x, w = tensors(kernel, height, width)
    for ours, _ in both_ways(kernel, stride, padding):
        assert gradcheck(ours, (x, w))
        assert gradgradcheck(ours, (x, w), fast_mode=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel, stride, padding, height, width", CASES)
def test_results_and_derivatives_are_as_pytorchs(kernel, stride, padding, height, width, dtype, memory_format):
    x, w = tensors(kernel, height, width, dtype=dtype, memory_format=memory_format)
    for ours, theirs in both_ways(kernel, stride, padding):
        actual, expected = derivatives(ours, x, w), derivatives(theirs, x, w)
        assert torch.equal(actual[0], expected[0]) and actual[0].stride() == expected[0].stride()
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype] * b.abs().max().item())
        # Without a second derivative, the first are PyTorch's own to the last bit.
        first = [grad(conv(x, w).sum(), (x, w)) for conv in (ours, theirs)]
        assert all(torch.equal(a, b) for a, b in zip(*first, strict=True))


class WeightGradients(TorchDispatchMode):
    """Counts the gradients that convolutions compute: [in images, in weights]."""

    def __init__(self):
        super().__init__()
        self.num = [0, 0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            self.num = [n + wanted for n, wanted in zip(self.num, args[-1][:2], strict=True)]
        return func(*args, **(kwargs or {}))


def test_a_gradient_of_a_constant_is_not_computed():
    x, w = tensors(3, 6, 6)
    for inputs, expected in (((x, w.detach()), [1, 0]), ((x.detach(), w), [0, 1]), ((x, w), [1, 1])):
        with WeightGradients() as counter:
            conv2d(inputs[0], inputs[1].transpose(0, 1)).sum().backward()
        assert counter.num == expected


def test_a_gradient_that_is_not_asked_for_is_not_computed(native_ops):
    x, w = tensors(3, 6, 6)
    for wanted, expected in (((x,), [1, 0]), ((w,), [0, 1]), ((x, w), [1, 1])):
        with WeightGradients() as counter:
            grad(conv2d(x, w.transpose(0, 1)).sum(), wanted)
        assert counter.num == expected
    with WeightGradients() as counter:
        (g,) = grad(conv2d(x, w.transpose(0, 1)).sin().sum(), x, create_graph=True)
    assert counter.num == [0, 0]  # that in the image is a transposed convolution
    assert grad(g.square().sum(), w)[0].abs().sum() > 0
    with WeightGradients() as counter:  # weights that are made of what is asked for
        grad(conv2d(x, w.transpose(0, 1) * x.mean()).sum(), x, create_graph=True)
    assert counter.num == [0, 1]


def test_shapes_without_data():
    x, w = (t.detach().to("meta").requires_grad_() for t in tensors(3, 7, 6))
    for ours, theirs in both_ways(3, 2, 0):
        actual, expected = derivatives(ours, x, w), derivatives(theirs, x, w)
        assert [t.shape for t in actual] == [t.shape for t in expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_casts_as_for_pytorchs_own(dtype):
    x, w = tensors(3, 6, 5, dtype=dtype)
    for ours, theirs in both_ways(3, 1, 1):
        results = []
        for conv in (ours, theirs):
            with torch.autocast("cpu", torch.bfloat16):
                y = conv(x, w)
            results.append([y, *grad(y.float().square().sum(), (x, w))])
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*results, strict=True))


def test_compiles_to_one_graph_with_its_derivative():
    x, w = tensors(3, 7, 5)
    for ours, _ in both_ways(3, 2, 0):
        compiled = torch.compile(lambda x, w, f=ours: f(x, w).square().sum(), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, w), ours(x, w).square().sum())
        torch.testing.assert_close(grad(compiled(x, w), (x, w)), grad(ours(x, w).square().sum(), (x, w)))


@pytest.mark.parametrize("transposed", [True, False])
def test_the_operation_is_registered_as_torch_expects(native_ops, transposed):
    x, w = tensors(3, 5, 4)
    w = w if transposed else w.detach().transpose(0, 1).requires_grad_()
    torch.library.opcheck(torch.ops.ggdr.convolution.default, (x, w, 2, 1, transposed))


@pytest.mark.parametrize("strict", [True, False])
def test_exports_as_one_convolution(strict):
    class Layer(torch.nn.Module):
        def forward(self, x, w):
            return conv2d(x, w)

    x, w = torch.randn(1, 3, 5, 5), torch.randn(2, 3, 3, 3)
    program = torch.export.export(Layer(), (x, w), strict=strict)
    torch.testing.assert_close(program.module()(x, w), F.conv2d(x, w))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kernel, stride, padding, height, width", CASES)
def test_gpu_agrees_with_cpu_to_the_second_derivative(kernel, stride, padding, height, width):
    x, w = tensors(kernel, height, width)
    on_gpu = [t.detach().cuda().requires_grad_() for t in (x, w)]
    for ours, theirs in both_ways(kernel, stride, padding):
        actual = [t.cpu() for t in derivatives(ours, *on_gpu)]
        torch.testing.assert_close(actual, derivatives(theirs, x, w))
