# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Kernels, bytes, arithmetic and memory of code on the meta device against those by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.function import BackwardCFunction, Function

from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.grid_sample import grid_sample
from ggdr.torch_utils.ops.linear_layers import linear_layers
from ggdr.torch_utils.ops.modulated_product import modulated_product
from ggdr.torch_utils.ops.modulation import demodulated_act, modulate
from ggdr.torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
from ggdr.torch_utils.timing.live_memory import LiveMemory, tensor_bytes
from ggdr.torch_utils.timing.operations import OperationTrace

FLOAT, HALF, MULTIPLY_ADD = 4, 2, 2


def empty(*size: int, **kwargs) -> torch.Tensor:
    return torch.empty(size, device="meta", **kwargs)


def traced(run, **kwargs):
    """The piece in which `run` ran."""
    with OperationTrace(**kwargs) as trace:
        trace.begin("run")
        run()
    return trace.pieces["run"]


def only(run, **kwargs):
    """The single operation that `run` is."""
    (operation,) = traced(run, **kwargs).operations
    return operation


def test_a_convolution_moves_images_weights_and_results_and_multiplies_each_pair_once():
    x, w = empty(2, 3, 8, 8, dtype=torch.float16), empty(5, 3, 3, 3, dtype=torch.float16)
    found = only(lambda: F.conv2d(x, w, padding=1))
    flops = MULTIPLY_ADD * 2 * 5 * 8 * 8 * 3 * 3 * 3
    num_bytes = HALF * (2 * 3 * 8 * 8 + 5 * 3 * 3 * 3 + 2 * 5 * 8 * 8)
    assert found == ("convolution", 1, num_bytes, flops, "fp16")


def test_each_gradient_of_a_convolution_is_a_kernel_that_reads_the_gradient_of_the_result():
    x, w = empty(2, 3, 8, 8, requires_grad=True), empty(5, 3, 3, 3, requires_grad=True)
    grad = empty(2, 5, 8, 8)
    found = traced(lambda: F.conv2d(x, w, padding=1).backward(grad)).operations[1]
    flops = MULTIPLY_ADD * 2 * 5 * 8 * 8 * 3 * 3 * 3
    num_bytes = FLOAT * 2 * (x.numel() + w.numel() + grad.numel())
    assert found == ("convolution_backward", 2, num_bytes, 2 * flops, "fp32")


@pytest.mark.parametrize("channels_last", [(), ("x",), ("w",), ("x", "w")], ids=" ".join)
def test_a_convolution_gives_channels_last_if_images_or_weights_are(channels_last):
    x, w = empty(4, 3, 8, 8)[::2], empty(5, 3, 1, 1)
    x = empty(4, 3, 8, 8).to(memory_format=torch.channels_last)[::2] if "x" in channels_last else x
    w = w.to(memory_format=torch.channels_last) if "w" in channels_last else w
    outs = []
    traced(lambda: outs.append(F.conv2d(x, w)))
    assert outs[0].is_contiguous(memory_format=torch.channels_last) == bool(channels_last)
    assert outs[0].is_contiguous() != bool(channels_last)


def test_a_matrix_product_is_in_the_type_of_its_factors():
    a, b = empty(7, 11, dtype=torch.bfloat16), empty(11, 13, dtype=torch.bfloat16)
    num_bytes = HALF * (7 * 11 + 11 * 13 + 7 * 13)
    assert only(lambda: a @ b) == ("mm", 1, num_bytes, MULTIPLY_ADD * 7 * 11 * 13, "bf16")


def test_tf32_is_for_convolutions_of_float32():
    x, w = empty(1, 3, 4, 4), empty(5, 3, 1, 1)
    assert only(lambda: F.conv2d(x, w), tf32=True).math == "tf32"
    assert only(lambda: F.conv2d(x, w)).math == "fp32"
    a = empty(4, 4)
    assert only(lambda: a @ a, tf32=True).math == "fp32"
    half = x.half(), w.half()
    assert only(lambda: F.conv2d(*half), tf32=True).math == "fp16"


def test_an_elementwise_operation_reads_its_operands_and_writes_its_result():
    x, y = empty(100), empty(100)
    assert only(lambda: x + y).num_bytes == 3 * 100 * FLOAT
    assert only(lambda: x.add_(y)).num_bytes == 3 * 100 * FLOAT
    assert only(lambda: x.copy_(y)).num_bytes == 2 * 100 * FLOAT
    assert only(lambda: x.zero_()).num_bytes == 100 * FLOAT
    out = empty(100)
    assert only(lambda: torch.add(x, y, out=out)).num_bytes == 3 * 100 * FLOAT


def test_what_is_expanded_is_read_once():
    image, row = empty(50, 100), empty(100)
    assert only(lambda: image * row).num_bytes == (2 * 50 * 100 + 100) * FLOAT
    assert only(lambda: row.expand(50, 100) + image).num_bytes == (2 * 50 * 100 + 100) * FLOAT


def test_views_allocations_and_work_of_the_cpu_launch_nothing_but_are_dispatched():
    x = empty(4, 6)
    piece = traced(lambda: (x.view(24), x.t(), x[1:], x.detach(), torch.empty_like(x), torch.ones(3) * 2))
    assert (piece.operations, piece.host_ops) == ([], 7)
    assert only(lambda: torch.ones(3).to("meta")).num_bytes == 3 * FLOAT


def test_compiled_operations_count_as_their_kernels(native_ops):
    x, b = empty(2, 5, 8, 8, requires_grad=True), empty(5, requires_grad=True)
    n = x.numel() * FLOAT
    forward, backward = traced(lambda: bias_act(x, b, act="lrelu").backward(empty(2, 5, 8, 8))).operations
    assert forward == ("ggdr::bias_act", 1, 2 * n + 5 * FLOAT, 0, "fp32")
    # The gradient from that of the result and the result, and its sum by channel; the bias is handed over, not read.
    assert backward[:2] == ("ggdr::bias_act_grad", 2)
    assert 4 * n <= backward.num_bytes <= 4 * n + 2 * 5 * FLOAT
    f = setup_filter([1, 3, 3, 1]).to("meta")
    assert only(lambda: upfirdn2d(x.detach(), f, padding=1))[:2] == ("ggdr::upfirdn2d", 1)
    long = setup_filter([1.0] * 12).to("meta")
    assert only(lambda: upfirdn2d(x.detach(), long, padding=6))[:2] == ("ggdr::upfirdn2d", 2)


@pytest.mark.parametrize(("of_w", "of_s", "kernels"), [(True, True, 5), (True, False, 3), (False, True, 3)])
def test_a_product_of_modulated_weights_has_kernels_for_the_gradients_that_are_asked_for(
    native_ops, of_w, of_s, kernels
):
    x = empty(2, 5, 8, 8)
    w, s = empty(3, 5, 1, 1).requires_grad_(of_w), empty(2, 5).requires_grad_(of_s)
    forward, backward = traced(lambda: modulated_product(x, w, s).backward(empty(2, 3, 8, 8))).operations
    assert forward[:2] == ("ggdr::modulated_product", 2) and backward[:2] == ("ggdr::modulated_product_grad", kernels)


def test_what_surrounds_a_modulated_convolution_is_one_pass_forward_and_backward():
    x, d, b, strength = (empty(*size, requires_grad=True) for size in ([2, 5, 8, 8], [2, 5], [5], []))
    noise, n, small = empty(2, 1, 8, 8), x.numel() * FLOAT, (2 * 5 + 5 + 1) * FLOAT
    styled, y, act_grads, style_grads = traced(
        lambda: demodulated_act(modulate(x, d), d, noise, strength, b).backward(empty(2, 5, 8, 8))
    ).operations[:4]
    assert styled == ("ggdr::modulate", 1, 2 * n + 10 * FLOAT, 0, "fp32")
    assert y == ("ggdr::demodulated_act", 1, 2 * n + 128 * FLOAT + small, 0, "fp32")
    # Gradient, result and input are read, and a gradient is written; sums of strips are added up by a second kernel.
    assert act_grads == ("ggdr::demodulated_act_backward", 2, 4 * n + (128 + 10) * FLOAT + small, 0, "fp32")
    assert style_grads == ("ggdr::modulate_backward", 2, 3 * n + 20 * FLOAT, 0, "fp32")


def test_the_gradient_of_a_gradient_of_a_modulation_is_one_pass_and_one_with_sums():
    x, d = empty(2, 5, 8, 8, requires_grad=True), empty(2, 5, requires_grad=True)
    gy = empty(2, 5, 8, 8, requires_grad=True)
    first = torch.autograd.grad(modulate(x, d), (x, d), gy, create_graph=True)
    found = traced(lambda: torch.autograd.grad(first, (gy, x, d), first)).operations
    assert [(x.name, x.kernels) for x in found] == [("ggdr::modulate_tangent", 1), ("ggdr::modulate_backward", 2)]


@pytest.mark.parametrize(
    "sizes, launches",
    [
        ([1] * 110, 1),
        ([1] * 111, 2),  # tensors in a launch
        ([320 * 65536], 1),
        ([320 * 65536 + 1], 2),  # blocks in a launch
        ([0], 0),
    ],
)
def test_operations_on_lists_take_as_many_launches_as_their_blocks_need(sizes, launches):
    tensors = [empty(size) for size in sizes]
    found = traced(lambda: torch._foreach_add_(tensors, 1)).operations
    assert sum(operation.kernels for operation in found) == launches
    assert sum(operation.num_bytes for operation in found) == 2 * FLOAT * sum(sizes)


def test_autograd_functions_in_python_are_counted_forward_and_backward():
    before = Function.__dict__["apply"], BackwardCFunction.__dict__["apply"]
    x, grid = empty(1, 3, 8, 8, requires_grad=True), empty(1, 8, 8, 2)
    assert traced(lambda: grid_sample(x, grid)).functions == 1
    assert traced(lambda: grid_sample(x, grid).sum().backward()).functions == 2
    twice = traced(lambda: torch.autograd.grad(grid_sample(x, grid).sum(), x, create_graph=True))
    assert twice.functions == 3  # the adjoint is one too
    with pytest.raises(ZeroDivisionError), OperationTrace():
        raise ZeroDivisionError
    assert (Function.__dict__["apply"], BackwardCFunction.__dict__["apply"]) == before


KIB = 1024


def kib(size: int, **kwargs) -> torch.Tensor:
    return empty(size * KIB // FLOAT, **kwargs)


def test_peak_of_a_chain_is_that_of_two_neighbours():
    def chain():
        x = kib(8)
        for _ in range(5):
            x = x * 2

    assert traced(chain).peak == 16 * KIB


def test_what_autograd_saves_stays_until_the_backward_pass():
    def chain():
        x = kib(8, requires_grad=True)
        y = x
        for _ in range(4):
            y = y.sigmoid()  # which saves its result
        y.sum().backward()

    # x, four results, the gradients before and behind a step; the sum and its gradient are half a KiB each.
    assert traced(chain).peak == 7 * 8 * KIB + KIB


def test_views_share_memory_and_a_later_piece_starts_from_what_is_still_there():
    with OperationTrace() as trace:
        trace.begin("first")
        kept = kib(8)
        kib(32)
        trace.begin("second")
        view = kept[KIB:].view(-1, 8)
        del kept
        kib(4)
        trace.begin("third")
        del view
        kib(2)
    assert [trace.pieces[name].peak / KIB for name in ("first", "second", "third")] == [40, 12, 8]
    assert trace.memory.now == 0


def test_memory_is_counted_in_blocks_and_by_storage():
    x = torch.empty(3, device="meta")
    assert tensor_bytes([x, x.view(3), x[1:]]) == 512
    memory = LiveMemory()
    memory.see([x])
    memory.see([x.detach()])
    assert (memory.now, memory.peak) == (512, 512)
    del x
    assert (memory.now, memory.peak) == (0, 512)


def test_a_result_that_autograd_keeps_is_no_operation_forward_and_backward():
    x, gy = empty(4, requires_grad=True), empty(4)
    assert traced(lambda: x.rsqrt()).host_ops == 1
    # A power and two products; a view of the gradient, which x takes.
    y = x.rsqrt()
    assert traced(lambda: y.backward(gy)).host_ops == 3 + 1
    with torch.no_grad():
        assert traced(lambda: x.detach()).host_ops == 1


@pytest.mark.parametrize("num", [1, 3])
def test_linear_layers_are_a_kernel_each_and_one_that_clears_the_gradient_of_their_inputs(native_ops, num):
    x, gy = empty(2, 4, 5, requires_grad=True), empty(2, 6)
    weights, biases = ([empty(*size, requires_grad=True) for _ in range(num)] for size in ([6, 5], [6]))
    run = lambda: torch.autograd.backward(linear_layers(x, weights, biases, [0] * num), [gy] * num)  # noqa: E731
    found = [(operation.name, operation.kernels) for operation in traced(run).operations]
    assert found[:3] == [
        ("ggdr::linear_layers", num),
        ("ggdr::linear_layers_inputs_grad", num + 1),
        ("ggdr::linear_layers_weight_grad", num),
    ]
