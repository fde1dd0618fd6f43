# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate apply`: sizes, names, transparency and grey, and what is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.translation.config import PatchDiscriminatorConfig, UnetGeneratorConfig
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import load_translator


def translate(*args, code=0):
    """Runs `ggdr translate apply` in this process; returns what it printed, without line ends."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["translate", "apply", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def save_networks(path, channels=3):
    """A snapshot of tiny networks as a run saves it."""
    configs = {"G": UnetGeneratorConfig(channels, 3, 4, 6), "D": PatchDiscriminatorConfig(channels + 3, 4, 2)}
    nets = {name: build_network(config) for name, config in configs.items()}
    for net in nets.values():
        init_weights(net, torch.Generator().manual_seed(0))
    states = {name: net.state_dict() for name, net in nets.items()}
    save_snapshot(path, states, {name: config.to_json() for name, config in configs.items()})
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_networks(tmp_path_factory.mktemp("network") / "net.safetensors")


def image(mode="RGB", size=(70, 40)):
    noise = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(noise).convert(mode)


def test_translations_have_the_sizes_and_names_of_their_images(network, tmp_path):
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    image(size=(33, 64)).save(folder / "below" / "a.b.jpg")
    image().save(folder / "c.png")
    image(size=(20, 21)).save(tmp_path / "alone.webp", lossless=True)
    out = tmp_path / "out"
    assert "3 images written" in translate(folder, tmp_path / "alone.webp", "--network", network, "--outdir", out)
    sizes = {str(p.relative_to(out)): Image.open(p).size for p in out.rglob("*.png")}
    assert sizes == {"below/a.b.png": (33, 64), "c.png": (70, 40), "alone.png": (20, 21)}
    x = from_u8(torch.from_numpy(np.asarray(Image.open(folder / "c.png")).copy()).permute(2, 0, 1)[None])
    expected = to_u8(load_translator(network)(x))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(out / "c.png")), expected)
    # One image's result depends on no other, and on the seed of the noise.
    translate(folder / "c.png", "--network", network, "--outdir", tmp_path / "two")
    assert (tmp_path / "two" / "c.png").read_bytes() == (out / "c.png").read_bytes()
    translate(folder / "c.png", "--network", network, "--outdir", tmp_path / "two", "--seed", 1)
    assert (tmp_path / "two" / "c.png").read_bytes() != (out / "c.png").read_bytes()


def test_transparency_is_kept_and_grey_is_colour(network, tmp_path):
    clear = image("RGBA")
    clear.save(tmp_path / "clear.png")
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    white.save(tmp_path / "white.png")
    image("L").save(tmp_path / "grey.png")
    image("L").convert("RGB").save(tmp_path / "grey_rgb.png")
    files = [tmp_path / f"{name}.png" for name in ("clear", "white", "grey", "grey_rgb")]
    translate(*files, "--network", network, "--outdir", tmp_path / "out")
    made = {path.stem: np.asarray(Image.open(tmp_path / "out" / path.name)) for path in files}
    assert np.array_equal(made["clear"][:, :, 3], np.asarray(clear)[:, :, 3])
    assert np.array_equal(made["clear"][:, :, :3], made["white"]) and np.array_equal(made["grey"], made["grey_rgb"])
    translate(files[0], "--network", network, "--outdir", tmp_path / "jpg", "--format", "jpg")
    assert Image.open(tmp_path / "jpg" / "clear.jpg").mode == "RGB"
    grey = save_networks(tmp_path / "grey.safetensors", channels=1)
    translate(tmp_path / "grey_rgb.png", "--network", grey, "--outdir", tmp_path / "from_grey")
    assert Image.open(tmp_path / "from_grey" / "grey_rgb.png").mode == "RGB"


def test_what_cannot_be_written_is_refused_before_anything_is(network, tmp_path):
    image().save(tmp_path / "a.png")
    image().save(tmp_path / "a.jpg")
    before = (tmp_path / "a.png").read_bytes()
    args, out = ["--network", network, "--outdir"], tmp_path / "out"
    message = translate(tmp_path / "a.png", tmp_path / "a.jpg", *args, out, code=2)
    assert "a.jpg: its translation would be" in message and "as that of" in message and not out.exists()
    message = translate(tmp_path / "a.png", *args, tmp_path, code=2)
    assert "would replace" in message and (tmp_path / "a.png").read_bytes() == before
    (tmp_path / "text.png").write_text("no image")
    assert "text.png: cannot be decoded" in translate(tmp_path / "text.png", *args, out, code=2)
    (tmp_path / "empty").mkdir()
    assert "empty" in translate(tmp_path / "empty", *args, out, code=2)
    data = io.BytesIO()
    image().save(data, "PNG")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(f"{tmp_path}/stolen.png", data.getvalue())
    translate(tmp_path / "evil.zip", *args, out, code=2)
    assert not (tmp_path / "stolen.png").exists()


def test_a_snapshot_that_is_none_is_named(network, tmp_path):
    image().save(tmp_path / "a.png")
    args = [tmp_path / "a.png", "--outdir", tmp_path / "out", "--network"]
    bad = tmp_path / "bad.safetensors"
    snapshot = load_snapshot(network)

    def changed(networks, **config):
        save_snapshot(bad, networks, {**snapshot.config, **config})
        return translate(*args, bad, code=2)

    assert "settings of G describe no network of image translation" in changed(snapshot.networks, G={"z_dim": 3})
    assert "G is a patch_discriminator, expected a resnet_generator or" in changed(
        snapshot.networks, G=snapshot.config["D"]
    )
    assert "holds D, but no G" in changed({"D": snapshot.networks["D"]})
    G = dict(snapshot.networks["G"])
    assert "weights of G do not fit" in changed({"G": {**G, "model.model.0.weight": torch.zeros(1)}})
    name = next(name for name in G if name.endswith("num_batches_tracked"))
    assert "counts of batches" in changed({"G": {**G, name: torch.zeros([])}})
    with pytest.raises(SnapshotError, match="no such file"):
        load_translator(tmp_path / "nowhere.safetensors")
