# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The product of toRGB layers: against a modulated convolution, and its derivatives of any order."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad

from ggdr.torch_utils.ops.modulated_product import modulated_product
from tests.torch_utils.ops.test_modulation import assert_near, in_both_modes
from tests.torch_utils.ops.test_native_ops import DEVICES

GAIN = 0.3


def inputs(dtype=torch.float32, memory_format=torch.channels_last, device="cpu"):
    rng = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(size, generator=rng).to(device)  # noqa: E731
    x = draw(2, 5, 4, 6).to(dtype).contiguous(memory_format=memory_format)
    return x, draw(3, 5, 1, 1), draw(2, 5), draw(2, 3, 4, 6).to(dtype)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_it_is_a_convolution_with_styles_on_its_inputs(native_ops, device, dtype, memory_format):
    tensors = inputs(dtype, memory_format, device)
    *leaves, gy = (t.detach().requires_grad_() for t in tensors)
    y = modulated_product(*leaves, gain=GAIN)
    assert y.dtype == dtype and y.stride(1) == 1
    x, w, s, exact_gy = (t.detach().double().requires_grad_() for t in tensors)
    exact = F.conv2d(x * s[:, :, None, None], w * GAIN)
    for ours, expected in zip((y, *grad(y, leaves, gy)), (exact, *grad(exact, (x, w, s), exact_gy)), strict=True):
        assert_near(ours, expected, dtype)


@pytest.mark.parametrize("first_of", [("x", "w", "s"), ("x",), ("w",), ("s",)])
@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_up_to_the_third_agree_with_the_reference(native_ops, device, first_of):
    tensors = inputs(device=device)

    def run():
        leaves = dict(zip(("x", "w", "s", "gy"), (t.detach().requires_grad_() for t in tensors), strict=True))
        x, w, s, gy = leaves.values()
        y = modulated_product(x, w, s, gain=GAIN)
        first = grad(y, [leaves[name] for name in first_of], gy, create_graph=True)
        second = grad(sum(g.square().sum() for g in first), [x, w, s, gy], create_graph=True, materialize_grads=True)
        third = grad(sum(g.square().sum() for g in second), [x, w, s, gy], materialize_grads=True)
        return [y, *first, *second, *third]

    for ours, reference in in_both_modes(run):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_registration_is_complete(native_ops, device):
    x, w, s, gy = (t.requires_grad_() for t in inputs(device=device))
    torch.library.opcheck(torch.ops.ggdr.modulated_product.default, (x, w, s, GAIN, False))
    torch.library.opcheck(torch.ops.ggdr.modulated_product.default, (gy, w, s, GAIN, True))
    for asked in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(torch.ops.ggdr.modulated_product_grad.default, (x, gy, w, s, GAIN, *asked))


def test_wrong_arguments_are_named(native_ops):
    x, w, s, _ = inputs()
    with pytest.raises(ValueError, match=r"\[N, Cin\], got \[2, 5, 4, 6\], \[3, 5, 1, 1\] and \[2, 4\]"):
        modulated_product(x, w, s[:, :4])
    with pytest.raises(ValueError, match=r"\[Cout, Cin, 1, 1\] .* got \[2, 5, 4, 6\], \[3, 5, 3, 3\]"):
        modulated_product(x, w.expand(-1, -1, 3, 3), s)
