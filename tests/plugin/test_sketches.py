# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `suggest` chooses in many kinds of networks, as the page says, and that GGDR takes it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from ggdr import GGDR, suggest
from tests.conftest import ROOT
from tests.sketches import SKETCHED_D, SKETCHED_G, with_discriminator, with_generator
from tests.sketches.discriminators import DISCRIMINATORS
from tests.sketches.transformers import ViT

PAGE = (ROOT / "docs" / "plugin.md").read_text()


def table(header: str) -> dict[str, tuple[str, str]]:
    """Layers and sizes by the kind of network, from a table of the page."""
    rows = PAGE.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    return {name: (layers, sizes) for name, layers, sizes, *_ in (re.split(r" *\| *", row)[1:] for row in rows)}


@pytest.mark.parametrize("name", SKETCHED_G)
def test_guide_of_each_kind_of_generator_is_what_the_page_says(name):
    G, D, probe = with_generator(name)
    found = suggest(G, D, probe)
    guide = next(c for c in found.generator if c.name == found.guide)
    assert (f"`{guide.name}`", f"{guide.channels}x{guide.height}x{guide.width}") == table("generator")[name]
    assert GGDR(G, D, probe=probe).guides == [guide.name]


@pytest.mark.parametrize("name", SKETCHED_D)
def test_encoder_of_each_kind_of_discriminator_is_what_the_page_says(name):
    G, D, probe = with_discriminator(name)
    found = suggest(G, D, probe)
    maps = {c.name: f"{c.channels}x{c.height}x{c.width}" for c in found.discriminator}
    layers = ", ".join(f"`{layer}`" for layer in found.encoder)
    assert (layers, ", ".join(maps[layer] for layer in found.encoder)) == table("discriminator")[name]
    ggdr = GGDR(G, D, probe=probe)
    assert set(ggdr.encoder) == set(found.encoder)


def test_page_has_each_kind_once():
    assert list(table("generator")) == list(SKETCHED_G) and list(table("discriminator")) == list(SKETCHED_D)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_reach_all_that_comes_before_the_encoder(name):
    G, D, probe = with_discriminator(name)
    ggdr = GGDR(G, D, probe=probe)
    with ggdr.watch() as feats:
        D(G(torch.randn(2, 32, 1, 1)).detach())
    ggdr.penalty(feats).mean().backward()
    reached = [key for key, p in D.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) >= 4
    assert all(p.grad.abs().sum() > 0 for p in ggdr.parameters())
    first = next(key for key, p in D.named_parameters() if p.ndim == 4)
    assert first in reached


def test_the_image_in_another_shape_is_no_guide():
    G = nn.Sequential(nn.ConvTranspose2d(32, 32, 4), nn.Upsample(scale_factor=4), nn.Conv2d(32, 16, 3, padding=1))
    G.extend([nn.ReLU(), nn.Conv2d(16, 48, 3, padding=1), nn.PixelShuffle(4)])
    D = with_generator("DCGAN")[1]
    found = suggest(G, D, lambda: D(G(torch.randn(2, 32, 1, 1))))
    assert found.guide == "3"
    assert [c.name for c in found.generator if c.problem] == ["4"]


class HiddenConvolution(torch.autograd.Function):
    """Its result comes from nowhere, for torch: so do those of compiled extensions."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        out = nn.functional.conv2d(x, weight, bias, stride, padding)
        return torch.from_numpy(out.detach().numpy().copy())


@pytest.mark.parametrize("name", ["StyleGAN2", "SNGAN", "FastGAN"])
def test_operations_that_torch_does_not_show_change_nothing(name, monkeypatch):
    expected = suggest(*with_discriminator(name)).encoder
    monkeypatch.setattr(
        nn.Conv2d,
        "_conv_forward",
        lambda self, x, weight, bias: HiddenConvolution.apply(x, weight, bias, self.stride, self.padding),
    )
    assert suggest(*with_discriminator(name)).encoder == expected


def test_tokens_by_heads_are_not_taken_for_maps_that_bring_a_guide_within_reach():
    G = nn.Sequential(nn.ConvTranspose2d(32, 8, 4))
    for channels in (8, 8, 3):  # 16x16, 64x64, 256x256
        G.extend([nn.Upsample(scale_factor=4), nn.Conv2d(8, channels, 1)])
    D = ViT(patch=32, dim=256, heads=4)  # heads of 64 channels see 65 tokens, of 8x8 patches

    def probe():
        return D(G(torch.randn(1, 32, 1, 1)))

    found = suggest(G, D, probe)
    problems = {c.name: c.problem for c in found.discriminator}
    assert problems["blocks.0.attn.q_norm"] == "tokens by attention heads"
    assert found.guide == "2" and GGDR(G, D, probe=probe).encoder == ["patch_embed"]  # not "4", of 64x64


def test_discriminators_without_a_smaller_map_are_refused_with_what_they_have():
    G, D = with_generator("CycleGAN")[0], nn.Sequential(nn.Conv2d(3, 16, 1), nn.LeakyReLU(0.2, True))
    D.append(nn.Conv2d(16, 1, 1))  # a PatchGAN of one pixel
    with pytest.raises(ValueError, match=r"guide '12' \(16x16\) or .* there are 0 16x64x64, 1 16x64x64, 2 1x64x64"):
        suggest(G, D, lambda: D(G(torch.randn(2, 3, 64, 64))))
