# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The networks of image translation against reference vectors, and at sizes, seeds and settings at the edges."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from ggdr.translation.combogan_networks import ComboGANGenerator
from ggdr.translation.config import (
    CONFIGS,
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    DecoderConfig,
    EncoderConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    SharedConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.layers import Dropout, at_multiple, init_weights
from ggdr.translation.layout_config import (
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)
from ggdr.translation.networks import NETWORKS, build_network
from tests.reference_vectors import Golden, assert_agrees, golden_files

REFERENCES = [path for path in golden_files("translation_*.npz") if "losses" not in path.name]
COMBOGAN = [path for path in REFERENCES if "combogan_generator" in path.name]

# One small network of each kind, and of each way to build it.
TINY = [
    ResnetGeneratorConfig(3, 2, 4, 1),
    ResnetGeneratorConfig(1, 3, 4, 2, "batch", True),
    UnetGeneratorConfig(3, 2, 4, 5),
    UnetGeneratorConfig(5, 3, 4, 7, "instance", False),
    PatchDiscriminatorConfig(6, 4, 3),
    PatchDiscriminatorConfig(3, 4, 1, "batch"),
    PixelDiscriminatorConfig(3, 4),
    PixelDiscriminatorConfig(6, 4, "batch"),
    EncoderConfig(3, 4, 1),
    DecoderConfig(3, 4, 0),
    SharedConfig(4, 2, 3),
    ComboGANGeneratorConfig(3, 4, 1, 1, 1, 2, 3),
    ComboGANDiscriminatorConfig(4, 3),
]

# Those for label maps, which have no published files.
LAYOUT = [
    OASISGeneratorConfig(5, 3, 4, 4, 2),
    OASISDiscriminatorConfig(3, 5, 4, 3),
    CCFPSEGeneratorConfig(5, 3, 4, 2, 2),
    CCFPSEDiscriminatorConfig(3, 5, 4, 4),
]


def assert_reproduces(golden, run):
    """`run` gives the reference's outputs, and the gradient of the sum of their squares to its input."""
    x = golden["x"].requires_grad_()
    outs = run(x)
    expected = list(golden.below("out").values()) or [golden["out"]]
    for out, truth in zip(outs, expected, strict=True):
        # The file has the maps of both stacks of ComboGAN's discriminator below each other.
        assert_agrees(out if out.ndim == truth.ndim else out.flatten(1, 2), truth)
    (x_grad,) = torch.autograd.grad(sum(out.square().sum() for out in outs), x)
    assert_agrees(x_grad, golden["x_grad"], "x_grad")


def assert_network_reproduces(path):
    """A network of pix2pix or CycleGAN gives what its file says."""
    golden = Golden(path)
    settings = {name: value for name, value in golden.meta.items() if name != "note"}
    net = build_network(config_from_json(settings)).eval()
    net.load_state_dict(golden.below("state"), strict=True)
    assert_reproduces(golden, lambda x: out if isinstance(out := net(x), list) else [out])


def assert_combogan_reproduces(path):
    """A generator of ComboGAN gives what its file says."""
    golden = Golden(path)
    m = golden.meta
    shared = m["shared_blocks"]
    config = ComboGANGeneratorConfig(
        3, m["channels"], m["encoder_blocks"], m["decoder_blocks"], shared, shared, m["domains"]
    )
    G = ComboGANGenerator(config)
    parts = {
        "encoder": G.encoders[m["from_domain"]],
        "decoder": G.decoders[m["to_domain"]],
        "shared_encoder": G.shared_encoder,
        "shared_decoder": G.shared_decoder,
    }
    taken = 0
    for name, part in parts.items():
        state = {k.removeprefix(f"{name}."): v for k, v in golden.below("state").items() if k.startswith(f"{name}.")}
        part.load_state_dict(state, strict=True)
        taken += len(state)
    assert taken == len(golden.below("state"))
    assert_reproduces(golden, lambda x: [G(x, m["from_domain"], m["to_domain"])])


@pytest.mark.parametrize("path", [p for p in REFERENCES if p not in COMBOGAN], ids=lambda path: path.stem)
def test_networks_agree_with_reference_vectors(path):
    assert_network_reproduces(path)


@pytest.mark.parametrize("path", COMBOGAN, ids=lambda path: path.stem)
def test_combogan_s_generator_agrees_with_reference_vectors(path):
    assert_combogan_reproduces(path)


def test_the_reference_vectors_are_of_all_kinds_of_networks():
    kinds = {Golden(path).meta["network"] for path in REFERENCES}
    assert kinds == {config.network for config in CONFIGS.values()} - {
        "combogan_encoder", "combogan_decoder", "combogan_shared", *(config.network for config in LAYOUT),
    }  # fmt: skip


# Settings.


@pytest.mark.parametrize("config", TINY + LAYOUT, ids=repr)
def test_settings_survive_json(config):
    stored = json.loads(json.dumps(config.to_json()))
    assert stored["network"] == config.network and config_from_json(stored) == config


def test_each_kind_of_settings_has_a_network():
    assert set(CONFIGS.values()) == set(NETWORKS) == {type(config) for config in TINY + LAYOUT}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "expected the settings of a network, got None"),
        ({"network": "stylegan2"}, "network must be one of resnet_generator, .*, got 'stylegan2'"),
        ({"network": ["unet_generator"]}, r"network must be one of .*, got \['unet_generator'\]"),
        ({"network": "unet_generator", "blocks": 9}, "unet_generator has no setting 'blocks'; it has in_channels, "),
        ({"network": "unet_generator", "downs": 4}, "downs must be a whole number from 5 to 12, got 4"),
        ({"network": "unet_generator", "dropout": 1}, "dropout must be true or false, got 1"),
        ({"network": "resnet_generator", "blocks": True}, "blocks must be a whole number from 0 to 64, got True"),
        ({"network": "resnet_generator", "norm": "layer"}, "norm must be one of batch, instance, got 'layer'"),
        ({"network": "resnet_generator", "norm": []}, r"norm must be one of batch, instance, got \[\]"),
        ({"network": "patch_discriminator", "channels": 10**9}, "channels must be a whole number from 1 to 65536"),
        ({"network": "combogan_generator", "domains": 1}, "domains must be a whole number from 2 to 1024, got 1"),
    ],
)
def test_settings_that_no_network_has_are_named(stored, message):
    with pytest.raises(ValueError, match=message):
        config_from_json(stored)


def test_the_settings_of_the_papers_are_the_usual_ones():
    widths = [layer.out_channels for layer in build_network(ResnetGeneratorConfig()).model if hasattr(layer, "stride")]
    assert widths == [64, 128, 256, 128, 64, 3]
    downs = [m.out_channels for m in build_network(UnetGeneratorConfig()).modules() if type(m) is nn.Conv2d]
    assert downs == [64, 128, 256, 512, 512, 512, 512, 512]
    patches = [m.out_channels for m in build_network(PatchDiscriminatorConfig()).modules() if type(m) is nn.Conv2d]
    assert patches == [64, 128, 256, 512, 1]
    assert len([m for m in build_network(UnetGeneratorConfig()).modules() if isinstance(m, Dropout)]) == 3


# Sizes.


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 31), (70, 100)])
@pytest.mark.parametrize("config", TINY[:4], ids=repr)
def test_generators_take_images_of_any_size(config, size):
    G = build_network(config).eval()
    img = torch.randn(2, config.in_channels, *size)
    out = G(img)
    assert out.shape == (2, config.out_channels, *size) and out.abs().max() <= 1 and out.isfinite().all()


@pytest.mark.parametrize("size", [(2, 5), (33, 31)])
def test_combogan_takes_images_of_any_size(size):
    G = build_network(TINY[-2])
    assert G(torch.randn(2, 3, *size), 2, 1).shape == (2, 3, *size)
    assert G.encode(torch.randn(2, 3, 12, 16), 1).shape == (2, 16, 3, 4)


def test_a_padded_image_is_continued_by_its_reflection_and_cropped_back():
    img = torch.arange(15.0).reshape(1, 1, 3, 5).requires_grad_()
    seen = []

    def net(x):
        seen.append(x)
        return x * 2

    out = at_multiple(net, img, 4)
    assert torch.equal(out, img * 2)
    expected = torch.nn.functional.pad(img, (0, 3, 0, 1), mode="reflect")
    assert torch.equal(seen[0], expected)
    seen[0].sum().backward()
    assert img.grad.sum() == expected.numel()


def test_images_smaller_than_what_is_added_are_reflected_more_than_once():
    row = torch.tensor([0.0, 1, 2]).expand(1, 1, 3, 3)
    seen = []
    at_multiple(lambda x: seen.append(x) or x, row, 4, at_least=8)
    assert seen[0][0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1] and seen[0].shape[2:] == (8, 8)
    at_multiple(lambda x: seen.append(x) or x, torch.full([1, 1, 1, 1], 7.0), 4)
    assert seen[1].shape[2:] == (4, 4) and (seen[1] == 7).all()


def test_images_of_a_fitting_size_pass_as_they_are():
    img = torch.randn(1, 1, 8, 12)
    at_multiple(lambda x: x.mul_(2), img.clone(), 4)
    seen = []
    at_multiple(lambda x: seen.append(x) or x, img, 4)
    assert seen[0] is img


@pytest.mark.parametrize("layers", [1, 3])
def test_the_patch_discriminator_names_images_that_are_too_small(layers):
    D = build_network(PatchDiscriminatorConfig(3, 4, layers))
    assert D(torch.randn(1, 3, D.min_size, D.min_size)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=f"takes images from {D.min_size} pixels up, got 90x{D.min_size - 1}"):
        D(torch.randn(1, 3, D.min_size - 1, 90))


def test_a_patch_is_of_70_pixels():
    D = build_network(PatchDiscriminatorConfig(1, 2, 3, "batch")).eval()
    img = torch.randn(1, 1, 256, 256, requires_grad=True)
    D(img)[0, 0, 15, 15].backward()
    rows = img.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70


# Noise.


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("config", [TINY[1], UnetGeneratorConfig(3, 3, 2, 7, "instance", True)], ids=repr)
def test_dropout_of_an_image_depends_on_its_seed_alone(config, is_training):
    G = build_network(config).train(is_training)
    for m in G.modules():  # statistics of a batch would tie its images together
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    img, seeds = torch.randn(1, config.in_channels, 16, 16).expand(3, -1, -1, -1), torch.tensor([5, 6, 5])
    torch.manual_seed(0)
    out = G(img, seeds)
    torch.testing.assert_close(out[0], out[2])
    assert (out[0] - out[1]).abs().max() > 1e-3
    torch.testing.assert_close(G(img[:1], seeds[1:2])[0], out[1])


def test_dropout_without_seeds_is_on_in_training_alone_and_keeps_the_mean():
    drop, x = Dropout(), torch.ones(1, 1, 200, 200)
    assert torch.equal(drop.eval()(x), x)
    for y in (drop.train()(x), drop(x, [torch.Generator().manual_seed(1)])):
        assert set(y.unique().tolist()) == {0, 2} and abs(y.mean() - 1) < 0.05


# Initial weights.


@pytest.mark.parametrize("config", TINY[:7], ids=repr)
def test_initial_weights_come_from_the_generator_and_have_the_papers_spread(config):
    nets = [build_network(config) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        init_weights(net, torch.Generator().manual_seed(seed))
    a, b, c = (torch.cat([p.flatten() for p in net.parameters() if p.ndim == 4]) for net in nets)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert abs(a.std() - 0.02) < 0.002 and abs(a.mean()) < 0.002
    biases = [p for name, p in nets[0].named_parameters() if name.endswith("bias")]
    assert biases and all((p == 0).all() for p in biases)
    scales = [m.weight for m in nets[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(0 < (p - 1).abs().max() < 0.1 for p in scales)
    assert bool(scales) == (getattr(config, "norm", None) == "batch")
