# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What R1 and path length regularisation ask of a device other than a CPU, seen on shapes without data."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.losses import path_lengths, r1_penalty
from ggdr.torch_utils.ops import convolution
from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.timing.flops import count_flops

RES, BATCH = 64, 4
SIZE = dict(img_resolution=RES, channel_base=512, channel_max=16)
FIR_TAPS = 4


class Convolutions(TorchDispatchMode):
    """Sizes of the kernels of all convolutions: of FIR filters, which have one for each channel, and of the others."""

    def __init__(self):
        super().__init__()
        self.fir, self.others = [], []
        self.num_weight_gradients = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        op = func.overloadpacket
        if op in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            x, w = args[:2] if op is torch.ops.aten.convolution else args[1:3]
            is_fir = w.shape[1] == 1 < x.shape[1]
            (self.fir if is_fir else self.others).append(max(w.shape[2:]))
            self.num_weight_gradients += op is torch.ops.aten.convolution_backward and args[-1][1]
        return func(*args, **(kwargs or {}))


def r1_penalties():
    D = Discriminator(DiscriminatorConfig(**SIZE)).to("meta", memory_format=torch.channels_last)
    img = torch.empty(BATCH, 3, RES, RES, device="meta", requires_grad=True)
    return r1_penalty(D(img), img, gamma=1.0)


def squared_path_lengths():
    G = Generator(GeneratorConfig(**SIZE, z_dim=16, w_dim=16)).to("meta", memory_format=torch.channels_last)
    ws = torch.empty(BATCH, G.num_ws, 16, device="meta", requires_grad=True)
    img = G.synthesis(ws, noise_mode="const")
    return path_lengths(img, ws, torch.empty_like(img)).square()


@pytest.mark.parametrize("losses", [r1_penalties, squared_path_lengths])
def test_no_convolution_has_kernels_as_large_as_maps(ops, losses):
    is_native = uses_native(torch.device("meta"))
    with Convolutions() as seen:
        penalties = losses()
        if is_native:
            assert seen.num_weight_gradients == 0  # nobody has asked for them yet
        penalties.mean().backward()
    assert seen.num_weight_gradients > 10
    assert len(seen.others) > 30 and set(seen.others) <= {1, 3}
    if is_native:
        assert not seen.fir
    else:  # PyTorch's second derivative would have one for each channel
        assert set(seen.fir) == {FIR_TAPS} and len(seen.fir) < len(seen.others)


@pytest.mark.parametrize("losses", [r1_penalties, squared_path_lengths])
def test_pytorchs_own_convolutions_would_have_them(monkeypatch, losses):
    monkeypatch.setattr(convolution, "_LEFT_TO_PYTORCH", ("meta",))
    with Convolutions() as seen:
        losses().mean().backward()
    assert max(seen.others) >= RES


@pytest.mark.usefixtures("native_ops")
@pytest.mark.parametrize("losses", [r1_penalties, squared_path_lengths])
def test_as_much_arithmetic_is_counted_as_with_pytorchs_own(monkeypatch, losses):
    ours = count_flops(lambda: losses().mean().backward())
    monkeypatch.setattr(convolution, "_LEFT_TO_PYTORCH", ("meta",))
    theirs = count_flops(lambda: losses().mean().backward())
    assert ours == theirs > 0
