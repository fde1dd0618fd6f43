# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Convolutions of spectral norm 1, and how such networks begin."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

from ggdr.translation.layout_config import OASISDiscriminatorConfig
from ggdr.translation.networks import build_network
from ggdr.translation.presets import PRESETS
from ggdr.translation.spectral_norm import SpectralConv2d, init_xavier


def made(cin=3, cout=5, kernel=3, seed=0):
    conv = SpectralConv2d(cin, cout, kernel)
    init_xavier(conv, torch.Generator().manual_seed(seed))
    return conv


def test_the_norm_is_that_of_the_weights_as_a_matrix():
    conv = made()
    for _ in range(30):
        found = conv.spectral_norm()
    torch.testing.assert_close(found, torch.linalg.matrix_norm(conv.weight.flatten(1), 2), rtol=1e-5, atol=0)


def test_gradients_are_those_of_torchs_parametrisation():
    conv, plain = made(), torch.nn.Conv2d(3, 5, 3, padding=1)
    plain.load_state_dict({name: x for name, x in conv.state_dict().items() if name != "u"})
    for _ in range(30):
        conv.spectral_norm()
    other = spectral_norm(plain, n_power_iterations=30)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y, truth = conv(x), other(x)
    torch.testing.assert_close(y, truth, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    truth.square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, other.parametrizations.weight.original.grad, rtol=1e-3, atol=1e-2)


def test_evaluation_changes_nothing_and_training_goes_on():
    conv = made()
    before, x = conv.u.clone(), torch.randn(1, 3, 4, 4)
    conv.eval()(x)
    assert torch.equal(conv.u, before)
    conv.weight.data[0] *= 3
    conv.train()(x)
    assert not torch.equal(conv.u, before)


def test_two_passes_have_one_backward():
    conv, x = made(), torch.randn(1, 3, 4, 4)
    (conv(x) + conv(2 * x)).square().sum().backward()
    assert conv.weight.grad.isfinite().all() and conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_norm_is_float32(dtype):
    conv = made(16, 16).eval()
    with torch.autocast("cpu", dtype):
        y = conv(torch.randn(1, 16, 8, 8))
    assert y.dtype == dtype and conv.spectral_norm().dtype == torch.float32


def test_weights_depend_on_the_generator_alone_and_are_small_without_a_norm():
    a, b, c = made(64, 64), made(64, 64), made(64, 64, seed=1)
    assert torch.equal(a.weight, b.weight) and torch.equal(a.u, b.u) and not torch.equal(a.weight, c.weight)
    plain = torch.nn.Conv2d(64, 64, 3)
    init_xavier(plain, torch.Generator().manual_seed(0))
    for conv, gain in ((a, 1), (plain, 0.02)):
        assert abs(conv.weight.std() / (gain * (2 / (2 * 9 * 64)) ** 0.5) - 1) < 0.05
    assert a.bias.abs().sum() == 0


def test_a_step_of_adam_turns_normalised_weights_by_little():
    D = build_network(OASISDiscriminatorConfig(3, 9, 16, 5))
    init_xavier(D, torch.Generator().manual_seed(0))
    step = 4 * PRESETS["oasis"]["cpu"].lr  # Adam's first ones are as long as its learning rate, in each weight
    convs = [module for module in D.modules() if isinstance(module, SpectralConv2d)]
    assert convs and all(step < 0.1 * conv.weight.square().mean().sqrt() for conv in convs)
