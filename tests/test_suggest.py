# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Finding the layers to attach to."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ggdr import GGDR, suggest
from stylegan2.config import DiscriminatorConfig, GeneratorConfig
from stylegan2.discriminator import Discriminator
from stylegan2.generator import Generator
from tests.toy_gan import ToyD, ToyG


def test_stylegan2_gets_the_papers_layers():
    G = Generator(GeneratorConfig(64, channel_base=512, channel_max=16, z_dim=8, w_dim=8, mapping_num_layers=1))
    D = Discriminator(DiscriminatorConfig(64, channel_base=512, channel_max=16))
    found = suggest(G, D, lambda: D(G(torch.randn(1, 8))))
    assert found.guide == "synthesis.b16"
    assert found.encoder == ["b16", "b8"]  # blocks halve: these return 8x8 and 4x4


def test_the_table_shows_sizes_marks_the_choice_and_can_be_copied():
    G, D = ToyG(), ToyD()
    z = torch.zeros(2, 4)
    text = str(suggest(G, D, lambda: D(G(z))))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "class", "channels", "size"]
    assert ["G", "*", "mid", "Mid", "5", "8x8"] in [line.split() for line in lines]
    assert ["D", "*", "e4", "Sequential", "9", "4x4"] in [line.split() for line in lines]
    assert ["D", "e8.0", "Conv2d", "7", "8x8"] in [line.split() for line in lines]
    code = lines[-1].removeprefix("* ")
    assert eval(code, {"GGDR": GGDR, "G": G, "D": D, "probe": lambda: D(G(z))}).guides == ["mid"]


def test_ggdr_without_names_takes_what_is_suggested():
    G, D = ToyG(), ToyD()
    ggdr = GGDR(G, D, probe=lambda: D(G(torch.zeros(2, 4))))
    assert ggdr.guides == ["mid"] and ggdr.encoder == ["e4"]
    assert repr(ggdr) == "GGDR(guide=['mid'], encoder=['e4'], weight=10)"


def test_layers_that_are_overwritten_or_run_often_are_listed_but_not_chosen():
    shared = nn.Conv2d(6, 6, 3, 1, 1)
    D = nn.Sequential(
        nn.Conv2d(3, 6, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(6, 6, 4, 2, 1),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.2, inplace=True),
        shared,
        shared,
        nn.Conv2d(6, 1, 4),
    )
    G = ToyG()
    found = suggest(G, D, lambda: D(G(torch.zeros(2, 4))))
    problems = {c.name: c.problem for c in found.discriminator}
    assert problems["0"] == problems["3"] == "overwritten in place by a later layer"
    assert problems["5"] == "runs 2 times"
    assert problems["2"] is None  # batch norm makes a new tensor
    assert found.encoder == ["4"]
    assert "runs 2 times" in str(found)


def test_the_way_up_of_a_u_net_is_not_taken_for_its_encoder():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down1, self.down2 = nn.Conv2d(3, 6, 4, 2, 1), nn.Conv2d(6, 8, 4, 2, 1)
            self.up1 = nn.ConvTranspose2d(8, 6, 4, 2, 1)
            self.up2 = nn.ConvTranspose2d(12, 1, 4, 2, 1)

        def forward(self, img):
            half = self.down1(img).relu()
            x = self.up1(self.down2(half).relu()).relu()
            return self.up2(torch.cat([x, half], 1))

    class G(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.mid, self.top = nn.Linear(4, 6 * 16), nn.Conv2d(6, 5, 3, 1, 1), nn.Conv2d(5, 3, 3, 1, 1)

        def forward(self, z):
            x = nn.functional.interpolate(self.low(z).reshape(-1, 6, 4, 4), scale_factor=4)
            return nn.functional.interpolate(self.top(self.mid(x)), scale_factor=2)

    net, D = G(), UNet()
    found = suggest(net, D, lambda: D(net(torch.zeros(1, 4))))
    assert found.guide == "mid"  # 16x16, the nearest to 8 that there is
    assert found.encoder == ["down2"]


def test_sizes_that_are_no_powers_of_two_are_matched_as_they_are():
    G = nn.Sequential(nn.ConvTranspose2d(4, 8, 7), nn.ReLU(), nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.ReLU())
    G.append(nn.ConvTranspose2d(6, 1, 4, 2, 1))
    D = nn.Sequential(nn.Conv2d(1, 6, 4, 2, 1), nn.Conv2d(6, 8, 4, 2, 1), nn.Conv2d(8, 9, 3, 2), nn.Conv2d(9, 1, 3))
    z = torch.zeros(1, 4, 1, 1)
    found = suggest(G, D, lambda: D(G(z)))
    assert found.guide == "1" and found.encoder == ["2"]  # 7x7 from 3x3
    assert GGDR(G, D, probe=lambda: D(G(z))).guides == ["1"]


def test_suggesting_leaves_no_trace():
    G, D = ToyG(), ToyD()
    D.act.eval()
    before = {k: v.clone() for k, v in D.state_dict().items()}
    modes = [m.training for m in D.modules()]
    state = torch.get_rng_state()
    suggest(G, D, lambda: D(G(torch.randn(2, 4))))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(D.state_dict()[k], v) for k, v in before.items())
    assert [m.training for m in D.modules()] == modes
    assert not any(m._forward_hooks for net in (G, D) for m in net.modules())


def test_networks_without_maps_are_said_to_have_none():
    G, D = nn.Linear(4, 12), nn.Linear(12, 1)
    with pytest.raises(ValueError, match="no layer of G to take as guide; no layer returned maps"):
        suggest(G, D, lambda: D(G(torch.zeros(1, 4))))
    G, D = ToyG(), nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 256, 1))
    with pytest.raises(
        ValueError, match=r"no layer of D of fewer pixels than the guide 'mid' \(8x8\); there are 0 4x16x16"
    ):
        suggest(G, D, lambda: D(G(torch.zeros(1, 4))))


def test_kernels_of_parametrised_layers_are_not_taken_for_features():
    D = nn.Sequential(nn.Conv2d(3, 6, 4, 2, 1), nn.ReLU(), nn.Conv2d(6, 7, 4, 2, 1), nn.ReLU(), nn.Conv2d(7, 1, 4))
    for layer in D[::2]:
        parametrizations.spectral_norm(layer)
    G = ToyG()
    found = suggest(G, D, lambda: D(G(torch.zeros(1, 4))))
    assert [c.name for c in found.discriminator] == ["0", "1", "2", "3"] and found.encoder == ["3"]


def test_layers_with_nothing_trainable_before_them_are_not_chosen():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = nn.Sequential(nn.Conv2d(3, 6, 4, 4)).requires_grad_(False)
            self.head = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 1, 4))

        def forward(self, img):
            return self.head(self.frozen(img))

    G, D = ToyG(), Projected()

    def probe():
        return D(G(torch.zeros(1, 4)))

    found = suggest(G, D, probe)
    assert [c.name for c in found.discriminator if c.problem] == ["frozen.0", "frozen"]
    assert "no trainable layer before it" in str(found) and found.encoder == ["head.1"]
    with pytest.raises(
        ValueError, match="no trainable layer of D comes before frozen, so that GGDR could teach D nothing"
    ):
        GGDR(G, D, guide="mid", encoder=["frozen"], probe=probe)
    assert GGDR(G, D, guide="mid", encoder=["frozen"], probe=probe, weight=0).encoder == ["frozen"]
    D.requires_grad_(False)  # as some loops do between steps
    assert GGDR(G, D, guide="mid", encoder=["frozen"], probe=probe).encoder == ["frozen"]
    assert not any(m._forward_pre_hooks for m in D.modules())
