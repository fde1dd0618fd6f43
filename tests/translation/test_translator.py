# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Translators of all three models: domains, batches, and snapshots of anyone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, save_snapshot
from ggdr.translation.config import (
    ComboGANGeneratorConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.layers import init_weights
from ggdr.translation.needed_memory import bytes_per_pixel
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import load_translator, model_of
from ggdr.translation.translator import Pix2PixTranslator

TINY = ResnetGeneratorConfig(channels=4, blocks=1)
COMBOGAN = ComboGANGeneratorConfig(channels=4, encoder_blocks=1, decoder_blocks=1, domains=3)


def save(path, configs, **more):
    """A snapshot of networks with drawn weights; the networks."""
    nets = {name: build_network(config).eval() for name, config in configs.items()}
    for seed, net in enumerate(nets.values()):
        init_weights(net, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for param in net.parameters():
                param *= 5 if param.ndim == 4 else 1  # so that outputs differ by more than rounding
    states = {name: net.state_dict() for name, net in nets.items()}
    save_snapshot(path, states, {**{name: config.to_json() for name, config in configs.items()}, **more})
    return nets


def images(n=3, channels=3, size=(24, 20)):
    return torch.rand([n, channels, *size], generator=torch.Generator().manual_seed(7)) * 2 - 1


def test_pix2pix_translates_one_way(tmp_path):
    nets = save(tmp_path / "net.safetensors", {"G": TINY})
    translator = load_translator(tmp_path / "net.safetensors")
    assert translator.domains == ("input", "output") and not translator.returns
    torch.testing.assert_close(translator(images()), nets["G"](images()))
    torch.testing.assert_close(translator(images(), "input", "output"), nets["G"](images()))
    with pytest.raises(ValueError, match="source: expected one of input, got 'output'"):
        translator(images(), "output", "input")


def test_cyclegan_translates_both_ways_between_its_named_domains(tmp_path):
    grey = ResnetGeneratorConfig(3, 1, 4, 1)
    nets = save(
        tmp_path / "net.safetensors",
        {"G_A": grey, "G_B": ResnetGeneratorConfig(1, 3, 4, 1)},
        domains=["horse", "zebra"],
    )
    translator = load_translator(tmp_path / "net.safetensors")
    assert translator.domains == ("horse", "zebra") and translator.channels("zebra", "horse") == (1, 3)
    there = translator(images(), "horse")
    torch.testing.assert_close(there, nets["G_A"](images()))
    torch.testing.assert_close(translator(there, "zebra", "horse"), nets["G_B"](there))
    with pytest.raises(ValueError, match="source: expected one of horse, zebra, got None"):
        translator(images())
    with pytest.raises(ValueError, match="expected images .* of zebra"):
        translator(images(), "zebra", "horse")
    save(tmp_path / "bad.safetensors", {"G_A": grey, "G_B": TINY})
    with pytest.raises(SnapshotError, match="expected the same the other way round"):
        load_translator(tmp_path / "bad.safetensors")


def test_combogan_translates_between_all_domains_and_to_the_same(tmp_path):
    G = save(tmp_path / "net.safetensors", {"G": COMBOGAN})["G"]
    translator = load_translator(tmp_path / "net.safetensors")
    assert translator.domains == ("0", "1", "2") and translator.targets("1") == translator.domains
    for a, b in ((0, 2), (2, 0), (1, 1)):
        torch.testing.assert_close(translator(images(), str(a), str(b)), G(images(), a, b))


@pytest.mark.parametrize(
    "domains",
    ["abc", ["a", "b"], ["a", "b", 3], ["a", "b", ""], ["a", "b", "a"], {"a": 1}, [["a"], "b", "c"], None],
    ids=str,
)
def test_domains_that_are_no_names_are_refused(tmp_path, domains):
    save(tmp_path / "net.safetensors", {"G": COMBOGAN}, domains=domains)
    with pytest.raises(SnapshotError, match="domains: expected 3 different names"):
        load_translator(tmp_path / "net.safetensors")


def test_names_of_domains_are_printable_and_short(tmp_path):
    save(tmp_path / "net.safetensors", {"G": COMBOGAN}, domains=["a\x1b[2J", "b" * 5000, "c\nd"])
    names = load_translator(tmp_path / "net.safetensors").domains
    assert names[0] == "a\\x1b[2J" and names[2] == "c\\nd"
    assert all(name.isprintable() and len(name) < 110 for name in names)


@pytest.mark.parametrize(
    "config",
    [
        ResnetGeneratorConfig(channels=4, blocks=2, norm="batch", dropout=True),
        ResnetGeneratorConfig(channels=4, blocks=2, dropout=True),
        UnetGeneratorConfig(channels=4, downs=6),
    ],
    ids=lambda config: f"{config.network} {config.norm}",
)
def test_images_that_go_through_together_do_not_see_each_other(config):
    G = build_network(config)
    init_weights(G, torch.Generator().manual_seed(0))
    translator, img = Pix2PixTranslator(G.eval()), images(3, size=(64, 64))
    img[1] *= 0.1  # so that statistics of all would differ from each one's
    alone = translator(img, seed=[5, 6, 5])
    torch.testing.assert_close(translator(img, seed=[5, 6, 5], batch_size=3), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(translator(img, seed=[5, 6, 5], batch_size=2), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(translator(img[1:2], seed=6), alone[1:2], rtol=1e-4, atol=1e-5)
    assert not torch.equal(translator(img[1:2], seed=5), alone[1:2])
    with pytest.raises(ValueError, match="a seed for each of 3 images, got 2"):
        translator(img, seed=[1, 2])


def test_the_estimate_of_memory_grows_with_the_width_of_the_network():
    def estimate(channels):
        translator = Pix2PixTranslator(build_network(ResnetGeneratorConfig(channels=channels, blocks=1)).eval())
        return bytes_per_pixel(translator, "input", "output")

    # The first convolution's input and output, and its norm's output, are there at once.
    assert estimate(16) > 2 * 16 * 4
    assert 1.6 < estimate(32) / estimate(16) < 2.1


@pytest.mark.parametrize(
    ("model", "configs"),
    [
        ("pix2pix", {"G": ResnetGeneratorConfig()}),
        ("pix2pix", {"G": UnetGeneratorConfig(), "D": PatchDiscriminatorConfig(6)}),
        ("cyclegan", {"G_A": ResnetGeneratorConfig(), "G_B": ResnetGeneratorConfig()}),
        ("combogan", {"G": ComboGANGeneratorConfig()}),
        (None, {"D": PatchDiscriminatorConfig(6)}),
        (None, {}),
    ],
    ids=["resnet", "unet", "cyclegan", "combogan", "D alone", "nothing"],
)
def test_a_model_is_known_by_its_generators(model, configs):
    settings = {name: config.to_json() for name, config in configs.items()}
    assert model_of(Snapshot(Path("x.safetensors"), settings, {})) == model


def test_a_stylegan2_is_no_model_of_translation():
    settings = {"G": {"z_dim": 8, "img_resolution": 16}, "training": {"network": "resnet_generator"}}
    assert model_of(Snapshot(Path("x.safetensors"), settings, {})) is None
