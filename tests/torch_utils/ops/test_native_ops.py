# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The compiled bias_act and upfirdn2d against the reference in float64, on CPUs and on GPUs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.ops.bias_act import ACTIVATIONS, _bias_act_ref, bias_act
from ggdr.torch_utils.ops.build import set_ops
from ggdr.torch_utils.ops.modulation import modulate
from ggdr.torch_utils.ops.upfirdn2d import _upfirdn2d_ref, downsample2d, setup_filter, upfirdn2d, upsample2d

pytestmark = pytest.mark.usefixtures("native_ops")

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # of the largest
FIR = setup_filter([1, 3, 3, 1])


def assert_near(actual, exact, dtype, message="", factor=1.0):
    assert actual.shape == exact.shape and actual.device == exact.device, message
    if exact.numel():
        error = (actual.double() - exact).abs().max().item()
        allowed = factor * TOLERANCE[dtype] * max(1.0, exact.abs().max().item())
        assert error <= allowed, f"{message}: error {error:.1e}, allowed {allowed:.1e}"


def variants(shape, dtype, device):
    """Random tensors of one shape, laid out in memory in all ways that matter."""
    rng = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(size, generator=rng).to(dtype).to(device)

    yield "contiguous", draw(*shape)
    yield "dimensions reversed", draw(*shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    yield "expanded", draw(1, *shape[1:]).expand(shape)
    yield "at an odd address", draw(1 + torch.Size(shape).numel())[1:].reshape(shape)
    if len(shape) == 4:
        n, c, h, w = shape
        yield "channels_last", draw(*shape).contiguous(memory_format=torch.channels_last)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            yield "cropped", draw(n, c, h + 3, w + 2).contiguous(memory_format=memory_format)[:, :, 1:-2, 2:]


def value_and_grads(gy, func, leaves, *args, **kwargs):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    y = func(*leaves, *args, **kwargs)
    return [y.detach(), *grad(y, leaves, gy.to(y.dtype))]


BIAS_ACT_SHAPES = [((2, 3, 5, 7), 1), ((2, 17, 1, 9), 1), ((2, 64, 5, 8), 1), ((1, 1, 1, 1), 1), ((0, 3, 4, 4), 1)]
BIAS_ACT_SHAPES += [((70, 17), 1), ((5, 3), 0), ((2, 3, 4, 5, 6), -2), ((7,), 0), ((2, 3, 130, 131), 1)]


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("device", DEVICES)
def test_bias_act_agrees_with_the_reference(device, dtype, act):
    for (shape, dim), clamp in itertools.product(BIAS_ACT_SHAPES, (None, 0.7)):
        b = torch.randn(shape[dim], device=device)
        for layout, x in variants(shape, dtype, device):
            constants = (*ACTIVATIONS[act][1:], clamp)
            # At a kink either gradient is right: a value there lies on one side of it in double precision, and on the
            # other one after rounding.
            value = _bias_act_ref(x.double(), b.double(), dim % len(shape), act, *constants).abs()
            at_kink = (value < 1e-2) | ((value - (clamp or math.inf)).abs() < 1e-2)
            gy = torch.randn(shape, device=device).masked_fill(at_kink, 0).to(dtype)
            y, x_grad, b_grad = value_and_grads(gy, bias_act, [x, b], dim=dim, act=act, clamp=clamp)
            exact = value_and_grads(gy, _bias_act_ref, [x.double(), b.double()], dim % len(shape), act, *constants)

            message = f"{layout} {shape}, clamp {clamp}"
            assert y.dtype == x_grad.dtype == dtype and b_grad.dtype == torch.float32
            assert y.stride() == torch.empty_like(x).stride(), message
            assert_near(y, exact[0], dtype, message)
            if clamp is not None:  # whether a result that only rounds to the bound was clamped is not defined
                decided = (exact[0].abs() == clamp) | (y.double().abs() < torch.tensor(clamp).to(dtype).item())
                x_grad, exact[1] = x_grad * decided, exact[1] * decided
            assert_near(x_grad, exact[1], dtype, f"gradient in x, {message}", factor=4)
            if clamp is None or decided.all():
                rounding = max(TOLERANCE[dtype], TOLERANCE[torch.float32])
                assert torch.allclose(b_grad.double(), exact[2], rounding, rounding * (2 * x.numel()) ** 0.5), message


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_bias_act_passes_nan_and_infinity_as_the_reference_does(device, act):
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), -0.0, 1e38, -1e38, 90.0, -90.0, 0.0, 1e-40]] * 4)
    _, alpha, gain = ACTIVATIONS[act]
    for clamp in (None, 2.0):
        actual = bias_act(x.to(device), act=act, clamp=clamp)
        expected = _bias_act_ref(x.to(device), None, 1, act, alpha, gain, clamp)
        torch.testing.assert_close(actual, expected, equal_nan=True, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("act", ["tanh", "sigmoid", "elu", "selu", "softplus", "swish"])
@pytest.mark.parametrize("device", DEVICES)
def test_smooth_activations_have_a_third_derivative(device, act):
    x = torch.randn(2, 3, 2, dtype=torch.float64, device=device, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, device=device, requires_grad=True)

    def gradients(x, b):
        return grad(bias_act(x, b, act=act, gain=1.5, clamp=1.2).square().sum(), (x, b), create_graph=True)

    assert gradcheck(gradients, (x, b))
    assert gradgradcheck(gradients, (x, b))


@pytest.mark.parametrize("gain", [1.5, -1.5])
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_bias_act_finds_the_slope_for_gains_of_either_sign(act, gain):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: bias_act(x, act=act, gain=gain, clamp=0.9), x)


@pytest.mark.parametrize(("act", "clamp", "kept"), [("linear", None, 0), ("linear", 1.0, 1), ("lrelu", None, 1)])
def test_piecewise_linear_bias_act_keeps_its_result_only(act, clamp, kept):
    x, b = torch.randn(2, 3, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = bias_act(x, b, act=act, clamp=clamp)
    assert [t.data_ptr() for t in saved] == [y.data_ptr()] * kept


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bias_gradient_does_not_depend_on_the_number_of_threads(memory_format):
    x, b = torch.randn(4, 24, 65, 65).contiguous(memory_format=memory_format), torch.randn(24, requires_grad=True)
    gy, results = torch.randn_like(x), []
    num_threads = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(grad(bias_act(x, b, act="lrelu"), b, gy)[0])
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


FILTERS = {
    "1x1": torch.tensor([[2.0]]),
    "fir": FIR,
    "12 taps": torch.linspace(-1, 2, 12),
    "4x4": torch.randn(4, 4, generator=torch.Generator().manual_seed(1)),
    "2x7": torch.randn(2, 7, generator=torch.Generator().manual_seed(2)),
    "7x3 outer": torch.outer(torch.linspace(-1, 2, 7), torch.tensor([1.0, 5.0, 2.0])),
    "zeros": torch.zeros(2, 2),
}
RESAMPLING = [  # up (x, y), down (x, y), padding (x0, x1, y0, y1)
    ((1, 1), (1, 1), (1, 1, 1, 1)),
    ((1, 1), (1, 1), (2, 2, 2, 2)),
    ((1, 1), (1, 1), (6, 5, 0, 9)),
    ((2, 2), (1, 1), (2, 1, 2, 1)),
    ((2, 2), (1, 1), (3, 0, 1, 4)),
    ((2, 2), (1, 1), (6, 5, 6, 5)),
    ((1, 1), (2, 2), (1, 1, 1, 1)),
    ((1, 1), (2, 2), (5, 5, 6, 4)),
    ((2, 1), (1, 3), (4, 3, 7, 2)),
    ((3, 4), (2, 3), (7, -1, 5, 2)),
    ((1, 1), (1, 1), (-1, 4, 3, -2)),
    ((2, 2), (2, 2), (-3, 9, 8, -1)),
]
IMAGE_SHAPES = [(2, 1, 1, 1), (1, 3, 1, 9), (1, 17, 5, 7), (2, 64, 5, 7), (0, 3, 5, 7), (1, 2, 37, 34)]


@pytest.mark.parametrize("filter_name", FILTERS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("device", DEVICES)
def test_upfirdn2d_agrees_with_the_reference(device, dtype, filter_name):
    f = FILTERS[filter_name].to(device)
    num = 0
    for (up, down, pad), shape in itertools.product(RESAMPLING, IMAGE_SHAPES):
        padded = [shape[2] * up[1] + pad[2] + pad[3], shape[3] * up[0] + pad[0] + pad[1]]
        left = [shape[2] * up[1] + min(pad[2], 0) + min(pad[3], 0), shape[3] * up[0] + min(pad[0], 0) + min(pad[1], 0)]
        if padded[0] < f.shape[0] or padded[1] < f.shape[-1] or min(left) < 1:
            continue
        for layout, x in itertools.islice(variants(shape, dtype, device), num % 3, None, 3):  # each a third
            num += 1
            args = (up, down, pad, num % 2 == 0, 1.0 + num % 4)
            size = [(n - k) // d + 1 for n, k, d in zip(padded, (f.shape[0], f.shape[-1]), down[::-1], strict=True)]
            gy = torch.randn([*shape[:2], *size], device=device).to(dtype)
            names = ("up", "down", "padding", "flip_filter", "gain")
            y, x_grad = value_and_grads(gy, upfirdn2d, [x], f, **dict(zip(names, args, strict=True)))
            exact = value_and_grads(gy, _upfirdn2d_ref, [x.double()], f.double(), *args)
            message = f"{layout} {shape}, {args}"
            assert y.dtype == x_grad.dtype == dtype
            assert_near(y, exact[0], dtype, message, factor=4)
            assert_near(x_grad, exact[1], dtype, f"gradient, {message}", factor=4)
    assert num > 100


@pytest.mark.parametrize("shape", [(1, 1, 3, 9001), (1, 520, 3, 41), (1, 40, 6, 1300)])
def test_upfirdn2d_joins_the_tiles_of_wide_images(shape):
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    for up, down, f in ((1, 1, FIR), (2, 1, FILTERS["12 taps"]), (3, 2, FILTERS["2x7"]), (1, 2, FILTERS["4x4"])):
        args = ((up, up), (down, down), (6, 5, 6, 5), False, 1.0)
        exact = _upfirdn2d_ref(x.double(), f.double(), *args)
        assert_near(torch.ops.ggdr.upfirdn2d(x, f, *args), exact, torch.float32, f"{up} {down}", factor=4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("device", DEVICES)
def test_second_derivatives_of_a_small_discriminator_agree_with_the_reference(device, memory_format):
    """The gradient penalty, in which every operation is differentiated twice."""
    rng = torch.Generator().manual_seed(0)
    img, w, b = (torch.randn(s, generator=rng).to(device) for s in ([2, 3, 8, 8], [32, 3, 3, 3], [32]))
    img = img.contiguous(memory_format=memory_format)

    def penalty_grads():
        leaves = [t.detach().requires_grad_() for t in (img, w, b)]
        x = upsample2d(leaves[0], FIR.to(device))
        x = bias_act(torch.nn.functional.conv2d(x, leaves[1]), leaves[2], act="lrelu", clamp=3.0)
        x = bias_act(downsample2d(x, FIR.to(device)), leaves[2], act="swish")
        (first,) = grad(x.square().mean(dim=[1, 2, 3]).sum(), leaves[0], create_graph=True)
        return grad(first.square().sum(), leaves)

    with exact_float32(torch.device(device)):
        actual = penalty_grads()
        set_ops("reference")
        expected = penalty_grads()
    for ours, exact in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-5)


def op_cases(device="cpu"):
    """(operation, arguments), with every combination of optional tensors."""
    ops = torch.ops.ggdr
    x = torch.randn(2, 3, 5, 4, device=device).contiguous(memory_format=torch.channels_last)
    b, y = torch.randn(3, device=device, requires_grad=True), torch.randn_like(x)
    lrelu, swish, linear = (1, "lrelu", 0.2, 1.4, 1.0), (1, "swish", 0.0, 1.4, None), (1, "linear", 0.0, 2.0, None)
    for args in (lrelu, swish, linear):
        yield ops.bias_act.default, (x.clone().requires_grad_(), b, *args)
        yield ops.bias_act.default, (x.contiguous().requires_grad_(), None, *args)
    g = torch.randn(2, 3, 5, 4, device=device, requires_grad=True)
    yield ops.bias_act_grad.default, (g, b, y, None, 1, *lrelu, torch.float32)
    yield ops.bias_act_grad.default, (g, None, y, None, 1, *lrelu, None)
    yield ops.bias_act_grad.default, (g, b, x.clone().requires_grad_(), b, 2, *swish, torch.float32)
    yield ops.bias_act_grad.default, (g, b, None, None, 1, *linear, torch.float64)
    for image in (x, x.contiguous()):
        yield (
            ops.upfirdn2d.default,
            (image.clone().requires_grad_(), FIR.to(device), [2, 1], [1, 3], [1, 2, 3, 0], False, 4.0),
        )


@pytest.mark.parametrize("device", DEVICES)
def test_operations_are_registered_as_torch_expects(device):
    for op, args in op_cases(device):
        torch.library.opcheck(op, args)


def network(x, b, f=FIR):
    x = bias_act(x, b, act="lrelu", clamp=2.0)
    return upsample2d(x, f), downsample2d(x, f)


def test_compiled_graphs_hold_the_operations_whole():
    x, b = torch.randn(2, 3, 6, 8, requires_grad=True), torch.randn(3, requires_grad=True)
    graphs = []

    def backend(graph, inputs):
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph

    torch.compile(network, fullgraph=True, backend=backend)(x, b)
    ops = torch.ops.ggdr
    assert [t for t in graphs[0] if t in (ops.bias_act, ops.upfirdn2d)] == [ops.bias_act, ops.upfirdn2d, ops.upfirdn2d]

    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=True)
    for width in (8, 12):
        x = torch.randn(2, 3, 6, width, requires_grad=True)
        sums = [sum(y.square().sum() for y in func(x, b)) for func in (compiled, network)]
        torch.testing.assert_close(*(grad(total, (x, b)) for total in sums))


def test_exported_programs_hold_the_operations_whole():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("f", FIR)

        def forward(self, x, b):
            return network(x, b, self.f)

    x, b = torch.randn(2, 3, 6, 8), torch.randn(3)
    program = torch.export.export(Network(), (x, b))
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.ggdr.bias_act.default) == 1
    assert targets.count(torch.ops.ggdr.upfirdn2d.default) == 2
    torch.testing.assert_close(program.module()(x, b), network(x, b))


def test_autocast_leaves_the_operations_alone():
    x, b = torch.randn(1, 2, 4, 4), torch.randn(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert bias_act(x, b).dtype == upfirdn2d(x, FIR, padding=2).dtype == torch.float32


def test_wrong_arguments_of_the_operations_are_named():
    ops, x, b = torch.ops.ggdr, torch.ones(2, 3, 4, 4), torch.ones(3)
    args = (1, "lrelu", 0.2, 1.0, None)
    with pytest.raises(ValueError, match=r"b of shape \[4\] does not fit dimension 1 of x \[2, 3, 4, 4\]"):
        ops.bias_act(x, torch.ones(4), *args)
    with pytest.raises(ValueError, match="unknown activation act='gelu'"):
        ops.bias_act(x, b, 1, "gelu", 0.0, 1.0, None)
    with pytest.raises(ValueError, match="clamp must be at least 0, got -1"):
        ops.bias_act(x, b, *args[:-1], -1.0)
    with pytest.raises(TypeError, match="x must be of a floating type, got Int"):
        ops.bias_act(x.int(), None, *args)
    with pytest.raises(ValueError, match="derivative of act='lrelu' needs ref"):
        ops.bias_act_grad(x, None, None, None, 1, *args, None)
    with pytest.raises(ValueError, match=r"up to order 3.*got 2"):
        ops.bias_act_grad(x, None, x, None, 2, *args, None)
    with pytest.raises(ValueError, match=r"ref must be like g.*\[2, 3, 4\]"):
        ops.bias_act_grad(x, None, x[..., 0], None, 1, *args, None)
    one = ([1, 1], [1, 1], [0] * 4, False, 1.0)
    with pytest.raises(ValueError, match=r"x must be \[N, C, H, W\], got \[3, 4, 4\]"):
        ops.upfirdn2d(x[0], FIR, *one)
    with pytest.raises(ValueError, match="x padded to 2 along x is smaller than f"):
        ops.upfirdn2d(x, FIR, [1, 1], [1, 1], [-1, -1, 0, 0], False, 1.0)
    with pytest.raises(ValueError, match=r"up and down must be in \[1, 1024\], got 0 and 1"):
        ops.upfirdn2d(x, FIR, [0, 1], *one[1:])
    with pytest.raises(ValueError, match=r"f must be \[fh, fw\] or \[n\], not empty, got \[1, 2, 2\]"):
        ops.upfirdn2d(x, torch.ones(1, 2, 2), *one)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_indices_have_64_bits_where_they_must():
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("needs 20 GB of free GPU memory")
    x = torch.zeros([2, 3, 2**15, 2**14 + 8], dtype=torch.bfloat16, device="cuda")  # 3.2e9 values
    x[1, 2, -8:, -8:] = 1.0
    b = torch.tensor([1.0, 2.0, 4.0], device="cuda")
    assert bias_act(x, b)[1, :, -1, -1].tolist() == [1.0, 2.0, 5.0]
    ones = torch.ones([4, 4], device="cuda")
    assert upfirdn2d(x, ones)[1, 2, -1, -1].item() == 16.0
    assert modulate(x, torch.full([2, 3], 3.0, device="cuda"))[1, 2, -1, -1].item() == 3.0
