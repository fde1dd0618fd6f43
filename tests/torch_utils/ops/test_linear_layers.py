# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Many linear layers at once: against each by itself, and their derivatives of any order."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck

from ggdr.torch_utils.ops.linear_layers import linear_layers
from tests.torch_utils.ops.test_modulation import in_both_modes
from tests.torch_utils.ops.test_native_ops import DEVICES

GAIN, INPUTS, WIDTHS = 0.3, (0, 2, 2, 3), (4, 3, 6, 1)  # two layers share an input, and one input has none
NUM_INPUTS, IN_FEATURES, N = 4, 5, 2


def inputs(dtype=torch.float32, device="cpu"):
    """x, weights and biases."""
    rng = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(size, generator=rng).to(device, dtype).requires_grad_()  # noqa: E731
    weights, biases = [draw(width, IN_FEATURES) for width in WIDTHS], [draw(width) for width in WIDTHS]
    return draw(N, NUM_INPUTS, IN_FEATURES), weights, biases


def layers(x, *params):
    """The same with all tensors in one list, as gradcheck wants them."""
    return tuple(linear_layers(x, params[: len(WIDTHS)], params[len(WIDTHS) :], INPUTS, gain=GAIN))


@pytest.mark.parametrize("device", DEVICES)
def test_each_layer_takes_its_own_input(native_ops, device):
    x, weights, biases = inputs(device=device)
    ys = linear_layers(x, weights, biases, INPUTS, gain=GAIN)
    for y, w, b, i in zip(ys, weights, biases, INPUTS, strict=True):
        torch.testing.assert_close(y, F.linear(x[:, i], w * GAIN, b))


def test_gradients_are_those_of_finite_differences_and_so_are_theirs(native_ops):
    x, weights, biases = inputs(torch.float64)
    gradcheck(layers, (x, *weights, *biases))
    gradgradcheck(layers, (x, *weights, *biases))


@pytest.mark.parametrize("first_of", ["x", "weights", "all"])
@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_up_to_the_third_agree_with_the_reference(native_ops, device, first_of):
    def run():
        x, weights, biases = inputs(device=device)
        leaves = [x, *weights, *biases]
        ys = layers(*leaves)
        total = sum(y.pow(3).sum() for y in ys)
        wanted = {"x": [x], "weights": weights, "all": leaves}[first_of]
        first = grad(total, wanted, create_graph=True)
        second = grad(sum(g.pow(2).sum() for g in first), leaves, create_graph=True, materialize_grads=True)
        return [*ys, *first, *second, *grad(sum(g.pow(2).sum() for g in second), leaves, materialize_grads=True)]

    for ours, reference in in_both_modes(run):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_inputs_ask_for_none_of_layers(native_ops, device):
    x, weights, biases = inputs(device=device)
    with torch.profiler.profile() as profile:
        grad(sum(y.sum() for y in layers(x, *weights, *biases)), x, create_graph=True)
    names = {event.name for event in profile.events()}
    assert "ggdr::linear_layers_inputs_grad" in names
    assert "ggdr::linear_layers_weight_grad" not in names


def test_a_layer_whose_result_is_not_used_gets_zeros(native_ops):
    x, weights, biases = inputs()
    unused, *used = layers(x, *weights, *biases)
    found = grad(sum(y.sum() for y in used), [weights[0], biases[0], weights[1]])
    assert not found[0].any() and not found[1].any() and found[2].all()


@pytest.mark.parametrize("device", DEVICES)
def test_registration_is_complete(native_ops, device):
    x, weights, biases = inputs(device=device)
    ys = [y.detach().requires_grad_() for y in layers(x, *weights, *biases)]
    ops = torch.ops.ggdr
    torch.library.opcheck(ops.linear_layers.default, (x, weights, biases, INPUTS, GAIN))
    torch.library.opcheck(ops.linear_layers.default, (x, weights, [], INPUTS, GAIN))
    torch.library.opcheck(ops.linear_layers_inputs_grad.default, (ys, weights, NUM_INPUTS, INPUTS, GAIN))
    torch.library.opcheck(ops.linear_layers_weight_grad.default, (x, ys, INPUTS, GAIN))


def test_wrong_arguments_are_named(native_ops):
    x, weights, biases = inputs()
    with pytest.raises(ValueError, match=r"x must be \[N, num_inputs, in_features\], got \[4, 5\]"):
        linear_layers(x[0], weights, biases, INPUTS)
    with pytest.raises(ValueError, match="a weight, a bias and an input, got 4, 4 and 3"):
        linear_layers(x, weights, biases, INPUTS[:3])
    with pytest.raises(ValueError, match=r"layer 1 must be \[out_features, 5\] and .* got \[3, 4\] and \[3\]"):
        linear_layers(x, [weights[0], weights[1][:, :4], *weights[2:]], biases, INPUTS)
