# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""bias_act, upfirdn2d and conv2d_resample against reference vectors, definitions and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from ggdr.torch_utils.ops.build import set_ops
from ggdr.torch_utils.ops.conv2d_resample import conv2d_resample
from ggdr.torch_utils.ops.upfirdn2d import downsample2d, setup_filter, upfirdn2d, upsample2d
from tests.golden_cases import bias_act_errors, upfirdn2d_errors
from tests.reference_vectors import Golden, assert_all_agree, golden_params

FIR = setup_filter([1, 3, 3, 1])


@pytest.fixture(autouse=True, params=["native", "reference"])
def ops_mode(request):
    """Every test here holds for the compiled operations and for the reference."""
    if request.param == "native":
        request.getfixturevalue("native_ops")
    set_ops(request.param)
    yield
    set_ops(None)


@pytest.mark.parametrize("path", golden_params("ops"))
def test_upfirdn2d_agrees_with_reference_vectors(path):
    assert_all_agree(upfirdn2d_errors(Golden(path)))


@pytest.mark.parametrize("path", golden_params("ops"))
def test_bias_act_agrees_with_reference_vectors(path):
    assert_all_agree(bias_act_errors(Golden(path)))


def test_upfirdn2d_follows_its_definition_in_one_dimension():
    x = torch.tensor([1.0, 2.0, 5.0]).reshape(1, 1, 1, 3)
    f = torch.tensor([[1.0, 10.0]])
    # Convolution of 1 0 2 0 5 0, padded left by one zero, with (1, 10): y[i] = u[i] + 10 u[i-1].
    y = upfirdn2d(x, f, up=(2, 1), padding=(1, 0, 0, 0))
    assert y.flatten().tolist() == [1.0, 10.0, 2.0, 20.0, 5.0, 50.0]
    assert upfirdn2d(x, f, up=(2, 1), padding=(1, 0, 0, 0), flip_filter=True).flatten()[0] == 10.0
    assert upfirdn2d(x, f, up=(2, 1), down=(2, 1), padding=(1, 0, 0, 0)).flatten().tolist() == [1.0, 2.0, 5.0]


def test_upsampling_and_downsampling_keep_a_constant_image():
    x = torch.full([1, 2, 12, 12], 3.0)
    torch.testing.assert_close(upsample2d(x, FIR)[:, :, 3:-3, 3:-3], torch.full([1, 2, 18, 18], 3.0))
    torch.testing.assert_close(downsample2d(x, FIR)[:, :, 1:-1, 1:-1], torch.full([1, 2, 4, 4], 3.0))


def test_upfirdn2d_is_the_same_in_any_memory_format():
    x = torch.randn(2, 5, 9, 7)
    y = upfirdn2d(x, FIR, up=2, down=1, padding=2)
    torch.testing.assert_close(upfirdn2d(x.to(memory_format=torch.channels_last), FIR, up=2, padding=2), y)


def test_separable_filter_equals_its_outer_product():
    taps = torch.tensor([1.0, -2.0, 4.0])
    x = torch.randn(2, 3, 8, 9)
    torch.testing.assert_close(
        upfirdn2d(x, taps, up=2, padding=2, gain=3.0),
        upfirdn2d(x, torch.outer(taps, taps), up=2, padding=2, gain=3.0),
    )


@pytest.mark.parametrize("up,down", [(2, 1), (1, 2), (2, 3)])
def test_upfirdn2d_is_twice_differentiable(up, down):
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    f = torch.randn(3, 4, dtype=torch.float64)

    def func(x):
        return upfirdn2d(x, f, up=up, down=down, padding=(1, 2, 3, 0)).square()

    assert torch.autograd.gradcheck(func, x)
    assert torch.autograd.gradgradcheck(func, x)


def test_second_derivatives_of_the_reference_have_no_convolution_for_each_channel():
    set_ops("reference")
    calls = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    x = torch.randn(1, 50, 8, 8, requires_grad=True)
    with Calls():
        y = upfirdn2d(x, FIR, down=2, padding=1)
        (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    ops = torch.ops.aten
    # Of the second derivative: from the first one back to the cosines, and from those to the image.
    assert [calls.count(op) for op in (ops.convolution, ops.convolution_backward)] == [2, 2]
    assert second.abs().max() > 0


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_is_twice_differentiable(act):
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: bias_act(x, b, act=act, clamp=0.9), (x, b))
    assert torch.autograd.gradgradcheck(lambda x, b: bias_act(x, b, act=act, clamp=0.9), (x, b))


def test_bias_act_applies_bias_activation_gain_and_clamp_in_order():
    x = torch.tensor([[-3.0, 1.0, 9.0]])
    y = bias_act(x, torch.tensor([1.0, 0.0, 1.0]), act="lrelu", alpha=0.5, gain=2.0, clamp=4.0)
    assert y.tolist() == [[-2.0, 2.0, 4.0]]
    assert bias_act(torch.ones(1, 1), act="lrelu").item() == pytest.approx(math.sqrt(2))


def test_bias_act_names_what_is_wrong():
    with pytest.raises(ValueError, match="unknown activation 'gelu'"):
        bias_act(torch.ones(1, 1), act="gelu")
    with pytest.raises(ValueError, match=r"bias of shape \(3,\)"):
        bias_act(torch.ones(1, 2), torch.ones(3))
    with pytest.raises(ValueError, match="alpha and clamp must be at least 0, got -0.1 and None"):
        bias_act(torch.ones(1, 2), act="lrelu", alpha=-0.1)


@pytest.mark.parametrize("k", [1, 3])
def test_upsampling_convolution_equals_zero_insertion_filter_and_convolution(k):
    x, w = torch.randn(2, 3, 6, 6), torch.randn(4, 3, k, k)
    expected = F.conv2d(F.pad(upsample2d(F.pad(x, [4] * 4), FIR), [k // 2] * 4), w.flip([2, 3]))[:, :, 8:-8, 8:-8]
    torch.testing.assert_close(conv2d_resample(x, w, FIR, up=2), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_downsampling_convolution_equals_filter_convolution_and_decimation(k):
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, k, k)
    smooth = upfirdn2d(F.pad(x, [8] * 4), FIR, padding=2)
    expected = F.conv2d(smooth, w, padding=k // 2)[:, :, 9:17:2, 9:17:2]
    torch.testing.assert_close(conv2d_resample(x, w, FIR, down=2), expected, rtol=1e-4, atol=1e-4)
