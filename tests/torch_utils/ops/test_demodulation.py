# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Demodulation: what it is for, and the kernels that GPUs have for it against the reference."""

import pytest
import torch
from torch.autograd import grad

from ggdr.torch_utils.ops import demodulation as module
from ggdr.torch_utils.ops.demodulation import demodulation, scaled_weight
from tests.torch_utils.ops.test_modulation import assert_near, in_both_modes
from tests.torch_utils.ops.test_native_ops import DEVICES

HALF = (torch.float16, torch.bfloat16)


def inputs(shape=(7, 5, 3, 3), n=4, memory_format=torch.channels_last, device="cpu"):
    rng = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(size, generator=rng).to(device)  # noqa: E731
    return draw(*shape).contiguous(memory_format=memory_format), draw(n, shape[1])


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("device", DEVICES)
def test_results_of_a_demodulated_convolution_have_unit_variance(native_ops, device, dtype):
    weight, styles = (30 * t for t in inputs((64, 48, 3, 3), device=device))
    weight, styles, dcoefs = demodulation(weight, styles, dtype)
    for image in range(len(styles)):
        filters = dcoefs[image, :, None, None, None] * weight.float() * styles[image, :, None, None]
        assert_near(filters.square().sum(dim=[1, 2, 3]), torch.ones(64, device=device), torch.float16)
    if dtype in HALF:
        assert weight.abs().max() <= 1 and styles.abs().amax(dim=1).allclose(torch.ones(1, device=device))


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_up_to_the_third_agree_with_the_reference(native_ops, device, dtype, memory_format):
    tensors = inputs(memory_format=memory_format, device=device)
    size = lambda tensors: sum(t.float().square().sum() for t in tensors)  # noqa: E731

    def run(first_of):
        leaves = [t.detach().requires_grad_() for t in tensors]
        results = demodulation(*leaves, dtype)
        # Cubes, as a sum of squares of the coefficients would hide a sign.
        total = sum(t.float().pow(3).sum() for t in results[1:])
        first = grad(total, leaves if first_of == "both" else leaves[1:], create_graph=True)
        second = grad(size(first), leaves, create_graph=True)
        last = grad(size(first), leaves, retain_graph=True)  # by other operations than what can be differentiated
        return [*results[1:], *first, *second, *last, *grad(size(second), leaves)]

    for first_of in ("both", "styles"):
        for ours, reference in in_both_modes(lambda first_of=first_of: run(first_of)):
            torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_styles_ask_for_none_of_weights(native_ops, device):
    weight, styles = (t.requires_grad_() for t in inputs(device=device))
    with torch.profiler.profile() as profile:
        grad(demodulation(weight, styles, torch.float16)[2].sum(), styles, create_graph=True)
    names = {event.name for event in profile.events()}
    assert "ggdr::demodulation_weight_grad" not in names
    assert (device in module.COMPILED_DEVICES) == ("ggdr::demodulation_styles_grad" in names)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("device", DEVICES)
def test_scaled_weights_and_their_gradients_are_rounded_once(native_ops, device, dtype):
    weight, _ = inputs(device=device)
    weight.requires_grad_()
    gy = torch.full_like(weight, 2.0**-14).to(dtype)  # of float16 a normal number, its product with the gain is none
    scaled = scaled_weight(weight, 0.01, dtype).to(dtype)
    assert torch.equal(scaled, (weight * 0.01).to(dtype))
    (gw,) = grad(scaled, weight, gy)
    assert gw.dtype == torch.float32 and torch.equal(gw, gy.float() * 0.01)


def test_wrong_arguments_are_named(native_ops):
    if "cpu" not in module.COMPILED_DEVICES:
        pytest.skip("a CPU takes the reference")
    weight, styles = inputs()
    with pytest.raises(ValueError, match=r"s must be \[4, 5\] Float on cpu, got \[4, 3\]"):
        demodulation(weight, styles[:, :3], torch.float32)
    with pytest.raises(ValueError, match=r"w must be \[Cout, Cin, k, k\], got \[7, 5, 3\]"):
        demodulation(weight[..., 0], styles, torch.float32)
    with pytest.raises(ValueError, match=r"scales must be \[7\] Float, got \[5\] Float"):
        torch.ops.ggdr.scaled_weight(weight, styles[0], 1.0, torch.float16)


def test_registration_is_complete(native_ops):
    if "cpu" not in module.COMPILED_DEVICES:
        pytest.skip("a CPU takes the reference")
    w, s = inputs()
    scaled, d, q, c, m = torch.ops.ggdr.demodulation(w, s, True)
    gs, gd = scaled.neg(), d.neg()
    for t in (w, s, scaled, d, gs, gd):
        t.requires_grad_()
    ops = torch.ops.ggdr
    for op, args in {
        ops.demodulation: (w, s, True),
        ops.demodulation_styles_grad: (gs, gd, d, w, scaled, q, c, m),
        ops.demodulation_weight_grad: (gd, d, w, scaled, c),
        ops.demodulation_styles_grad_backward: tuple(t.detach() for t in (gs, gd, d, w, scaled, q, c, m)),
        ops.scaled_weight: (w, c, 1.0, torch.float16),
    }.items():
        torch.library.opcheck(op.default, args)


@pytest.mark.parametrize("device", ["meta", *DEVICES])
def test_scaled_weights_of_a_1x1_convolution_keep_the_strides_by_which_it_is_channels_last(native_ops, device):
    weight = torch.randn(4, 3, 1, 1, device=device).to(memory_format=torch.channels_last)
    assert scaled_weight(weight, 0.5, torch.float16).stride() == weight.stride() == (3, 1, 3, 3)
