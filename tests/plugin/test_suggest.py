# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Finding the layers to attach to."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ggdr import GGDR, suggest
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from tests.sketches import with_discriminator
from tests.toy_gan import ToyD, ToyG


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_stylegan2_gets_the_papers_layers(architecture):
    sizes = dict(architecture=architecture, channel_base=1024, channel_max=16)
    G = Generator(GeneratorConfig(64, z_dim=8, w_dim=8, mapping_num_layers=1, **sizes))
    D = Discriminator(DiscriminatorConfig(64, **sizes))
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


def test_layers_that_run_often_are_listed_but_not_chosen_and_overwritten_ones_may_be():
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
    assert problems == {**dict.fromkeys("01234"), "5": "runs 2 times"}
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
        ValueError, match=r"no layer of D to predict guide 'mid' \(8x8\).* from: .* fewer pixels.* there are 0 4x16x16"
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


def test_buffers_that_change_in_eval_mode_too_are_left_as_they_were():
    class Counting(ToyD):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, img):
            self.calls += 1
            self.mean = img.mean().detach()
            return super().forward(img)

    G, D = ToyG(), Counting()
    calls = D.calls
    GGDR(G, D, probe=lambda: D(G(torch.randn(2, 4))))
    assert D.calls is calls and calls == 0 and D.mean == 0
    D(G(torch.randn(2, 4)))
    assert D.calls == 1


def test_spectral_norm_that_keeps_its_vector_as_a_parameter_is_left_as_it_was():
    class Normed(nn.Module):
        """A convolution with one power iteration a call, in eval mode too, as people write it."""

        def __init__(self, conv):
            super().__init__()
            self.conv = conv
            self.u = nn.Parameter(torch.ones(conv.out_channels), requires_grad=False)

        def forward(self, x):
            w = self.conv.weight.flatten(1)
            v = nn.functional.normalize(w.detach().T @ self.u, dim=0)
            self.u.data = nn.functional.normalize(w.detach() @ v, dim=0)
            return self.conv._conv_forward(x, self.conv.weight / (self.u @ w @ v), self.conv.bias)

    layers = [Normed(nn.Conv2d(cin, cout, 4, 2, 1)) for cin, cout in ((3, 6), (6, 7))]
    G, D = ToyG(), nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Conv2d(7, 1, 4))
    GGDR(G, D, probe=lambda: D(G(torch.randn(2, 4))))
    assert all(torch.equal(layer.u, torch.ones_like(layer.u)) for layer in layers)
    D(G(torch.randn(2, 4)))
    assert not any(torch.equal(layer.u, torch.ones_like(layer.u)) for layer in layers)


def test_maps_that_are_z_in_another_shape_are_no_guide():
    G = nn.Sequential(nn.Linear(4, 6 * 64), nn.Unflatten(1, (6, 8, 8)), nn.BatchNorm2d(6), nn.Upsample(scale_factor=2))
    G.extend([nn.Conv2d(6, 5, 3, 1, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(5, 3, 3, 1, 1)])
    D = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 7, 4, 2, 1), nn.ReLU(), nn.Conv2d(7, 1, 4))
    found = suggest(G, D, lambda: D(G(torch.zeros(2, 4))))
    assert found.guide == "5" and found.encoder == ["1", "3"]  # 16x16, not the 8x8 before the first convolution


def test_lists_of_layers_do_not_make_a_layer_a_deeper_one():
    class AutoEncoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Conv2d(3, 8, 8, 8)
            self.up = nn.ModuleList(nn.ModuleDict({"enlarge": nn.Upsample(scale_factor=scale)}) for scale in (2, 4))
            for stage, cin, cout in zip(self.up, (8, 6), (6, 3), strict=True):
                stage["blocks"] = nn.ModuleList([nn.Conv2d(cin, cout, 3, 1, 1)])

        def forward(self, img):
            x = self.down(img)
            for stage in self.up:
                x = stage["blocks"][0](stage["enlarge"](x))
            return x

    G, D = AutoEncoder(), nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.Conv2d(8, 1, 8))
    found = suggest(G, D, lambda: D(G(torch.zeros(2, 3, 64, 64))))
    assert found.guide == "up.0.blocks.0"  # not up.0.enlarge, which is less deep by name, and enlarges only


class Tokens(nn.Module):
    """img [N, 3, 32, 32] -> logits [N]; one block of a transformer on 4x4 patches, with or without a tap."""

    def __init__(self, tap=False):
        super().__init__()
        self.patches, self.qkv, self.norm = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 24), nn.LayerNorm(8)
        self.softmax, self.last, self.out = nn.Softmax(dim=-1), nn.Linear(8, 8), nn.Linear(8, 1)
        self.tap = nn.Identity() if tap else None

    def forward(self, img):
        x = self.norm(self.patches(img).permute(0, 2, 3, 1)).flatten(1, 2)  # [N, 16, 8]
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        x = self.last((self.softmax(q @ k.transpose(2, 3)) @ v).transpose(1, 2).flatten(2))
        if self.tap is not None:
            self.tap(x.transpose(1, 2).unflatten(2, (4, 4)))
        return self.out(x).mean(dim=[1, 2])


def test_attention_and_other_4d_tensors_are_not_taken_for_maps_of_the_image():
    G = nn.Sequential(nn.ConvTranspose2d(4, 6, 8), nn.ReLU(), nn.Upsample(scale_factor=4), nn.Conv2d(6, 3, 1))
    D = Tokens()
    D.windows = nn.PixelShuffle(1)

    def cut_into_windows(layer, args, output):
        D.windows(output.unfold(2, 2, 2).flatten(0, 1))

    D.patches.register_forward_hook(cut_into_windows)
    found = suggest(G, D, lambda: D(G(torch.randn(3, 4, 1, 1))))
    problems = {c.name: c.problem for c in found.discriminator}
    assert problems == {
        "patches": None,
        "windows": "24 maps of 3 images",
        "norm": "channels last, [N, H, W, C]",
        "softmax": "attention weights",
    }
    assert found.guide == "1" and found.encoder == ["patches"]


def test_tokens_are_watched_through_a_layer_that_sees_them_as_maps():
    G = nn.Sequential(nn.ConvTranspose2d(4, 6, 8), nn.ReLU(), nn.Upsample(scale_factor=4), nn.Conv2d(6, 3, 1))
    D = Tokens(tap=False)
    assert "GGDR teaches those layers nothing" in str(suggest(G, D, lambda: D(G(torch.randn(2, 4, 1, 1)))))
    D = Tokens(tap=True)
    assert "nothing" not in str(suggest(G, D, lambda: D(G(torch.randn(2, 4, 1, 1)))))
    ggdr = GGDR(G, D, probe=lambda: D(G(torch.randn(2, 4, 1, 1))))
    assert ggdr.encoder == ["tap"]
    with ggdr.watch() as feats:
        D(G(torch.randn(2, 4, 1, 1)).detach())
    ggdr.penalty(feats).mean().backward()
    assert D.last.weight.grad.abs().sum() > 0 and D.patches.weight.grad.abs().sum() > 0


def test_a_guide_is_chosen_that_d_can_reach():
    G = nn.Sequential(nn.ConvTranspose2d(4, 6, 8), nn.Upsample(scale_factor=2), nn.Conv2d(6, 5, 1))
    G.extend([nn.Upsample(scale_factor=2), nn.Conv2d(5, 3, 1)])
    D = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 1, 8))  # nothing below 8x8
    found = suggest(G, D, lambda: D(G(torch.zeros(2, 4, 1, 1))))
    assert found.guide == "2" and found.encoder == ["1"]


def test_images_may_be_named_arguments_or_in_a_list():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = nn.Conv2d(3, 6, 4, 4).requires_grad_(False)
            self.head = nn.Conv2d(6, 1, 4)

        def forward(self, *, imgs):
            return self.head(self.frozen(imgs[0]))

    G, D = ToyG(), Pyramid()
    with pytest.raises(ValueError, match=r"there are frozen 6x4x4 \(no trainable layer before it\)"):
        suggest(G, D, lambda: D(imgs=[G(torch.zeros(2, 4))]))


def test_sound_and_voxels_are_refused_with_their_shapes():
    G = nn.Sequential(nn.ConvTranspose1d(4, 6, 8), nn.ConvTranspose1d(6, 1, 4, 4))
    D = nn.Sequential(nn.Conv1d(1, 6, 4, 4), nn.Conv1d(6, 1, 8))
    with pytest.raises(ValueError, match=r"returned maps \[N, C, H, W\].* but tensors of shapes such as \(2, 6, 8\)"):
        suggest(G, D, lambda: D(G(torch.zeros(2, 4, 1))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_as_a_network_and_passed_over_inside_one():
    G, D = ToyG(), ToyD()
    scripted = torch.jit.trace(D.eval(), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="is TorchScript .* attach to the network that it was made from"):
        suggest(G, scripted, lambda: scripted(G(torch.zeros(2, 4))))
    with pytest.raises(ValueError, match="layer 'e4' is TorchScript"):
        GGDR(G, scripted, guide="mid", encoder=["e4"], probe=lambda: scripted(G(torch.zeros(2, 4))))
    D.e8 = torch.jit.trace(D.e8, torch.zeros(2, 3, 16, 16))
    assert GGDR(G, D, probe=lambda: D(G(torch.zeros(2, 4)))).encoder == ["e4"]


def test_an_encoder_is_chosen_for_the_guide_that_is_named():
    G = nn.Sequential(nn.ConvTranspose2d(4, 6, 4))
    for _ in range(4):  # up to 64x64
        G.extend([nn.Upsample(scale_factor=2), nn.Conv2d(6, 6, 1)])
    G.append(nn.Conv2d(6, 3, 1))
    D = nn.Sequential(*(nn.Conv2d(cin, 8, 4, 2, 1) for cin in (3, 8, 8, 8)), nn.Conv2d(8, 1, 4))

    def probe():
        return D(G(torch.zeros(2, 4, 1, 1)))

    assert suggest(G, D, probe).encoder == ["2", "3"]
    for guide in ("module.6", ["4", "6"]):
        assert suggest(G, D, probe, guide=guide).encoder == ["1", "2", "3"]
    assert GGDR(G, D, guide="8", probe=probe).encoder == ["3", "2", "1", "0"]  # from the smallest up
    with pytest.raises(ValueError, match="has no layer 'nine'"):
        GGDR(G, D, guide="nine", probe=probe)


def test_networks_that_run_without_gradients_or_are_frozen_are_looked_through_all_the_same():
    G, D, probe = with_discriminator("StyleGAN2")
    expected = suggest(G, D, probe)
    for net in (G, D):
        net.requires_grad_(False)
    with torch.no_grad():
        img = G(torch.randn(2, 32, 1, 1))

    def without_gradients():
        with torch.inference_mode():
            G(torch.randn(2, 32, 1, 1))
            D(img)

    found = suggest(G, D, without_gradients)
    assert (found.guide, found.encoder) == (expected.guide, expected.encoder)


def test_the_largest_of_several_images_says_how_large_a_guide_is_to_be():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.blocks = nn.ConvTranspose2d(4, 6, 4), nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(4))
            self.to_rgb = nn.ModuleList(nn.Conv2d(6, 3, 1) for _ in range(4))

        def forward(self, z):
            x, images = self.first(z), []
            for block, to_rgb in zip(self.blocks, self.to_rgb, strict=True):
                x = block(nn.functional.interpolate(x, scale_factor=2))
                images.append(to_rgb(x))
            return images

    G, D = Scales(), nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2), nn.Conv2d(8, 1, 4))
    found = suggest(G, D, lambda: D(G(torch.zeros(2, 4, 1, 1))[-1]))
    assert found.guide == "blocks.1"  # 16x16 of 64x64
