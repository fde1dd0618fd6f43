# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr export`: the command, the folders that it makes for a hub, and the code of its page."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from ggdr.scripts.export import main
from ggdr.scripts.exporting.staging import staged_files
from ggdr.stylegan2 import load_discriminator, load_generator
from ggdr.stylegan2.config import GeneratorConfig
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.weights.export_parts import generator_part
from ggdr.torch_utils import export_formats
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.torch_utils.export_formats import TOLERANCE, onnx_runner, save_torch_export
from tests.conftest import ROOT
from tests.export_cases import exported_parts, needs_onnx  # noqa: F401
from tests.repository.test_docs import blocks
from tests.tiny import pixels, save_tiny, tiny_generator


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> Path:
    """A generator and a discriminator, whose settings name private files."""
    path = save_tiny(
        tmp_path_factory.mktemp("run") / "network-snapshot-000001.safetensors", tiny_generator(), guide_res=8
    )
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
    training = stored.config["training"] | {"data": {"path": "/home/secret/faces.zip", "num_images": 70}}
    config = stored.config | {"training": training | {"init_snapshot": "..\\secret\\old.safetensors"}}
    save_snapshot(path, networks, config)
    return path


def run(snapshot: Path, *options: object) -> Result:
    return CliRunner().invoke(main, ["--network", str(snapshot), *map(str, options)])


@needs_onnx
def test_command_writes_onnx_compares_it_and_describes_it(snapshot, tmp_path):
    import onnx

    out = tmp_path / "new" / "mapping.onnx"
    result = run(snapshot, "--out", out, "--part", "mapping", "--trunc", "0.5", "--opset", "21")
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.parent.iterdir()] == ["mapping.onnx"]
    found = re.search(r"batches of 1, 3, 5, by onnxruntime \S+: largest difference (\S+)", result.output)
    assert float(found[1]) < TOLERANCE
    assert "in   z: [N, 6] float32" in result.output and "out  ws: [N, 4, 5] float32" in result.output
    model = onnx.load(out)
    about = {prop.key: prop.value for prop in model.metadata_props}
    assert about["snapshot"] == snapshot.name and about["kimg"] == "1" and about["truncation_psi"] == "0.5"
    assert model.opset_import[0].version == 21
    z = torch.randn(2, 6)
    expected = load_generator(snapshot).mapping(z, None, truncation_psi=0.5)
    assert torch.allclose(onnx_runner(out)({"z": z}), expected, atol=1e-5)


@needs_onnx
def test_file_that_computes_something_else_does_not_appear(snapshot, tmp_path, monkeypatch):
    honest = export_formats.onnx_runner
    monkeypatch.setattr(export_formats, "onnx_runner", lambda path: lambda inputs: honest(path)(inputs) + 1e-3)
    (tmp_path / "net.onnx").write_text("old")
    result = run(snapshot, "--part", "mapping", "--out", tmp_path / "net.onnx")
    assert result.exit_code == 2 and "differs from PyTorch by" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "old"


@needs_onnx
def test_without_onnxruntime_it_says_that_nothing_was_compared(snapshot, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run(snapshot, "--part", "mapping", "--out", tmp_path / "net.onnx")
    assert result.exit_code == 0 and (tmp_path / "net.onnx").exists()
    assert "not compared" in result.output and "pip install onnx" in result.output


def test_without_onnx_it_says_what_to_install(snapshot, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a))
    result = run(snapshot, "--out", tmp_path / "net.onnx")
    assert result.exit_code == 2 and "onnxscript" in result.output and "pip install onnx" in result.output
    assert not list(tmp_path.iterdir())


def test_command_writes_a_program(snapshot, tmp_path):
    result = run(snapshot, "--out", tmp_path / "d.pt2", "--part", "discriminator")
    assert result.exit_code == 0 and "batches of 1, 3, 8, by torch" in result.output
    img = torch.randn(8, 3, 8, 8)
    logits = torch.export.load(tmp_path / "d.pt2").module()(img)
    assert torch.allclose(logits, load_discriminator(snapshot)(img), atol=1e-5)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_state_dict_has_the_published_names_and_loads_into_the_network(snapshot, tmp_path, ending):
    out = tmp_path / f"net{ending}"
    result = run(snapshot, "--out", out)
    assert result.exit_code == 0, result.output
    state = safetensors.torch.load_file(out) if ending == ".safetensors" else torch.load(out, weights_only=True)
    settings = json.loads((tmp_path / "net.json").read_text())
    G = Generator(GeneratorConfig(**settings["settings"]))
    G.load_state_dict(state, strict=True)
    stored = load_snapshot(snapshot).networks["G_ema"]
    assert all(torch.equal(x, stored[name]) for name, x in G.state_dict().items())
    assert {"mapping.w_avg", "synthesis.b4.const", "synthesis.b8.conv0.affine.weight"} <= set(state)
    assert "secret" not in (tmp_path / "net.json").read_text()


def test_state_dict_of_a_part_is_that_parts_own(snapshot, tmp_path):
    assert run(snapshot, "--out", tmp_path / "net.pt", "--part", "discriminator").exit_code == 0
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    assert set(state) == set(load_snapshot(snapshot).networks["D"])
    assert run(snapshot, "--out", tmp_path / "net.pt", "--part", "mapping").exit_code == 0
    tiny_generator().mapping.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True), strict=True)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--out", "net.xyz"], ["--out", ".onnx or .pt2"]),
        (["--out", "net.pt2", "--format", "onnx"], ["--out", "ending in .onnx"]),
        (["--out", "net.onnx", "--format", "hub"], ["--out", "folder"]),
        (["--out", "net.onnx", "--license", "mit"], ["--license", "--format hub"]),
        (["--out", "net.pt2", "--opset", "20"], ["--opset", "--format onnx"]),
        (["--out", "net.pt", "--trunc", "0.5"], ["--trunc", "got state-dict"]),
        (["--out", "net.pt2", "--trunc", "half"], ["--trunc", "a number, or input", "'half'"]),
        (["--out", "net.pt2", "--trunc", "nan"], ["--trunc", "'nan'"]),
        (["--out", "net.pt2", "--trunc", "0.5", "--part", "discriminator"], ["--trunc", "means nothing"]),
        (["--out", "net.pt2", "--noise-mode", "none", "--part", "mapping"], ["--noise-mode", "means nothing"]),
        (["--out", "net.pt2", "--trunc-cutoff", "99"], ["--trunc-cutoff", "got 99"]),
        (["--out", "hub", "--part", "mapping"], ["--part", "got hub"]),
        (["--out", "hub", "--trunc", "input"], ["--trunc", "need a number"]),
        (["--out", "hub", "--repo", "me"], ["--repo", "USER/NAME"]),
        (["--out", "hub", "--license", "Apache 2"], ["--license", "small letters"]),
        (["--out", "hub", "--run", "."], ["--run", "stats.jsonl"]),
        (["--out", "/proc/none/net.pt2"], ["--out", "/proc/none"]),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(snapshot, tmp_path, monkeypatch, options, messages):
    monkeypatch.chdir(tmp_path)
    result = run(snapshot, *options)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    for message in messages:
        assert message in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["model.safetensors", "."])
def test_the_network_itself_is_not_overwritten(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    content = save_tiny(Path("model.safetensors"), tiny_generator(), guide_res=8).read_bytes()
    result = run(Path("model.safetensors"), "--format", "hub" if out == "." else "state-dict", "--out", out)
    assert result.exit_code == 2 and "the network itself" in " ".join(result.output.split())
    assert Path("model.safetensors").read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_snapshot_without_a_discriminator_is_refused_for_one(tmp_path):
    path = save_tiny(tmp_path / "net.safetensors", tiny_generator())
    for options in (["--out", "d.pt2", "--part", "discriminator"], ["--out", "hub", "--with-discriminator"]):
        result = run(path, *options[:1], tmp_path / options[1], *options[2:])
        assert result.exit_code == 2 and "but no D" in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


# Folders for a hub.


@pytest.fixture(scope="module")
def hub(snapshot, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "my-model"
    result = run(snapshot, "--out", folder, "--repo", "me/model", "--seeds", "0-9", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "no licence" in result.output and f"hf upload me/model {folder}" in result.output
    return folder


def test_hub_folder_holds_the_network_and_what_belongs_to_it(hub, snapshot):
    assert sorted(path.name for path in hub.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "samples.png",
    ]
    stored = load_snapshot(hub / "model.safetensors")
    assert list(stored.networks) == ["G_ema"] and "D" not in stored.config
    z = torch.randn(3, 6)
    expected = load_generator(snapshot)(z, noise_mode="const")
    assert torch.equal(load_generator(hub / "model.safetensors")(z, noise_mode="const"), expected)
    settings = json.loads((hub / "config.json").read_text())
    assert settings["G"]["img_resolution"] == 8 and settings["nimg"] == 1000
    assert pixels(hub / "samples.png").shape[2] == 3


def test_hub_folder_holds_no_pickles_and_no_private_paths(hub):
    for path in hub.iterdir():
        content = path.read_bytes()
        assert not zipfile.is_zipfile(path) and not content.startswith(b"\x80"), path
        assert b"secret" not in content and str(hub.parent).encode() not in content, path
    assert b"faces.zip" in (hub / "model.safetensors").read_bytes()


def test_code_in_the_card_runs(hub, tmp_path, monkeypatch):
    asked = []

    def hf_hub_download(repo: str, name: str) -> str:
        asked.append(repo)
        return str(hub / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(hub / "README.md", "python")
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert asked == ["me/model"] and namespace["img"].shape == (16, 3, 8, 8)
    assert pixels(tmp_path / "images.png").shape == (32, 32, 3)


def test_hub_folder_with_the_discriminator_holds_all_networks(snapshot, tmp_path):
    tmp_path = tmp_path / "hub"
    for _ in range(2):  # the second replaces the first
        result = run(snapshot, "--out", tmp_path, "--with-discriminator", "--license", "mit", "--seeds", "3")
        assert result.exit_code == 0 and "no licence" not in result.output
    assert len(list(tmp_path.iterdir())) == 4
    stored, given = load_snapshot(tmp_path / "model.safetensors"), load_snapshot(snapshot)
    assert set(stored.networks) == set(given.networks) and stored.config["D"] == given.config["D"]
    img = torch.randn(4, 3, 8, 8)
    assert torch.equal(load_discriminator(tmp_path / "model.safetensors")(img), load_discriminator(snapshot)(img))


def test_hub_folder_spares_the_readme_of_others_and_names_other_files(snapshot, tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    result = run(snapshot, "--format", "hub", "--out", tmp_path, "--seeds", "3")
    assert result.exit_code == 2 and "is no model card" in " ".join(result.output.split())
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "README.md").unlink()
    result = run(snapshot, "--format", "hub", "--out", tmp_path, "--seeds", "3")
    assert result.exit_code == 0 and "which would be uploaded too: a.jpg, b.jpg" in result.output


# The documentation.


@needs_onnx
def test_python_of_the_page_runs(snapshot, exported, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "generator.onnx").write_bytes(exported("generator")[1].read_bytes())
    save_torch_export(generator_part(tiny_generator()), tmp_path / "generator.pt2")
    assert run(snapshot, "--out", tmp_path / "generator.safetensors").exit_code == 0
    namespace: dict = {}
    for code in blocks(ROOT / "docs" / "export.md", "python"):
        exec(compile(code, "export.md", "exec"), namespace)
    assert namespace["images"].shape == (16, 8, 8, 3) and namespace["images"].dtype == np.uint8
    assert namespace["img"].shape == (16, 3, 8, 8)
    assert isinstance(namespace["G"], Generator)


def test_staged_files_appear_together_or_not_at_all(tmp_path):
    out = tmp_path / "net.pt"
    with staged_files(out) as path:
        path.write_text("weights")
        path.with_suffix(".json").write_text("settings")
        assert not list(tmp_path.glob("net.*"))
    assert (out.read_text(), out.with_suffix(".json").read_text()) == ("weights", "settings")
    with pytest.raises(RuntimeError, match="halfway"), staged_files(out) as path:
        path.write_text("others")
        raise RuntimeError("halfway")
    assert out.read_text() == "weights" and len(list(tmp_path.iterdir())) == 2
