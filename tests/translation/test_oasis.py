# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks and losses of OASIS."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ggdr.torch_utils.data.label_maps import IGNORED
from ggdr.translation.layout_config import OASISConfig, OASISDiscriminatorConfig, OASISGeneratorConfig
from ggdr.translation.layout_losses import class_weights, labelmix_mask, mixture
from ggdr.translation.networks import build_network
from ggdr.translation.oasis import OASISTask
from ggdr.translation.presets import PRESETS
from ggdr.translation.spectral_norm import init_xavier
from tests.translation.hosts import BATCH, RES, assert_equal, run_phase, weights
from tests.translation.layout_hosts import CLASSES, layouts, make_networks, make_task, phase_of


def test_networks_have_the_published_widths():
    G, D = build_network(OASISGeneratorConfig()), build_network(OASISDiscriminatorConfig())
    widths = [G.first.out_channels, *(block.conv_1.out_channels for block in G.blocks)]
    assert widths == [1024, 1024, 1024, 512, 256, 128, 64]
    assert [down.conv_1.out_channels for down in D.down] == [128, 128, 256, 256, 512, 512]
    assert [(up.conv_0.in_channels, up.conv_1.out_channels) for up in D.up] == [
        (512, 512), (1024, 256), (512, 256), (512, 128), (256, 128), (256, 64),
    ]  # fmt: skip
    assert D.last.out_channels == 4 and G.blocks[0].norm_0.shared[0].out_channels == 128


def test_d_says_which_sizes_it_takes():
    with pytest.raises(ValueError, match="4 layers takes images whose sides are multiples of 16 pixels, got 24x16"):
        make_networks()[1](torch.zeros(1, 3, 16, 24))


def test_the_losses_are_those_of_the_paper():
    task, batch = make_task(weight=None, norm="instance", config=OASISConfig(0, 0, labelmix_weight=3.0)), layouts()
    draws = phase_of(task, "D").draw(BATCH, 1)
    draws["coins"] = torch.tensor([1.0, 0, 1, 0]).expand(BATCH, -1)
    for net in (task.G, task.D):
        net.eval()  # so that no pass changes the next one
    out = task._D_losses(batch, draws)
    layout, real, fake = batch["A"], batch["B"], task.make(batch["A"], draws["seeds"])
    mask = labelmix_mask(layout, draws["coins"])
    of_real, of_fake, of_mixed = (task.D(x) for x in (real, fake, mixture(mask, real, fake)))
    target = torch.where(layout.sum(dim=1) > 0, layout.argmax(dim=1) + 1, 0)
    table = torch.cat([torch.zeros(1), class_weights(layout.sum(dim=(0, 2, 3)), target.numel())])
    expected = F.cross_entropy(of_real, target, reduction="none") * table[target]
    torch.testing.assert_close(out.losses["D_real"], expected.mean(dim=(1, 2)))
    fakes = F.cross_entropy(of_fake, torch.zeros_like(target), reduction="none").mean(dim=(1, 2))
    torch.testing.assert_close(out.losses["D_fake"], fakes)
    mixed = 3 * (of_mixed - mixture(mask, of_real, of_fake)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(out.losses["D_labelmix"], mixed)
    of_G = F.cross_entropy(of_fake, target, reduction="none") * table[target]
    torch.testing.assert_close(task._G_losses(batch, draws).losses["G_classes"], of_G.mean(dim=(1, 2)))


def test_without_labelmix_d_sees_no_mixed_images():
    task, seen = make_task(weight=None, config=OASISConfig(0, 0, labelmix_weight=0.0)), []
    task.D.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    _, means = run_phase(task, "D", batch=layouts())
    assert seen == [2 * BATCH] and phase_of(task, "D").terms == ("D_fake", "D_real")
    assert "loss_term/D_labelmix" not in means


def test_coins_are_the_same_for_all_images_and_differ_over_steps():
    task = make_task(weight=None)
    draws = [phase_of(task, "D").draw(BATCH, 1) for _ in range(12)]
    assert all((draw["coins"] == draw["coins"][0]).all() and draw["coins"].shape == (BATCH, 4) for draw in draws)
    assert all(0 < sum(draw["coins"][0, i] for draw in draws) < 12 for i in range(4))
    assert len(draws[0]["seeds"].unique()) == BATCH


def test_looking_at_what_d_sees_leaves_no_trace():
    task = make_task()
    before = weights(task)
    found = task.segment(layouts(10)["B"])
    assert found.shape == (10, 1, RES, RES) and found.dtype == torch.uint8
    assert set(found.unique().tolist()) <= {0, 1, 2, IGNORED}
    assert_equal(weights(task), before)
    assert task.D.training


def test_with_the_settings_of_the_cpu_preset_d_learns_colours_and_fakes_in_20_steps():
    p = PRESETS["oasis"]["cpu"]
    G = build_network(OASISGeneratorConfig(3, 3, p.channels, p.channels, 3, p.norm))
    D = build_network(OASISDiscriminatorConfig(3, 3, p.channels, 3))
    config = OASISConfig(0, 0, lr=p.lr, **p.optim)
    for net, gain in ((G, config.G_gain), (D, config.D_gain)):
        init_xavier(net, torch.Generator().manual_seed(0), gain)
    task = OASISTask(G, D, config, CLASSES)
    for seed in range(20):
        _, reported = run_phase(task, "D", batch=layouts(p.batch, seed))
    assert reported["pixels/real"] > 0.9 and reported["pixels/fake"] > 0.9
    # A D that knows nothing has log 2 for fakes, and log 2 + log 3 for three classes.
    assert reported["loss_term/D_real"] + reported["loss_term/D_fake"] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan_loss": "hinge"}, "gan_loss must be one of segmentation, got 'hinge'"),
        ({"labelmix_weight": -1}, "labelmix_weight must be a number from 0 to below"),
        ({"beta1": 1.0}, "beta1 must be a number from 0 to below 1, got 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OASISConfig(0, 0, **settings)
