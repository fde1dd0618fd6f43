# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr export` of translators: the command, directions and state dicts, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.torch_utils.export_formats import TOLERANCE, onnx_runner
from ggdr.translation.config import (
    ComboGANGeneratorConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.snapshot import load_translator
from tests.conftest import ggdr
from tests.export_cases import needs_onnx
from tests.tiny import save_tiny, tiny_generator
from tests.translator_files import save_translator

CYCLEGAN = {
    "G_A": ResnetGeneratorConfig(3, 1, 3, 0),
    "G_B": ResnetGeneratorConfig(1, 3, 3, 0),
    "D_A": PatchDiscriminatorConfig(1, 3, 2),
}
PIX2PIX = {"G": UnetGeneratorConfig(3, 3, 2, 5)}
COMBOGAN = {"G": ComboGANGeneratorConfig(3, 2, 0, 0, domains=3)}


@pytest.fixture
def cyclegan(tmp_path):
    return save_translator(tmp_path / "net.safetensors", CYCLEGAN, domains=["horse", "zebra"], nimg=2000)


@needs_onnx
def test_the_command_writes_onnx_of_a_direction_compares_and_describes_it(cyclegan, tmp_path):
    import onnx

    output = ggdr("export", "--network", cyclegan, "--to", "horse", "--out", tmp_path / "x.onnx")
    assert "in img: [N, 1, H, W] float32, images of zebra" in output
    assert "out out: [N, 3, H, W] float32, images of horse" in output
    assert "compared with PyTorch for images of 64x128, 131x65 (2 at once), 3x63 (3 at once), by onnxruntime" in output
    assert "dropout" not in output
    about = {prop.key: prop.value for prop in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert about == {
        "network": "CycleGAN",
        "part": "generator",
        "snapshot": "net.safetensors",
        "kimg": "2",
        "from": "zebra",
        "to": "horse",
    }
    img = torch.rand(2, 1, 21, 10)
    expected = load_translator(cyclegan)(img, "zebra", "horse")
    assert torch.allclose(onnx_runner(tmp_path / "x.onnx")({"img": img}), expected, atol=TOLERANCE)


def test_that_dropout_is_off_is_said(tmp_path):
    net = save_translator(tmp_path / "net.safetensors", PIX2PIX)
    output = ggdr("export", "--network", net, "--out", tmp_path / "x.pt2")
    assert "dropout is off in the file, and on in `ggdr translate apply`" in output
    extra = {"metadata.json": ""}
    torch.export.load(tmp_path / "x.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["dropout"] == "off"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--from", "horse"], "G_A"),
        (["--to", "horse"], "G_B"),
        (["--from", "horse", "--part", "discriminator"], "D_A"),
    ],
)
def test_state_dicts_come_back_with_their_settings(cyclegan, tmp_path, options, name):
    ggdr("export", "--network", cyclegan, *options, "--out", tmp_path / "x.safetensors")
    settings = json.loads((tmp_path / "x.json").read_text())
    assert settings["network"] == name and config_from_json(settings["settings"]) == CYCLEGAN[name]
    if name == "D_A":
        return
    ggdr("import-weights", tmp_path / "x.safetensors", tmp_path / "back.safetensors")
    back = load_snapshot(tmp_path / "back.safetensors").networks["G"]
    assert all(torch.equal(back[key], x) for key, x in load_snapshot(cyclegan).networks[name].items())


@pytest.mark.parametrize(
    "configs", [COMBOGAN, {"G": UnetGeneratorConfig(3, 3, 2, 5, dropout=False)}], ids=["combo", "unet"]
)
def test_settings_that_weights_do_not_tell_come_back(tmp_path, configs):
    net = save_translator(tmp_path / "net.safetensors", configs)
    direction = ["--from", "0", "--to", "2"] if configs is COMBOGAN else []
    ggdr("export", "--network", net, *direction, "--out", tmp_path / "x.pt")
    ggdr("import-weights", tmp_path / "x.pt", tmp_path / "back.safetensors")
    back = load_snapshot(tmp_path / "back.safetensors")
    assert config_from_json(back.config["G"]) == configs["G"]
    img = torch.rand(1, 3, 32, 32)
    domains = ("0", "2") if configs is COMBOGAN else ()
    one, other = (load_translator(path)(img, *domains) for path in (net, back.path))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        (CYCLEGAN, ["--out", "x.pt2"], "is a CycleGAN of 2 domains, A, B: say which the images become"),
        (CYCLEGAN, ["--out", "x.pt2", "--to", "C"], "expected one of them, got 'C'"),
        (CYCLEGAN, ["--out", "x.pt2", "--to", "A", "--from", "A"], "expected another domain than --to"),
        (COMBOGAN, ["--out", "x.pt2", "--to", "1"], "is a ComboGAN of 3 domains: say from which"),
        (COMBOGAN, ["--out", "x.pt", "--from", "0", "--to", "1", "--part", "discriminator"], "holds G, but no D_1"),
        (PIX2PIX, ["--out", "x.pt2", "--to", "output"], "is a pix2pix, which translates one way only: leave it out"),
        (PIX2PIX, ["--out", "x.pt2", "--trunc", "0.5"], "means nothing to a translator, which"),
        (
            PIX2PIX,
            ["--out", "x.pt2", "--part", "discriminator"],
            "expected generator, got discriminator",
        ),
        (
            PIX2PIX,
            ["--out", "x.pt", "--part", "mapping"],
            "expected generator or discriminator, got mapping",
        ),
    ],
)
def test_what_a_translator_cannot_is_named(tmp_path, monkeypatch, configs, options, message):
    monkeypatch.chdir(tmp_path)
    save_translator(tmp_path / "net.safetensors", configs)
    assert message in ggdr("export", "--network", "net.safetensors", *options, code=2)
    assert len(list(tmp_path.iterdir())) == 1


def test_domains_mean_nothing_to_stylegan2(tmp_path):
    net = save_tiny(tmp_path / "net.safetensors", tiny_generator())
    output = ggdr("export", "--network", net, "--from", "a", "--out", tmp_path / "x.pt2", code=2)
    assert "'--from': means nothing to a StyleGAN2" in output
