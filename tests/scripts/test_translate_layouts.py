# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Models of label maps as users of `ggdr translate` run them: training, resuming, results, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.scripts.training.host_layout import OASIS
from ggdr.scripts.training.hosts import translator_host
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.data.label_maps import classes_from_json
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.runlog import read_stats
from ggdr.translation.layout_config import OASISConfig
from ggdr.translation.presets import PRESETS
from ggdr.translation.snapshot import load_translator
from tests.scripts.test_train import assert_same_weights
from tests.scripts.test_translate_labels import CLASSES, SIZE, command, make_maps, run_ggdr, translate

MODELS = {"oasis": "OASIS", "cc-fpse": "CC-FPSE"}
TINY = ["--cfg", "cpu", "--channels", 4, "--device", "cpu", "--batch", 4, "--tick", 0.008, "--snap", 2]
LAST = "network-snapshot-000000.032.safetensors"


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return make_maps(tmp_path_factory.mktemp("data") / "maps")


@pytest.fixture(scope="module", params=MODELS)
def whole(request, tmp_path_factory, maps):
    """A run of 8 iterations in four ticks, of each model."""
    run = tmp_path_factory.mktemp("runs") / request.param
    translate("--model", request.param, "--data", maps, "--outdir", run, *TINY, "--kimg", 0.032)
    return run


@pytest.fixture
def values(tmp_path):
    """A label map that no network can halve, and its values."""
    values = np.full((21, 45), 3, np.uint8)
    values[:9, :7], values[12:, 20:] = 9, 255
    Image.fromarray(values).save(tmp_path / "map.png")
    return values


def planes(values):
    return torch.from_numpy(np.stack([values == value for value in CLASSES.values]).astype(np.float32))[None]


def test_a_run_has_its_settings_snapshots_pictures_and_values(whole):
    options = json.loads((whole / "training_options.json").read_text())
    assert options["host"] == whole.name and options["G"]["in_channels"] == 3
    assert classes_from_json(options["labels"]) == CLASSES
    snapshot = load_snapshot(whole / LAST)
    assert set(snapshot.networks) == {"G", "D", "G_ema", "ggdr"} and set(snapshot.config) >= {"G", "D", "labels"}
    assert classes_from_json(snapshot.config["labels"]) == CLASSES
    reported = {name for line in read_stats(whole) for name in line}
    assert {"loss/D", "loss/G", "ggdr/distance", "metric/kd_offline0.008k_full_mean"} <= reported
    assert (whole / "translations000000.032.png").is_file() and (whole / "network-best.safetensors").is_file()
    assert translator_host(snapshot).name == whole.name


def test_first_weights_are_as_large_as_the_preset_says(whole):
    """The preset for a CPU has larger ones than the published one."""
    options = json.loads((whole / "training_options.json").read_text())
    p = PRESETS[whole.name]
    assert p["paper"].optim == {} and p["cpu"].optim.items() <= options["optim"].items()
    settings = SimpleNamespace(optim=OASISConfig(0, 0, G_gain=0.5, D_gain=3.0))
    for name, gain in (("G", 0.5), ("D", 3.0)):
        net = torch.nn.Conv2d(64, 64, 3)
        OASIS.init_network(name, net, settings, torch.Generator().manual_seed(0))
        assert abs(net.weight.std() * (9 * 64) ** 0.5 / gain - 1) < 0.05


def test_resuming_is_bit_for_bit_what_an_uninterrupted_run_gives(whole, maps, tmp_path, monkeypatch):
    from ggdr.torch_utils import loop

    run, iteration = tmp_path / "run", loop.PhaseRunner.iteration

    def stopped(self, batch, at):
        if at.step == 2:  # in the middle of a tick
            os.kill(os.getpid(), signal.SIGTERM)
        return iteration(self, batch, at)

    with monkeypatch.context() as patch:
        patch.setattr(loop.PhaseRunner, "iteration", stopped)
        args = ["--model", whole.name, "--data", maps, "--outdir", run, *TINY, "--kimg", 0.032]
        assert "stopped by SIGTERM at 0.012 kimg" in translate(*args, code=130)
    translate("--outdir", run, "--resume", "latest")
    assert_same_weights(run, whole)


def test_a_run_starts_from_the_weights_of_a_snapshot(whole, maps, tmp_path):
    args = ["--data", maps, *TINY[:2], *TINY[4:], "--resume", whole / LAST, "--metrics", "none", "--no-ggdr"]
    translate(*args, "--outdir", tmp_path / "run", "--kimg", 0.004, "--lr", 1e-12)
    new = load_snapshot(tmp_path / "run" / "network-snapshot-000000.004.safetensors").networks
    old = load_snapshot(whole / LAST).networks
    # Power iterations go on.
    names = [(net, key) for net in ("G", "D") for key in old[net] if not key.endswith(".u")]
    assert names and all(torch.allclose(new[net][key], old[net][key], atol=1e-7) for net, key in names)
    key = "last.1.weight"
    assert not torch.allclose(old["G"][key], old["G_ema"][key], atol=1e-7)
    message = translate(*args, "--outdir", tmp_path / "other", "--channels", 8, code=2)
    assert "'--channels': the networks are those of" in message


def test_results_are_those_of_the_moving_average(whole, values, tmp_path):
    command("apply", "--network", whole / LAST, "--outdir", tmp_path / "out", tmp_path / "map.png", "--seed", 3)
    translator = load_translator(whole / LAST)
    expected = to_u8(translator(planes(values), seed=3))[0].permute(1, 2, 0).numpy()
    assert (np.asarray(Image.open(tmp_path / "out" / "map.png")) == expected).all() and expected.shape == (21, 45, 3)
    stored = load_snapshot(whole / LAST).networks
    name = next(key for key, x in stored["G"].items() if x.ndim == 4 and not torch.equal(x, stored["G_ema"][key]))
    assert torch.equal(translator.G.state_dict()[name], stored["G_ema"][name])
    assert translator.model == MODELS[whole.name] and translator.labels == CLASSES


def test_several_seeds_give_several_files(whole, values, tmp_path):
    args = ["apply", "--network", whole / LAST, "--outdir", tmp_path / "out", tmp_path / "map.png"]
    assert "3 images written" in command(*args, "--seeds", "0-1,7,0")
    made = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").iterdir()}
    assert sorted(made) == ["map-seed0.png", "map-seed1.png", "map-seed7.png"]
    expected = to_u8(load_translator(whole / LAST)(planes(values), seed=7))[0].permute(1, 2, 0).numpy()
    assert (made["map-seed7.png"] == expected).all()
    assert "'--seeds': and --seed both say what is random" in command(*args, "--seeds", "0-1", "--seed", 2, code=2)


def test_noise_may_be_of_classes_or_pixels(whole, values, tmp_path):
    translator, made = load_translator(whole / LAST), {}
    for noise in ("image", "class", "pixel"):
        out = tmp_path / noise
        command("apply", "--network", whole / LAST, "--outdir", out, tmp_path / "map.png", "--noise", noise)
        translator.noise = noise
        made[noise] = np.asarray(Image.open(out / "map.png"))
        assert (made[noise] == to_u8(translator(planes(values)))[0].permute(1, 2, 0).numpy()).all()
    args = ["apply", "--network", whole / LAST, "--outdir", tmp_path / "out", tmp_path / "map.png"]
    message = command(*args, "--noise", "pixel", "--tile", 16, code=2)
    assert "'--noise': noise of each pixel does not go on from tile to tile" in message
    if whole.name == "cc-fpse":  # whose noise is of each pixel where nothing is given
        message = command(*args, "--tile", 32, code=2)
        assert "'--tile': the noise of a CC-FPSE is of each pixel unless told otherwise" in message
        assert "give --noise image with it" in message
    command(*args, "--tile", 32, "--noise", "image")


def test_a_sheet_shows_label_maps_in_the_colours_of_their_classes(whole, values, tmp_path):
    command("sheet", "--network", whole, tmp_path / "map.png", "--out", tmp_path / "sheet.png")
    shown = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    assert (shown == (200, 0, 0)).all(axis=1).sum() >= (values == 3).sum()


def test_metrics_measure_results_of_held_out_label_maps(whole, maps):
    printed = run_ggdr("metrics", "--network", whole / LAST, "--data", maps, "--metrics", "mae", "--json")
    found = json.loads(printed.splitlines()[-1])
    assert 0 < found["results"]["mae"] < 2


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--classes", 5], "labels/0.png: has a pixel of the value 9; expected 0 to 4, a class, or 255 to ignore"),
        (["--direction", "BtoA"], "'--direction': the target, labels/0.png, is a label map with the number of a class"),
        (["--crop", 35], "'--crop': the networks take multiples of"),
        (["--crop", 40, "--d-layers", 4], "4 layers takes multiples of 16 pixels, and the crop has 40"),
        (["--generator", "unet"], "'--generator': has no meaning for {}"),
        (["--l1-weight", 3], "'--l1-weight': has no meaning for {}; in pix2pix it"),
        (["--gan-loss", "least_squares"], "'--gan-loss': has no meaning for {}"),
        (["--ggdr-res", 24], "24 is not among the feature maps 8, 16, 32"),
    ],
    ids=lambda x: x[0][2:] if isinstance(x, list) else "",
)
def test_bad_input_is_a_message_and_writes_nothing(model, args, message, maps, tmp_path):
    run = tmp_path / "run"
    args = ["--model", model, "--data", maps, "--outdir", run, *TINY, "--kimg", 0.004, *args]
    assert message.format(model) in translate(*args, code=2)
    assert not run.exists()


@pytest.mark.parametrize("model", MODELS)
def test_images_without_label_maps_are_refused(model, maps, tmp_path):
    for side in "AB":
        shutil.copytree(maps / "images", tmp_path / "images" / f"train{side}")
    args = ["--model", model, "--data", tmp_path / "images", "--outdir", tmp_path / "run", *TINY]
    assert f"{model} makes images of label maps, and the input, trainA/0.png, is none" in translate(*args, code=2)


def test_damaged_snapshots_are_refused(whole, tmp_path):
    stored, path = load_snapshot(whole / LAST), tmp_path / "changed.safetensors"
    without = {name: value for name, value in stored.config.items() if name != "labels"}
    save_snapshot(path, stored.networks, without)
    with pytest.raises(SnapshotError, match="does not say which classes its label maps have"):
        load_translator(path)
    networks = {name: net for name, net in stored.networks.items() if name != "G_ema"}
    save_snapshot(path, networks, stored.config)
    with pytest.raises(SnapshotError, match="but no G_ema"):
        load_translator(path)


def test_a_card_names_the_model_and_what_it_takes(whole, tmp_path):
    run_ggdr("card", "--network", whole / LAST, "--out", tmp_path / "card.md", "--no-samples")
    text = (tmp_path / "card.md").read_text()
    assert MODELS[whole.name] in text and "label maps of 3 classes" in text


def test_weights_of_the_moving_average_are_exported_and_no_function_is(whole, tmp_path):
    run_ggdr("export", "--network", whole / LAST, "--out", tmp_path / "x.safetensors")
    assert json.loads((tmp_path / "x.json").read_text())["network"] == "G_ema"
    message = " ".join(run_ggdr("export", "--network", whole / LAST, "--out", tmp_path / "x.pt2", code=2).split())
    assert f"is of {MODELS[whole.name]}: expected a file of weights alone" in message


def test_networks_without_anything_random_have_no_seeds(whole, maps, tmp_path):
    run = tmp_path / "pix2pix"
    translate("--data", maps, "--outdir", run, *TINY, "--kimg", 0.004, "--no-dropout", "--metrics", "none")
    args = ["apply", "--network", run, maps / "labels" / "0.png", "--outdir", tmp_path / "out"]
    assert "has neither dropout nor noise: all seeds give the same" in command(*args, "--seeds", "0-1", code=2)
    assert "pix2pix, which has no noise of this kind" in command(*args, "--noise", "class", code=2)
    assert Image.open(maps / "images" / "0.png").size == (SIZE, SIZE)
