# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr import-weights`: every kind of file, and what all other commands make of the result."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ggdr.decoder import FeatureDecoder
from ggdr.scripts.errors import CliError
from ggdr.scripts.importing import published as published_networks
from ggdr.scripts.importing import read_foreign as foreign_networks
from ggdr.scripts.importing.published import NETWORKS, snapshot_of, weights_file
from ggdr.stylegan2 import load_discriminator, load_generator
from ggdr.torch_utils import downloads
from ggdr.torch_utils.checkpoint import load_snapshot, save_state
from tests.conftest import ROOT, ggdr, write_dataset
from tests.download_server import cache, send, server  # noqa: F401
from tests.published_files import augment_pipe, pickled, small_networks, with_decoder, write_pickle
from tests.rosinality_networks import Generator as TheirGenerator
from tests.tiny import save_tiny, tiny_generator


def published_file(path: Path) -> Path:
    """A pickle of everything that GGDR's have."""
    G, D = small_networks()
    encoder = {"b8": (8, 4, 4), "b16": (8, 8, 8)}
    decoder = FeatureDecoder(encoder, {"guide": (8, 8, 8)})
    content = {"G": pickled(G), "D": with_decoder(D, decoder), "G_ema": pickled(G), "augment_pipe": augment_pipe(0.25)}
    return write_pickle(path, content)


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    ggdr("import-weights", published_file(folder / "ggdr.pkl"), folder / "net.safetensors")
    return folder / "net.safetensors"


def test_the_snapshot_says_where_it_came_from(imported):
    source = imported.with_name("ggdr.pkl")
    snapshot = load_snapshot(imported)
    assert set(snapshot.networks) == {"G", "D", "G_ema", "ggdr"}
    assert snapshot.config["source"] == {
        "file": "ggdr.pkl",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "format": "pickle of GGDR",
        "augment_p": 0.25,
    }
    assert snapshot.config["training"] == {"regularizers": {"ggdr": {"guide_res": [8], "weight": 10.0}}}


def test_the_command_says_what_it_found(tmp_path):
    output = ggdr("import-weights", published_file(tmp_path / "x.pkl"), tmp_path / "x.safetensors")
    for part in ("pickle of GGDR", "SHA-256", "network resolution parameters classes", "G_ema 16x16x3", "ggdr 8x8"):
        assert part in output


@torch.no_grad()
def test_the_snapshot_gives_the_same_images_and_logits(imported):
    G, D = small_networks()
    z = torch.randn(2, 6)
    img = G(z, truncation_psi=0.7, noise_mode="const")
    assert torch.equal(load_generator(imported)(z, truncation_psi=0.7, noise_mode="const"), img)
    assert torch.equal(load_discriminator(imported)(img), D(img))


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "--seeds", "0-3", "--outdir", "OUT"],
        ["truncation", "--seeds", "0-1", "--out", "OUT/x.png"],
        ["clusters", "--outdir", "OUT"],
        ["project", "--outdir", "OUT", "--steps", "2", "--no-video", "IMAGE"],
        ["metrics", "--data", "DATA", "--metrics", "fd_offline1k_full"],
    ],
    ids=lambda command: command[0],
)
def test_other_commands_work_on_it(imported, tmp_path, command):
    (tmp_path / "out").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "image.png")
    write_dataset(tmp_path / "data.zip", num=12)
    places = {"OUT": tmp_path / "out", "IMAGE": tmp_path / "image.png", "DATA": tmp_path / "data.zip"}
    args = [str(places[arg]) if arg in places else arg.replace("OUT", str(places["OUT"])) for arg in command]
    ggdr(args[0], "--network", imported, *args[1:], "--device", "cpu")
    assert command[0] == "metrics" or list((tmp_path / "out").iterdir())


def test_its_decoder_predicts(imported):
    from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks

    networks = SnapshotNetworks(imported, torch.device("cpu"))
    assert networks.guides("ggdr") == [8]
    seen = networks.of_seeds([0, 1], [8], label=None, psi=1.0, batch_size=2)
    assert seen.predicted[8].shape == seen.generator[8].shape == (2, 8, 8, 8)


# Other kinds of files.


def test_snapshots_are_checked_and_copied(imported, tmp_path):
    output = ggdr("import-weights", imported, tmp_path / "copy.safetensors")
    assert re.search(r" G_ema 16x16x3 .* G 16x16x3 .* D 16x16x3 .* ggdr 8x8 ", output)
    copy, whole = load_snapshot(tmp_path / "copy.safetensors"), load_snapshot(imported)
    assert copy.config["source"]["format"] == "snapshot"
    assert copy.config["source"]["source"] == whole.config["source"]
    assert {k: v for k, v in copy.config.items() if k != "source"} == {
        k: v for k, v in whole.config.items() if k != "source"
    }
    for name, state in whole.networks.items():
        assert all(torch.equal(copy.networks[name][key], value) for key, value in state.items())


def test_checkpoints_of_rosinality_are_read(tmp_path):
    torch.save({"g_ema": TheirGenerator({4: 8, 8: 8}).state_dict()}, tmp_path / "x.pt")
    output = ggdr("import-weights", tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert "rosinality" in output and "no latent_avg" in output and "cannot be trained further" in output
    assert load_generator(tmp_path / "x.safetensors").img_resolution == 8


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_exported_state_dicts_come_back_with_their_settings(imported, tmp_path, part, ending):
    exported = tmp_path / f"exported{ending}"
    ggdr("export", "--network", imported, "--part", part, "--format", "state-dict", "--out", exported)
    ggdr("import-weights", exported, tmp_path / "back.safetensors")
    back, whole = load_snapshot(tmp_path / "back.safetensors"), load_snapshot(imported)
    net, config = ("G_ema", "G") if part == "generator" else ("D", "D")
    assert back.config[config] == whole.config[config]
    assert set(back.networks) == {net}
    assert all(torch.equal(back.networks[net][key], value) for key, value in whole.networks[net].items())


def test_state_dicts_without_settings_get_the_usual_ones(tmp_path):
    G = tiny_generator()
    torch.save(G.state_dict(), tmp_path / "x.pt")
    assert "usual ones" in ggdr("import-weights", tmp_path / "x.pt", tmp_path / "x.safetensors")
    z = torch.randn(2, G.z_dim)
    with torch.no_grad():
        expected = G(z, noise_mode="const")
        assert torch.equal(load_generator(tmp_path / "x.safetensors")(z, noise_mode="const"), expected)


def test_checkpoints_of_state_dicts_are_read_whatever_wrapped_the_networks(imported, tmp_path):
    networks = load_snapshot(imported).networks
    wrapped = {f"module._orig_mod.{name}": t for name, t in networks["D"].items()}
    torch.save({"G": networks["G_ema"], "D": wrapped, "step": 5, "opt": {"state": {}}}, tmp_path / "x.pt")
    output = ggdr("import-weights", tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert "there is no G_ema; G is used in its place" in output and "usual ones" in output
    found = load_snapshot(tmp_path / "x.safetensors").networks
    assert set(found) == {"G_ema", "D"}
    assert all(torch.equal(found[net][name], t) for net in found for name, t in networks[net].items())


def test_checkpoints_of_networks_that_do_not_fit_are_refused(imported, tmp_path):
    torch.save({"G_ema": tiny_generator().state_dict(), "D": load_snapshot(imported).networks["D"]}, tmp_path / "x.pt")
    assert "G and D differ in" in ggdr("import-weights", tmp_path / "x.pt", tmp_path / "x.safetensors", code=2)
    assert not (tmp_path / "x.safetensors").exists()


# Refusals.


@pytest.mark.parametrize(
    ("source", "dest", "message"),
    [
        ("afhqcta", "x.safetensors", "cifar10, brecahad; did you mean 'afhqcat'?"),
        ("absent.pkl", "x.safetensors", "no such file; expected a file, or one of ffhq256"),
        (".", "x.safetensors", "a folder"),
        ("text.pkl", "x.safetensors", "text.pkl: not a pickle of StyleGAN2 networks"),
        ("empty.pkl", "x.safetensors", "empty.pkl: not a pickle of StyleGAN2 networks: the file is empty"),
        ("zip.pt", "x.safetensors", "zip.pt: not a readable file of tensors"),
        ("tensors.pt", "x.safetensors", "neither a checkpoint of stylegan2-pytorch"),
        ("state.pt", "x.safetensors", "a training state; the networks of its run are in network-snapshot"),
        ("half.safetensors", "x.safetensors", "half.safetensors: a damaged safetensors file"),
        ("other.safetensors", "x.safetensors", "neither a snapshot nor a state dict"),
        ("text.pkl", "x.pt", "expected a name that ends in .safetensors, got x.pt"),
        ("net.safetensors", "text.pkl/x.safetensors", "DEST"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(tmp_path, monkeypatch, source, dest, message):
    import safetensors.torch

    monkeypatch.chdir(tmp_path)
    Path("text.pkl").write_text("<html>not found</html>")
    Path("empty.pkl").touch()
    Path("zip.pt").write_bytes(b"PK\3\4" + bytes(50))
    torch.save({"a": torch.ones(2)}, "tensors.pt")
    save_state("state.pt", {"a": torch.ones(2)})
    save_tiny(Path("net.safetensors"), tiny_generator())
    Path("half.safetensors").write_bytes(Path("net.safetensors").read_bytes()[:3000])
    Path("other.safetensors").write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert message in ggdr("import-weights", source, dest, code=2)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_no_control_characters_of_a_file_reach_the_terminal(imported, tmp_path):
    header = b'{"a": {"dtype": "\xc2\x9b2J", "shape": [1], "data_offsets": [0, 4]}}'
    (tmp_path / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert "\x9b" not in ggdr("import-weights", tmp_path / "odd.safetensors", tmp_path / "x.safetensors", code=2)
    ggdr("export", "--network", imported, "--out", tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text(json.dumps({"settings": {"\x9b2J": 1}}))
    assert "\x9b" not in ggdr("import-weights", tmp_path / "net.safetensors", tmp_path / "x.safetensors", code=2)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    source = published_file(tmp_path / "x.pkl")
    (tmp_path / "x.safetensors").write_bytes(b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ggdr.torch_utils.atomic_write.os.fsync", full)
    assert "No space left on device" in ggdr("import-weights", source, tmp_path / "x.safetensors", code=2)
    assert (tmp_path / "x.safetensors").read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    import pickle

    class Payload:
        def __reduce__(self):
            return os.mkdir, ("the-payload-ran",)

    monkeypatch.chdir(tmp_path)
    for name, write in (("x.pkl", pickle.dump), ("x.pt", torch.save)):
        with open(name, "wb") as file:
            write({"G_ema": Payload()}, file)
        assert "mkdir" in ggdr("import-weights", name, "x.safetensors", code=2)
    assert sorted(os.listdir()) == ["x.pkl", "x.pt"]


# Published networks.


@pytest.fixture
def published(server, cache, monkeypatch, tmp_path):  # noqa: F811
    """A server that has ffhq256, in small."""
    server.answers = [send((content := published_file(tmp_path / "served.pkl").read_bytes()), length=len(content))]
    monkeypatch.setattr(published_networks, "ADDRESS", server.url.rpartition("/")[0])
    return server


def test_a_published_network_is_downloaded_imported_and_said_where_from(published, tmp_path):
    output = ggdr("import-weights", "ffhq256", tmp_path / "x.safetensors")
    assert "NVIDIA Source Code License" in output and "non-commercial" in output
    source = load_snapshot(tmp_path / "x.safetensors").config["source"]
    assert source["url"].endswith("transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl")
    assert published.requests == ["/transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl"]
    for again in ("ffhq256", source["url"]):
        ggdr("import-weights", again, tmp_path / "y.safetensors")
    assert len(published.requests) == 1
    output = ggdr("import-weights", source["url"] + "x", tmp_path / "z.safetensors", code=2)
    assert "not the address of a published network; download it first" in " ".join(output.split())


def test_its_snapshot_is_kept_in_the_cache(published, cache, monkeypatch):  # noqa: F811
    first = snapshot_of("ffhq256")
    assert first.parent == cache and first.name.startswith("ffhq-res256-mirror-paper256-noaug-")
    written = first.stat().st_mtime_ns
    assert snapshot_of("ffhq256", download=False) == first and first.stat().st_mtime_ns == written
    assert load_generator(first).img_resolution == 16


def test_a_published_file_is_hashed_once(published, cache, tmp_path, monkeypatch):  # noqa: F811
    hashed, sha256_of = [], downloads.sha256_of
    for module in (downloads, foreign_networks):
        monkeypatch.setattr(module, "sha256_of", lambda path: hashed.append(path.suffix) or sha256_of(path))
    first = snapshot_of("ffhq256")
    assert hashed == []  # while it comes
    first.unlink()
    assert snapshot_of("ffhq256") == first and hashed == [".pkl"]  # also where it is imported
    assert snapshot_of("ffhq256") == first and hashed == [".pkl"] * 2
    ggdr("import-weights", "ffhq256", tmp_path / "x.safetensors")
    assert hashed == [".pkl"] * 3
    (source,) = cache.glob("*.pkl")
    source.write_bytes(source.read_bytes() + b"x")
    with pytest.raises(CliError, match="another file than the one that was used first"):
        snapshot_of("ffhq256")


def test_a_file_of_its_name_comes_first(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published_file(Path("ffhq256"))
    ggdr("import-weights", "ffhq256", "x.safetensors")
    assert published.requests == []
    assert "url" not in load_snapshot(Path("x.safetensors")).config["source"]


def test_offline_the_message_says_what_to_fetch_and_where_to_put_it(published, cache, tmp_path):  # noqa: F811
    output = ggdr("import-weights", "ffhq256", tmp_path / "x.safetensors", "--offline", code=2)
    name = "ffhq-res256-mirror-paper256-noaug.pkl"
    for part in (f"/transfer-learning-source-nets/{name}", str(cache / name), "ggdr import-weights FILE.pkl"):
        assert part in output
    assert published.requests == []


def test_a_login_page_in_place_of_the_network_is_refused(published, tmp_path):
    published.answers = [send(b"<html>sign in</html>", length=None)]
    assert "not a pickle" in ggdr("import-weights", "ffhq256", tmp_path / "x.safetensors", code=2)


def test_published_networks_are_described_in_full():
    assert len(NETWORKS) == 12
    for name in NETWORKS:
        file = weights_file(name)
        assert file.urls[0].startswith("https://nvlabs-fi-cdn.nvidia.com/") and file.urls[0].endswith(file.name)
        assert file.sha256 is None or len(file.sha256) == 64 and file.size > 0
        assert "NVIDIA" in file.licence and name in file.what


def test_help_names_the_published_networks_and_needs_no_torch():
    code = (
        "import sys; from click.testing import CliRunner; from ggdr.scripts.cli import main; "
        "print(CliRunner().invoke(main, ['import-weights', '--help']).output); assert 'torch' not in sys.modules"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(name in output for name in NETWORKS)
    assert json.dumps("ggdr import-weights ffhq256 ffhq256.safetensors")[1:-1] in output
