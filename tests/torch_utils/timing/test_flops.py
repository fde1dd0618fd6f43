# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Counted arithmetic against arithmetic by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.ops.build import set_ops
from ggdr.torch_utils.ops.cpu.conv3x3 import conv3x3, conv3x3_up
from ggdr.torch_utils.ops.linear_layers import linear_layers
from ggdr.torch_utils.ops.modulated_product import modulated_product
from ggdr.torch_utils.timing.flops import count_flops

MULTIPLY_ADD = 2


def test_a_convolution_step_costs_the_forward_once_for_each_gradient_asked_for():
    x, w = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3, requires_grad=True)
    forward = MULTIPLY_ADD * 2 * 5 * 8 * 8 * 3 * 3 * 3
    assert count_flops(lambda: F.conv2d(x, w, padding=1)) == forward
    assert count_flops(lambda: F.conv2d(x, w, padding=1).sum().backward()) == 2 * forward
    x.requires_grad_()
    assert count_flops(lambda: F.conv2d(x, w, padding=1).sum().backward()) == 3 * forward


def test_strides_count_outputs_and_transposed_convolutions_inputs():
    x, w = torch.randn(2, 3, 9, 9, requires_grad=True), torch.randn(5, 3, 3, 3)
    assert count_flops(lambda: F.conv2d(x, w, stride=2)) == MULTIPLY_ADD * 2 * 5 * 4 * 4 * 3 * 9
    forward = MULTIPLY_ADD * 2 * 5 * 9 * 9 * 3 * 9
    assert count_flops(lambda: F.conv_transpose2d(x, w.transpose(0, 1), stride=2)) == forward
    assert count_flops(lambda: F.conv_transpose2d(x, w.transpose(0, 1), stride=2).sum().backward()) == 2 * forward


def test_groups_divide_the_arithmetic_and_depthwise_filters_do_not_count():
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    grouped = torch.randn(6, 2, 3, 3, requires_grad=True)
    forward = MULTIPLY_ADD * 2 * 6 * 8 * 8 * 2 * 9
    assert count_flops(lambda: F.conv2d(x, grouped, padding=1, groups=2).sum().backward()) == 3 * forward
    depthwise = torch.randn(4, 1, 3, 3, requires_grad=True)
    assert count_flops(lambda: F.conv2d(x, depthwise, groups=4).sum().backward()) == 0


def test_gradient_penalties_are_counted_through_the_second_derivative():
    x, w = torch.randn(2, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)

    def penalty() -> None:
        (grad,) = torch.autograd.grad((x @ w).square().sum(), x, create_graph=True)
        grad.square().sum().backward()

    # x w; the gradient y w'; then of that product the gradients for y and w, and of the first those for x and w.
    assert count_flops(penalty) == 6 * MULTIPLY_ADD * 2 * 3 * 5


def penalty_of_convolutions() -> None:
    """A gradient penalty of 3x3 convolutions of all kinds, large enough for compiled ones."""
    img = torch.randn(16, 16, 16, 16, requires_grad=True)
    w = torch.randn(16, 16, 3, 3, requires_grad=True)
    x = conv3x3(conv3x3_up(conv3x3(conv3x3(img, w, padding=1), w), w), w, stride=2)
    (grad,) = torch.autograd.grad(x.square().sum(), img, create_graph=True)
    grad.square().sum().backward()


def test_compiled_operations_count_as_much_as_the_reference(native_ops):
    with Operations() as seen:
        compiled = count_flops(penalty_of_convolutions)
    set_ops("reference")
    assert compiled == count_flops(penalty_of_convolutions) > 0
    assert {"ggdr::conv3x3", "ggdr::conv3x3_weight_grad"} <= seen.names
    assert not {"aten::convolution", "aten::convolution_backward"} & seen.names


class Operations(TorchDispatchMode):
    """The names of all that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def test_a_modulated_product_counts_as_the_reference(native_ops):
    tensors = torch.randn(2, 4, 3, 5), torch.randn(3, 4, 1, 1), torch.randn(2, 4)
    leaves = [t.requires_grad_() for t in tensors]
    run = lambda: modulated_product(*leaves).sum().backward()  # noqa: E731
    compiled = count_flops(run)
    set_ops("reference")
    assert compiled == count_flops(run) == 3 * 2 * (2 * 3 * 5) * 3 * 4


def test_linear_layers_count_as_the_reference(native_ops):
    x, weights = torch.randn(2, 3, 4), [torch.randn(width, 4) for width in (5, 6)]
    leaves = [t.requires_grad_() for t in (x, *weights)]
    biases = [torch.zeros(5), torch.zeros(6)]

    def run():
        sum(y.sum() for y in linear_layers(leaves[0], leaves[1:], biases, [0, 2])).backward()

    compiled = count_flops(run)
    set_ops("reference")
    assert compiled == count_flops(run) == 3 * 2 * 2 * 4 * (5 + 6)
