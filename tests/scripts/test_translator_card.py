# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Model cards of translators, and their folders for a hub."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.translation.config import (
    ComboGANGeneratorConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.snapshot import load_translator
from tests.conftest import ggdr
from tests.translator_files import save_translator

PIX2PIX = {"G": UnetGeneratorConfig(1, 3, 2, 5), "D": PatchDiscriminatorConfig(4, 2, 2)}
RESNET, PATCH = ResnetGeneratorConfig(3, 3, 2, 0), PatchDiscriminatorConfig(3, 2, 2)
CYCLEGAN = {"G_A": RESNET, "G_B": RESNET, "D_A": PATCH, "D_B": PATCH}
TRAINING = {
    "host": "pix2pix",
    "cfg": "cpu",
    "data": {"path": "/home/secret/facades", "direction": "BtoA", "num_images": 400, "fingerprint": "feed"},
    "crop": {"size": 32},
    "optim": {"gan_loss": "cross_entropy", "lr": 0.001, "l1_weight": 100.0},
    "regularizers": {"ggdr": {"weight": 10.0, "guide_res": [16]}},
    "loop": {"total_nimg": 4000, "batch": 4},
    "precision": "fp32",
}


@pytest.fixture
def snapshot(tmp_path):
    """A run of pix2pix with its last snapshot but one, and the pictures of both."""
    folder = tmp_path / "facades"
    folder.mkdir()
    path = save_translator(folder / "network-snapshot-000002.safetensors", PIX2PIX, nimg=2000, training=TRAINING)
    lines = [{"nimg": n, "kimg": n / 1000, "time/sec_per_kimg": 2.0, "l1": 0.25} for n in (2000, 4000)]
    (folder / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pictures = [{"name": "translations", "title": "Input, output, target", "once": False}]
    (folder / "training_options.json").write_text(json.dumps({**TRAINING, "command": {}, "pictures": pictures}))
    for i in (2, 4):
        Image.fromarray(np.full([8, 8, 3], i, np.uint8)).save(folder / f"translations00000{i}.png")
    record = {"metric": "fid5k_full", "results": {"fid5k_full": 21.5}, "nimg": 2000, "warnings": []}
    record["choices"] = {"num_fakes": 200, "seed": 0, "fakes": {}, "reals": {"path": "/home/secret/val"}}
    (folder / "metric-fid5k_full.jsonl").write_text(json.dumps(record) + "\n")
    return path


def test_a_card_tells_what_a_translator_is_and_how_it_came_about(snapshot, tmp_path):
    output = ggdr("card", "--network", snapshot, "--license", "mit", "--device", "cpu")
    assert "note" not in output
    folder = snapshot.parent / "card"
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "image-to-image" and {"pix2pix", "ggdr"} <= set(front["tags"])
    (result,) = front["model-index"][0]["results"]
    assert result["task"]["type"] == "image-to-image"
    assert result["metrics"][0] == {
        "type": "fid5k_full",
        "name": "fid5k_full",
        "value": 21.5,
    }
    assert "A pix2pix translator, which turns grey images into colour images, trained with generator-guided" in card
    rows = dict(line.strip("| ").split(" | ", 1) for line in card.splitlines() if re.match(r"\| [^-|]+ \| ", line))
    assert rows["Pairs"] == "400" and rows["Direction"] == "`BtoA`" and rows["Crops"] == "32x32 pixels"
    assert rows["Weight of L1"] == "100" and rows["`G`"].startswith("U-Net generator: in channels 1, out channels 3")
    assert (
        "2,000 (2 kimg of the 4 planned)" in rows["Images shown"] and rows["In the file"] == "discriminator, generator"
    )
    assert "ggdr translate apply --network network-snapshot-000002.safetensors photos" in card
    assert "isola2017pix2pix" in card and "lee2022ggdr" in card and "karras" not in card and "StyleGAN2" not in card
    assert "secret" not in card and "latent" not in card.lower()
    assert np.asarray(Image.open(folder / "samples.png"))[0, 0, 0] == 2
    assert "![Samples](samples.png)\n\nInput, output, target, of the training set" in card


def test_cards_of_several_domains_name_them(tmp_path):
    net = save_translator(tmp_path / "net.safetensors", CYCLEGAN, domains=["a | b", "zebra"])
    output = ggdr("card", "--network", net, "--out", tmp_path / "c.md", "--device", "cpu")
    assert "the card shows no picture" in output
    card = (tmp_path / "c.md").read_text()
    assert "A CycleGAN translator, which translates images between 2 domains: `a \\| b`, `zebra`." in card
    assert 'out = translate(img, "a | b", "zebra")' in card and "--from 'a | b' --to zebra" in card
    assert "GGDR" not in card.split("## How to use it")[0] and "zhu2017cyclegan" in card


def test_the_code_of_a_card_runs(tmp_path, monkeypatch):
    from types import ModuleType

    net = save_translator(tmp_path / "net.safetensors", {"G": ComboGANGeneratorConfig(3, 2, 0, 0, domains=3)})
    ggdr("card", "--network", net, "--out", tmp_path / "c.md", "--device", "cpu")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "c.md").read_text(), flags=re.DOTALL)[1]
    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = lambda repo, name: tmp_path / name
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", hub)
    names = {}
    exec(code, names)
    assert names["out"].shape == (1, 3, 256, 256)


def test_options_of_generators_are_refused(tmp_path):
    net = save_translator(tmp_path / "net.safetensors", CYCLEGAN)
    for option in (["--seeds", "0-3"], ["--trunc", "0.5"]):
        message = ggdr("card", "--network", net, "--out", tmp_path / "c.md", *option, code=2)
        assert f"'{option[0]}': means nothing to a translator" in message
    assert not (tmp_path / "c.md").exists()


@pytest.mark.parametrize("has_all", [True, False])
def test_a_folder_for_a_hub_holds_the_generators_or_all(snapshot, tmp_path, has_all):
    out = tmp_path / "hub"
    args = ["--with-discriminator"] if has_all else []
    output = ggdr("export", "--network", snapshot, "--format", "hub", "--out", out, "--device", "cpu", *args)
    assert "model.safetensors, config.json, samples.png and README.md written" in output
    written = load_snapshot(out / "model.safetensors")
    assert set(written.networks) == ({"G", "D"} if has_all else {"G"}) and ("D" in written.config) == has_all
    assert json.loads((out / "config.json").read_text())["model_type"] == "pix2pix"
    img = torch.rand(1, 1, 32, 32)
    assert torch.equal(load_translator(out / "model.safetensors")(img), load_translator(snapshot)(img))
    assert "secret" not in (out / "config.json").read_text() + (out / "README.md").read_text()


def test_a_folder_without_a_picture_says_which_files_it_has(tmp_path):
    net = save_translator(tmp_path / "net.safetensors", {"G": RESNET})
    args = ["export", "--network", net, "--format", "hub", "--out", tmp_path / "hub", "--device", "cpu"]
    assert "model.safetensors, config.json and README.md written" in ggdr(*args)
    assert "holds G, but no D" in ggdr(*args, "--with-discriminator", code=2)
