# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr import-weights` on published translators: one generator, and folders of networks that belong together."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot
from ggdr.translation.combogan import ComboGANTask
from ggdr.translation.config import (
    ComboGANConfig,
    ComboGANDiscriminatorConfig,
    CycleGANConfig,
    DecoderConfig,
    EncoderConfig,
    PatchDiscriminatorConfig,
    Pix2PixConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    SharedConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.cyclegan import CycleGANTask
from ggdr.translation.layers import image_statistics
from ggdr.translation.networks import build_network
from ggdr.translation.pix2pix import Pix2PixTask
from ggdr.translation.snapshot import DISCRIMINATORS, GENERATORS, load_translator, network_configs
from tests.conftest import ggdr

RESNET, UNET = ResnetGeneratorConfig(3, 3, 3, 1), UnetGeneratorConfig(3, 3, 2, 5)
PATCH = PatchDiscriminatorConfig(3, 3, 2)
PIX2PIX = {"G": UNET, "D": replace(PATCH, in_channels=6, norm="batch")}
CYCLEGAN = {
    "G_A": ResnetGeneratorConfig(3, 1, 3, 2),
    "G_B": ResnetGeneratorConfig(1, 3, 3, 2),
    "D_A": replace(PATCH, in_channels=1),
    "D_B": PixelDiscriminatorConfig(3, 3),
}
ENCODER, DECODER, SHARED = EncoderConfig(3, 3, 1), DecoderConfig(3, 3, 2), SharedConfig(3, 1, 3)
COMBOGAN = {f"G{i}": config for i, config in enumerate([ENCODER] * 3 + [SHARED] + [DECODER] * 3 + [SHARED])} | {
    f"D{i}": ComboGANDiscriminatorConfig(3, 2) for i in range(3)
}

KINDS = {"G": GENERATORS, "D": DISCRIMINATORS}  # of pix2pix


def publish(folder, configs, epoch="latest", seed=0):
    """Networks with random weights, each in a file as it is published; returns them by name."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    nets = {name: build_network(config).eval() for name, config in configs.items()}
    for name, net in nets.items():
        torch.save(net.state_dict(), folder / f"{epoch}_net_{name}.pth")
    return nets


def image(channels=3, size=(21, 34)):
    return torch.rand([1, channels, *size], generator=torch.Generator().manual_seed(1)) * 2 - 1


def imported(folder, tmp_path, *args):
    ggdr("import-weights", folder, tmp_path / "net.safetensors", *args)
    return tmp_path / "net.safetensors"


# One generator.


@torch.no_grad()
@pytest.mark.parametrize("config", [RESNET, replace(RESNET, norm="batch", dropout=True), UNET], ids=repr)
def test_a_generator_alone_translates_as_it_did(tmp_path, config):
    G = publish(tmp_path / "x", {"G_A": config})["G_A"]
    net = imported(tmp_path / "x" / "latest_net_G_A.pth", tmp_path)
    with image_statistics(G):
        expected = G(image(), torch.tensor([7]))
    assert torch.equal(load_translator(net)(image(), seed=7), expected)
    assert config_from_json(load_snapshot(net).config["G"]) == config
    with pytest.raises(SnapshotError, match="holds G, but no D; to translate takes the generators"):
        network_configs(load_snapshot(net), KINDS)


def test_old_and_wrapped_files_are_read(tmp_path):
    state = {f"module.{name}": value for name, value in build_network(RESNET).state_dict().items()}
    for layer, width in (("module.model.2", 3), ("module.model.10.conv_block.2", 12)):
        state |= {f"{layer}.running_mean": torch.zeros(width), f"{layer}.running_var": torch.ones(width)}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    output = ggdr("import-weights", tmp_path / "old.pth", tmp_path / "net.safetensors")
    assert "state dict of a resnet_generator, SHA-256" in output and "there is no discriminator" in output
    assert "note: G: 4 running statistics of instance norms, which they do not use, are left out" in output
    weights = load_snapshot(tmp_path / "net.safetensors").networks["G"]
    assert weights.keys() == {name.removeprefix("module.") for name in state if "running" not in name}
    assert all(torch.equal(value, state[f"module.{name}"]) for name, value in weights.items())


def test_apply_translates_files_with_an_imported_generator(tmp_path):
    from PIL import Image

    publish(tmp_path / "x", {"G": RESNET})
    net = imported(tmp_path / "x" / "latest_net_G.pth", tmp_path)
    Image.new("RGB", (19, 30), "red").save(tmp_path / "a.png")
    ggdr("translate", "apply", "--network", net, tmp_path / "a.png", "--outdir", tmp_path / "out", "--device", "cpu")
    assert Image.open(tmp_path / "out" / "a.png").size == (19, 30)


# Folders.


@torch.no_grad()
def test_pix2pix_is_read_from_its_folder_and_can_be_trained_further(tmp_path):
    publish(tmp_path / "x", PIX2PIX, epoch=5, seed=1)
    nets = publish(tmp_path / "x", PIX2PIX)
    net = imported(tmp_path / "x", tmp_path)
    snapshot = load_snapshot(net)
    assert network_configs(snapshot, KINDS) == {"G": PIX2PIX["G"], "D": PIX2PIX["D"]}
    task = Pix2PixTask(*(build_network(PIX2PIX[name]) for name in "GD"), Pix2PixConfig(10, 10))
    task.load_networks(snapshot.networks)
    for name, other in nets.items():
        assert all(torch.equal(value, other.state_dict()[k]) for k, value in task.networks[name].state_dict().items())


@torch.no_grad()
def test_cyclegan_is_read_from_its_folder_both_ways(tmp_path):
    nets = publish(tmp_path / "x", CYCLEGAN, epoch=100)
    publish(tmp_path / "x", {"G_A": CYCLEGAN["G_A"]}, epoch=20, seed=1)
    (tmp_path / "x" / "loss_log.txt").write_text("...")
    net = imported(tmp_path / "x", tmp_path, "--domains", "horse,zebra")
    translator = load_translator(net)
    assert translator.domains == ("horse", "zebra")
    assert torch.equal(translator(image(), "horse", "zebra"), nets["G_A"](image()))
    assert torch.equal(translator(image(1), "zebra", "horse"), nets["G_B"](image(1)))
    snapshot = load_snapshot(net)
    assert snapshot.config["domains"] == ["horse", "zebra"]
    configs = {name: config_from_json(snapshot.config[name]) for name in CYCLEGAN}
    assert configs == CYCLEGAN
    task = CycleGANTask(*map(build_network, configs.values()), CycleGANConfig(10, 10, identity_weight=0))
    task.load_networks(snapshot.networks)
    assert torch.equal(task.translate(image(), "A"), nets["G_A"](image()))


@torch.no_grad()
@pytest.mark.parametrize("is_shared", [True, False])
def test_combogan_is_read_from_its_folder_between_all_domains(tmp_path, is_shared):
    configs = COMBOGAN if is_shared else {f"G{i}": c for i, c in enumerate([ENCODER] * 11 + [DECODER] * 11)}
    nets = publish(tmp_path / "x", configs, epoch=400)
    net = imported(tmp_path / "x", tmp_path)
    translator, num = load_translator(net), 3 if is_shared else 11
    assert translator.domains == tuple(map(str, range(num)))
    img = image(size=(24, 32))
    for a, b in ((0, 2), (2, 1), (num - 1, num - 1)):
        code = nets[f"G{a}"](img)
        if is_shared:
            code = nets["G7"](nets["G3"](code, a), b)
        expected = nets[f"G{num + is_shared + b}"](code)
        assert torch.equal(translator(img, str(a), str(b)), expected)
    if is_shared:
        snapshot = load_snapshot(net)
        G, *D = (build_network(config_from_json(snapshot.config[name])) for name in ("G", "D_0", "D_1", "D_2"))
        task = ComboGANTask(G, D, ComboGANConfig(10, 10))
        task.load_networks(snapshot.networks)
        assert all(torch.equal(v, nets["D2"].state_dict()[k]) for k, v in D[2].state_dict().items())


def test_networks_can_be_named_one_by_one(tmp_path):
    publish(tmp_path / "x", CYCLEGAN)
    args = [f"--net={name}={tmp_path / 'x' / f'latest_net_{name}.pth'}" for name in ("G_A", "G_B")]
    output = ggdr("import-weights", *args, tmp_path / "net.safetensors")
    assert "CycleGAN, 2 published files" in output and "there is no discriminator" in output
    snapshot = load_snapshot(tmp_path / "net.safetensors")
    assert set(snapshot.networks) == {"G_A", "G_B"} and snapshot.config["domains"] == ["A", "B"]


def test_the_snapshot_and_the_command_say_where_each_network_came_from(tmp_path):
    publish(tmp_path / "horse2zebra", PIX2PIX)
    output = ggdr("import-weights", tmp_path / "horse2zebra", tmp_path / "net.safetensors")
    sha256 = hashlib.sha256((tmp_path / "horse2zebra" / "latest_net_D.pth").read_bytes()).hexdigest()
    assert f"D: latest_net_D.pth, SHA-256 {sha256}" in output
    assert "network kind parameters channels G unet_generator" in output
    source = load_snapshot(tmp_path / "net.safetensors").config["source"]
    assert source["file"] == "horse2zebra" and source["format"] == "pix2pix, 2 published files"
    assert source["files"]["D"] == {"file": "latest_net_D.pth", "sha256": sha256}


def test_dropout_of_unets_is_as_published_or_as_said(tmp_path):
    def has_dropout(name, *args):
        config = load_snapshot(imported(tmp_path / name, tmp_path, *args)).config
        return [config[key]["dropout"] for key in config if key.startswith("G")]

    publish(tmp_path / "p", {"G": UNET})
    publish(tmp_path / "c", {"G_A": UNET, "G_B": UNET})
    assert has_dropout("p") == [True] and has_dropout("p", "--no-dropout") == [False]
    assert has_dropout("c") == [False, False] and has_dropout("c", "--dropout") == [True, True]
    assert "as published, it is taken to have none" in ggdr(
        "import-weights", tmp_path / "c", tmp_path / "x.safetensors"
    )
    output = ggdr("import-weights", tmp_path / "c", tmp_path / "x.safetensors", "--dropout")
    assert "taken to" not in output


def test_snapshots_are_checked_and_copied(tmp_path):
    publish(tmp_path / "x", CYCLEGAN)
    net = imported(tmp_path / "x", tmp_path)
    ggdr("import-weights", net, tmp_path / "copy.safetensors")
    copy, whole = load_snapshot(tmp_path / "copy.safetensors"), load_snapshot(net)
    assert copy.config["source"]["source"] == whole.config["source"]
    assert copy.config["domains"] == ["A", "B"] and set(copy.networks) == set(CYCLEGAN)
    for name, state in whole.networks.items():
        assert all(torch.equal(copy.networks[name][key], value) for key, value in state.items())


# Refusals.

FIT = {
    "mixed": ({"G": RESNET, "G_A": RESNET}, "networks of several models: G of pix2pix, G_A of CycleGAN"),
    "no G": ({"D": PATCH}, "there is no G beside D"),
    "one way": ({"G_A": RESNET, "D_A": PATCH}, "there is no G_B beside G_A, D_A"),
    "one D": ({"G_A": RESNET, "G_B": RESNET, "D_B": PATCH}, "there is no D_A beside"),
    "unpaired D": ({"G": RESNET, "D": PATCH}, "D takes images of 3 channels, expected 6"),
    "D of others": ({**CYCLEGAN, "D_A": PATCH}, "D_A takes images of 3 channels, expected 1"),
    "other way": ({"G_A": CYCLEGAN["G_A"], "G_B": RESNET}, "expected the same the other way round"),
    "no generator": ({"G": PATCH}, "G is a patch_discriminator, expected a resnet_generator or a unet_generator"),
    "gap": ({"G0": ENCODER, "G1": ENCODER, "G3": DECODER}, "there is no G2 beside G0, G1, G3"),
    "odd": ({"G0": ENCODER, "G1": ENCODER, "G2": DECODER}, "got 2 encoders and 1 decoders"),
    "order": ({f"G{i}": c for i, c in enumerate([DECODER, ENCODER])}, "G1 is a combogan_encoder behind"),
    "sizes": (
        {f"G{i}": c for i, c in enumerate([ENCODER, EncoderConfig(3, 3, 2), DECODER, DECODER])},
        "G0 and G1, two encoders, are built differently",
    ),
    "widths": (
        {f"G{i}": c for i, c in enumerate([ENCODER, ENCODER] + [DecoderConfig(3, 4, 2)] * 2)},
        "G2 does not fit G0",
    ),
    "planes": (
        {f"G{i}": c for i, c in enumerate([ENCODER] * 2 + [SHARED] + [DECODER] * 2)},
        "G2 does not fit G0",
    ),
    "judges": ({**COMBOGAN, "D3": COMBOGAN["D0"]}, "expected a discriminator for each of 3 domains"),
    "judge": ({**COMBOGAN, "D1": PATCH}, "D1 is a patch_discriminator, expected a combogan_discriminator"),
}


@pytest.mark.parametrize(("configs", "message"), FIT.values(), ids=FIT)
def test_networks_that_do_not_belong_together_are_named(tmp_path, configs, message):
    publish(tmp_path / "x", configs)
    output = ggdr("import-weights", tmp_path / "x", tmp_path / "net.safetensors", code=2)
    assert message in output and output.startswith(f"Error: {tmp_path / 'x'}: ") and output.count("Error") == 1
    assert os.listdir(tmp_path) == ["x"]


def spoil(state, change):
    """A state dict with one thing wrong."""
    name = "model.10.conv_block.1.weight"
    return {
        "shape": lambda: {**state, name: state[name][:, :-1]},
        "missing": lambda: {key: value for key, value in state.items() if key != name},
        "more": lambda: {**state, "model.99.weight": torch.zeros(1)},
        "whole numbers": lambda: {**state, name: state[name].int()},
        "statistics": lambda: {f"a.{key}": value for key, value in state.items()},
    }[change]()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", "of another shape: model.10.conv_block.1.weight"),
        ("missing", "missing: model.10.conv_block.1.weight"),
        ("more", "unexpected: model.99.weight"),
        ("whole numbers", "of another type: model.10.conv_block.1.weight"),
        ("statistics", "no network of image translation"),
    ],
)
@pytest.mark.parametrize("place", ["x/latest_net_G.pth", "x"])
def test_bad_weights_are_named_with_their_file(tmp_path, place, change, message):
    net = publish(tmp_path / "x", {"G": RESNET})["G"]
    torch.save(spoil(net.state_dict(), change), tmp_path / "x" / "latest_net_G.pth")
    output = ggdr("import-weights", tmp_path / place, tmp_path / "net.safetensors", code=2)
    assert message in output and "latest_net_G.pth" in output and not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize("place", ["x/latest_net_G.pth", "x"])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, place):
    class Payload:
        def __reduce__(self):
            return os.mkdir, ("the-payload-ran",)

    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    for content in (Payload(), build_network(RESNET)):
        torch.save(content, "x/latest_net_G.pth")
        output = ggdr("import-weights", place, "net.safetensors", code=2)
        assert "mkdir" in output or "ResnetGenerator" in output
    assert os.listdir() == ["x"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["net.safetensors"], "'SRC': expected one, got none"),
        (["x", "x", "net.safetensors"], "'SRC': expected one, got 2: x x"),
        (["x", "net.safetensors", "--net", "G=x/latest_net_G.pth"], "'SRC': expected none beside --net, got 1: x"),
        (["empty", "net.safetensors"], "empty: a folder without networks; expected files such as latest_net_G.pth"),
        (["net.safetensors", "--net", "G"], "expected NAME=FILE, such as G_A=200_net_G_A.pth; got 'G'"),
        (["net.safetensors", "--net", "G=absent"], "absent: no such file"),
        (["net.safetensors", "--net", "G=x"], "x: a folder"),
        (["net.safetensors", "--net", "F=x/latest_net_G.pth"], "no network is called F; expected G and D (pix2pix)"),
        (["net.safetensors"] + ["--net", "G=x/latest_net_G.pth"] * 2, "G is given twice"),
        (["x", "net.safetensors", "--domains", "a,b"], "pix2pix has no names of domains"),
        (["c", "net.safetensors", "--domains", "a,b,c"], "domains: expected 2 different names, got a, b, c"),
        (["c", "net.safetensors", "--domains", "a,a"], "domains: expected 2 different names, got a, a"),
        (["c", "net.safetensors", "--domains", "a,"], "expected names of 1 to 100 characters"),
        (["c", "net.safetensors", "--dropout"], "whether it has dropout, and there is none"),
        (["x/latest_net_D.pth", "net.safetensors"], "a patch_discriminator, which makes no images by itself"),
        (["style.pt", "net.safetensors", "--domains", "a,b"], "domains is for state dicts of image translation"),
    ],
)
def test_options_that_cannot_be_are_named(tmp_path, monkeypatch, args, message):
    from tests.tiny import tiny_generator

    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    publish(Path("x"), PIX2PIX)
    publish(Path("c"), CYCLEGAN)
    torch.save(tiny_generator().state_dict(), "style.pt")
    output = ggdr("import-weights", *args, code=2)
    assert message in output and not Path("net.safetensors").exists()
