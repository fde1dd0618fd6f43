# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks and losses of CC-FPSE."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ggdr.translation.cc_fpse_networks import convolve_pixelwise
from ggdr.translation.layout_config import CCFPSEConfig, CCFPSEDiscriminatorConfig, CCFPSEGeneratorConfig
from ggdr.translation.losses import feature_distance, hinge, mean_score
from ggdr.translation.networks import build_network
from tests.translation.hosts import BATCH, RES
from tests.translation.layout_hosts import layouts, make_networks, make_task, phase_of


def test_networks_have_the_published_widths():
    G, D = build_network(CCFPSEGeneratorConfig()), build_network(CCFPSEDiscriminatorConfig())
    assert [block.conv_1.mix.out_channels for block in G.blocks] == [1024, 1024, 512, 256, 128, 64]
    assert [down.out_channels for down in D.down] == [64, 128, 256, 512, 512]
    assert {x.out_channels for x in D.lateral} == {256} and {x.out_channels for x in D.smooth} == {128}


def test_one_kernel_for_all_pixels_is_a_depth_wise_convolution():
    x, kernels = torch.randn(2, 4, 6, 5), torch.randn(4, 3, 3)
    expected = F.conv2d(x, kernels[:, None], padding=1, groups=4)
    everywhere = kernels.flatten(1)[None, :, :, None, None].expand(2, -1, -1, 6, 5)
    torch.testing.assert_close(convolve_pixelwise(x, everywhere), expected)


def test_kernels_of_pixels_act_at_their_pixels():
    x, kernels = torch.arange(12.0).view(1, 1, 3, 4), torch.zeros(1, 1, 9, 3, 4)
    kernels[..., 5, 1, 1], kernels[..., 1, 2, 3] = 1, 2  # the right neighbour; twice the upper one
    out = convolve_pixelwise(x, kernels)
    assert out[0, 0, 1, 1] == x[0, 0, 1, 2] and out[0, 0, 2, 3] == 2 * x[0, 0, 1, 3] and (out != 0).sum() == 2


def test_features_of_the_layout_see_far_at_every_size():
    pyramid = make_networks("cc-fpse")[0].eval().pyramid
    layout = layouts(1)["A"]
    changed = layout.clone()
    changed[:, :, 6:8, 6:8] = 1 - changed[:, :, 6:8, 6:8]  # the largest maps alone see two pixels far
    maps, others = pyramid(layout), pyramid(changed)
    assert [x.shape[2] for x in maps] == [4, 8, 16, 32]
    assert all(not torch.equal(a[..., 0, 0], b[..., 0, 0]) for a, b in zip(maps, others, strict=True))


def rms(x) -> float:
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("part", ["pyramid", "D"])
def test_maps_of_all_sizes_count_alike_where_a_pyramid_adds_them(part):
    G, D = (net.eval() for net in make_networks("cc-fpse"))
    batch, sizes = layouts(), []
    net = G.pyramid if part == "pyramid" else D
    for lateral in net.lateral:
        lateral.register_forward_hook(lambda module, args, out: sizes.append(rms(out)))
    net(batch["A"]) if part == "pyramid" else net(batch["B"], batch["A"])
    assert len(sizes) == len(net.lateral) and max(sizes) < 2 * min(sizes)


def test_all_kernels_of_a_generator_are_of_one_size():
    G, batch, sizes = make_networks("cc-fpse")[0].eval(), layouts(), []
    for block, features in zip(G.blocks, G.pyramid(batch["A"]), strict=True):
        conv = block.conv_0
        sizes.append(rms(conv.kernels(features)) * conv.kernel_gain / rms(features))
    assert len({block.conv_0.kernels.out_channels for block in G.blocks}) > 2 and max(sizes) < 2 * min(sizes)


def test_features_of_a_layout_of_one_class_tell_which_it_is():
    pyramid, planes = make_networks("cc-fpse")[0].eval().pyramid, layouts(1)["A"].shape[1]
    one, other = torch.eye(planes)[:2, :, None, None].expand(-1, -1, RES, RES).split(1)
    assert all(rms(a - b) > 0.1 * rms(a) for a, b in zip(pyramid(one), pyramid(other), strict=True))


def test_pixels_of_no_class_have_features_and_gradients_that_are_no_larger():
    pyramid = make_networks("cc-fpse")[0].pyramid
    layout = torch.zeros(1, pyramid.first.in_channels, RES, RES, requires_grad=True)
    sum(x.sum() for x in pyramid(layout)).backward()
    ignored = layout.grad.abs().max()
    layout = layouts(1)["A"].requires_grad_()
    sum(x.sum() for x in pyramid(layout)).backward()
    assert torch.isfinite(ignored) and ignored < 100 * layout.grad.abs().max()


def test_d_compares_image_and_layout_at_three_scales():
    D, batch = make_networks("cc-fpse")[1].eval(), layouts()
    maps, feats = D(batch["B"], batch["A"])
    assert [x.shape for x in maps] == [(BATCH, 1, size, size) for size in (4, 8, 16)]
    assert [x.shape[2] for x in feats] == [16, 8, 4, 2]
    # Without a layout, as where all pixels are ignored, the patch score is left.
    alone, same = D(batch["B"], torch.zeros_like(batch["A"]))
    assert all(torch.equal(a, b) for a, b in zip(feats, same, strict=True))
    aligned = [a - b for a, b in zip(maps, alone, strict=True)]
    doubled = [a - b for a, b in zip(D(batch["B"], 2 * batch["A"])[0], alone, strict=True)]
    for one, two in zip(aligned, doubled, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(2 * one, two)


def test_d_says_which_sizes_it_takes():
    D = make_networks("cc-fpse")[1]
    for height, width in ((32, 40), (24, 32)):
        message = f"4 layers takes images whose sides are multiples of 16 pixels, got {width}x{height}"
        with pytest.raises(ValueError, match=message):
            D(torch.zeros(1, 3, height, width), torch.zeros(1, 3, height, width))


def test_d_takes_images_that_it_halves_to_one_pixel():
    D = make_networks("cc-fpse")[1]
    maps, feats = D(torch.randn(2, 3, 16, 16), torch.zeros(2, D.config.classes, 16, 16))
    assert [x.shape[2] for x in maps] == [2, 4, 8] and feats[-1].shape[2:] == (1, 1)


def test_hinge_losses_and_scores_of_known_logits():
    maps = [torch.tensor([[2.0, 0], [-1, -3]]), torch.tensor([[0.5], [-2.0]])]
    assert hinge(maps, True).tolist() == [(0.5 + 0.5) / 2, (3 + 3) / 2]
    assert hinge(maps, False).tolist() == [(2 + 1.5) / 2, 0]
    assert mean_score(maps).tolist() == [0.75, -2]


def test_feature_matching_is_the_mean_over_levels():
    feats, targets = (
        [torch.ones(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)],
        [torch.zeros(2, 3, 4, 4), torch.ones(2, 5, 2, 2) * 3],
    )
    assert feature_distance(feats, targets).tolist() == [2, 2]
    with pytest.raises(ValueError, match="of one shape"):
        feature_distance(feats, targets[::-1])


def test_the_losses_are_those_of_the_paper():
    config = CCFPSEConfig(0, 0, feature_weight=3.0)
    task, batch = make_task("cc-fpse", weight=None, norm="instance", config=config), layouts()
    for net in (task.G, task.D):
        net.eval()  # so that no pass changes the next one
    draws = phase_of(task, "D").draw(BATCH, 1)
    (fakes, feats), (reals, targets) = (
        task.D(img, batch["A"]) for img in (task.make(batch["A"], draws["seeds"]), batch["B"])
    )
    out = task._D_losses(batch, draws)
    expected = sum(F.relu(1 - x).mean(dim=(1, 2, 3)) for x in reals) / 3
    torch.testing.assert_close(out.losses["D_real"], expected)
    torch.testing.assert_close(out.losses["D_fake"], sum(F.relu(1 + x).mean(dim=(1, 2, 3)) for x in fakes) / 3)
    out = task._G_losses(batch, draws)
    torch.testing.assert_close(out.losses["G_gan"], -sum(x.mean(dim=(1, 2, 3)) for x in fakes) / 3)
    matching = sum((a - b).abs().mean(dim=(1, 2, 3)) for a, b in zip(feats, targets, strict=True)) / 4
    torch.testing.assert_close(out.losses["G_features"], 3 * matching)


def test_without_feature_matching_d_sees_no_targets_in_the_phase_of_g():
    task, seen = make_task("cc-fpse", weight=None, config=CCFPSEConfig(0, 0, feature_weight=0.0)), []
    task.D.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    phase = phase_of(task, "G")
    assert phase.terms == ("G_gan",) == tuple(phase.losses(layouts(), phase.draw(BATCH, 1)).losses)
    assert seen == [(BATCH, 3, RES, RES)]
