# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Residual blocks with compiled convolutions against PyTorch's, and where they take which."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.export_formats import trace
from ggdr.torch_utils.ops import set_ops
from ggdr.torch_utils.ops.cpu import conv3x3 as module
from ggdr.translation.combogan_networks import SharedBlock
from ggdr.translation.config import ResnetGeneratorConfig
from ggdr.translation.export_part import translator_part
from ggdr.translation.layers import Conv3x3, InstanceNorm, ResnetBlock, is_channels_last
from ggdr.translation.networks import build_network
from ggdr.translation.translator import Pix2PixTranslator
from tests.reference_vectors import golden_params
from tests.translation.test_networks import COMBOGAN, assert_combogan_reproduces, assert_network_reproduces

WIDTH, SIDE = 16, 32  # as few channels, and pixels of one image, as the kernel is taken for
KERNEL = "ggdr::conv3x3"
SMOOTH = nn.SiLU  # at a kink, rounding would decide on a derivative


class Operations(TorchDispatchMode):
    """The names of all operations that are called inside."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def maps(n=1, side=SIDE, width=WIDTH, dtype=torch.float32):
    return torch.randn([n, width, side, side], dtype=dtype, generator=torch.Generator().manual_seed(1))


def taken(run):
    """How many compiled convolutions a function calls."""
    with Operations() as seen:
        run()
    return seen.names.count(KERNEL)


def outputs_and_derivatives(block, x):
    """What a block gives, its gradients, and those of a penalty on the gradient to its input."""
    x = x.clone().requires_grad_()
    params = list(block.parameters())
    y = block(x)
    gx, *grads = torch.autograd.grad(y.sin().sum(), [x, *params], create_graph=True)
    # A bias before an instance norm changes nothing: its gradients are rounding alone.
    weights = [i for i, p in enumerate(params) if p.ndim > 1]
    penalty = torch.autograd.grad(gx.square().sum(), [x, *(params[i] for i in weights)])
    return [y, gx, *(grads[i] for i in weights), *penalty]


class Shared(SharedBlock):
    """ComboGAN's shared block for one of its domains."""

    def __init__(self, width):
        super().__init__(width, domains=3)
        self.conv_block[3] = SMOOTH()

    def forward(self, x):
        return super().forward(x, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResnetBlock(WIDTH, "instance", act=SMOOTH),
        lambda: ResnetBlock(WIDTH, "batch", act=SMOOTH),
        lambda: Shared(WIDTH),
    ],
    ids=["instance", "batch", "shared"],
)
@pytest.mark.parametrize("n", [1, 2])  # one image keeps the kernel's layout
def test_residual_blocks_agree_with_pytorch_s_up_to_second_derivatives(make, n, native_ops):
    block, x = make(), maps(n)
    assert taken(lambda: block(x)) == 2
    ours = outputs_and_derivatives(block, x)
    set_ops("reference")
    for a, b in zip(ours, outputs_and_derivatives(block, x), strict=True):
        assert 0 < (a - b).norm() < 1e-4 * b.norm()


@pytest.mark.parametrize("path", golden_params("translation_resnet") + golden_params("translation_combogan_generator"))
def test_networks_with_compiled_convolutions_agree_with_reference_vectors(path, native_ops, monkeypatch):
    monkeypatch.setattr(module, "_MIN_TILES", {(torch.float32, 1): 1})
    check = assert_combogan_reproduces if path in COMBOGAN else assert_network_reproduces
    assert taken(lambda: check(path)) > 0


def test_the_norm_of_one_image_keeps_its_layout_and_agrees_with_that_of_several(native_ops):
    x, norm = maps(2), InstanceNorm(WIDTH)
    one = norm(x[:1].contiguous(memory_format=torch.channels_last))
    assert is_channels_last(one) and (one - norm(x)[:1]).abs().max() < 1e-5


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_give_what_pytorch_s_give_and_have_its_state(bias, native_ops):
    conv, x = Conv3x3(WIDTH, 2 * WIDTH, bias=bias), maps()
    plain = nn.Conv2d(WIDTH, 2 * WIDTH, 3, bias=bias)
    plain.load_state_dict(conv.state_dict(), strict=True)
    assert taken(lambda: conv(x)) == 1
    assert (conv(x) - plain(x)).abs().max() < 1e-5
    set_ops("reference")
    assert torch.equal(conv(x), plain(x))


@pytest.mark.parametrize(
    "x",
    [maps(side=SIDE - 3), maps(dtype=torch.float64), maps(n=0), maps().to("meta")],
    ids=["small", "double", "empty", "meta"],
)
def test_other_maps_take_pytorch_s_convolution(x, native_ops):
    conv = Conv3x3(WIDTH, WIDTH).to(x)
    with Operations() as seen:
        y = conv(x)
    assert KERNEL not in seen.names and "aten::convolution" in seen.names
    assert y.device.type == "meta" or torch.equal(y, F.conv2d(x, conv.weight, conv.bias))


def test_autocast_takes_pytorch_s_convolution_in_half_precision(native_ops):
    conv, x = Conv3x3(WIDTH, WIDTH), maps(16)
    with torch.autocast("cpu", torch.bfloat16), Operations() as seen:
        assert conv(x).dtype == torch.bfloat16
    assert KERNEL not in seen.names


def test_exported_graphs_hold_plain_operations_alone(native_ops):
    G = build_network(ResnetGeneratorConfig(3, 3, WIDTH // 4, 1)).eval().requires_grad_(False)
    assert taken(lambda: G(torch.zeros(1, 3, 4 * SIDE, 4 * SIDE))) == 2
    program = trace(translator_part(Pix2PixTranslator(G), "input", "output"))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("conv" in name for name in targets) and not any("ggdr" in name for name in targets)
