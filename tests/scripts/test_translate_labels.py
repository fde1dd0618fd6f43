# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate train` on label maps: classes found, known and typed; resuming, pictures, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.options.label_maps import parse_ignored
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.data.label_maps import LabelClasses, classes_from_json, numbered_classes
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.runlog import read_stats
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.measured import MeasuredPairs
from ggdr.translation.label_maps import one_hot
from ggdr.translation.snapshot import load_translator
from tests.scripts.test_train import assert_same_weights
from tests.scripts.test_translate import make_pairs
from tests.torch_utils.data.conftest import png, write
from tests.translation.data.test_labels import COLORS, indexed
from tests.translation.pictures import samples_of

TINY = ["--cfg", "cpu", "--channels", 4, "--device", "cpu", "--batch", 4, "--tick", 0.008, "--snap", 2]
SIZE, NUM = 32, 8
CLASSES = LabelClasses((0, 3, 9), colors=("#0a141e", "#c80000", "#00c800"))


def translate(*args, code=0):
    """Runs `ggdr translate train` in this process; returns what it printed, without line ends."""
    return command("train", *args, code=code)


def command(*args, code=0):
    return " ".join(run_ggdr("translate", *args, code=code).split())


def run_ggdr(*args, code=0):
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, [*map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def dry_run(*args):
    output = translate(*args, *TINY, "--dry-run")
    return json.loads(output[output.index("{") : output.rindex("}") + 1]), output


def make_maps(path, folder="labels", values=(0, 3, 9, 255), num=NUM):
    """Label maps of blocks, and images that are bright where the values are high."""
    rng, files = np.random.default_rng(0), {}
    for i in range(num):
        blocks = np.kron(rng.choice(np.array(values, np.uint8), (4, 4)), np.ones((SIZE // 4, SIZE // 4), np.uint8))
        files[f"{folder}/{i}.png"] = indexed(blocks)
        files[f"images/{i}.png"] = png(np.stack([20 * np.minimum(blocks, 10)] * 3, axis=2))
    return write(path, files)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return make_maps(tmp_path_factory.mktemp("data") / "maps")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, maps):
    """A run of 8 iterations in four ticks."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    translate("--data", maps, "--outdir", run, *TINY, "--kimg", 0.032)
    return run


def test_networks_get_a_plane_for_each_class_and_the_snapshot_says_what_they_are(whole):
    options = json.loads((whole / "training_options.json").read_text())
    assert options["G"]["in_channels"] == 3 and options["D"]["in_channels"] == 6
    assert "inputs are label maps of 3 classes, the values 0, 3, 9; 255 ignored" in (whole / "log.txt").read_text()
    snapshot = load_snapshot(whole / "network-snapshot-000000.032.safetensors")
    assert classes_from_json(snapshot.config["labels"]) == classes_from_json(options["labels"]) == CLASSES
    assert {"l1", "score/real", "ggdr/distance"} <= read_stats(whole)[0].keys()


def test_metrics_give_the_network_planes(whole, maps):
    snapshot = whole / "network-snapshot-000000.032.safetensors"
    translator, data = load_translator(snapshot), PairedImages(maps).with_classes(CLASSES)
    arrays = MeasuredPairs(data, CropConfig(SIZE)).read(range(NUM))
    inputs = one_hot(torch.from_numpy(arrays["A"]), CLASSES.num)
    made = torch.cat([translator(x, seed=i) for i, x in enumerate(inputs.split(1))])
    expected = (to_u8(made).float() - torch.from_numpy(arrays["B"]).float()).abs().mean() * 2 / 255
    printed = run_ggdr("metrics", "--network", snapshot, "--data", maps, "--metrics", "mae", "--json")
    found = json.loads(printed.splitlines()[-1])
    assert found["results"]["mae"] == pytest.approx(float(expected), rel=1e-5)


def test_metrics_of_a_network_for_label_maps_refuse_images_of_as_many_channels(whole, tmp_path):
    images = make_pairs(tmp_path / "images", num=2)
    message = run_ggdr("metrics", "--network", whole, "--data", images, "--metrics", "mae", code=2)
    expected = f"takes label maps of 3 classes as input, and {images} holds images of 3 channels"
    assert expected in " ".join(message.split())


@pytest.mark.parametrize("swapped", [False, True], ids=["images-for-maps", "maps-for-images"])
def test_metrics_data_of_another_kind_than_the_training_set_are_refused_before_a_step(maps, tmp_path, swapped):
    images, run = make_pairs(tmp_path / "images", num=4), tmp_path / "run"
    kinds = ["images of 3 channels", "label maps of 3 classes"]
    data, other, (got, expected) = (images, maps, ("label maps", kinds[0])) if swapped else (maps, images, kinds)
    for metric in ([], ["--metrics", "mae"]):
        message = translate("--data", data, "--outdir", run, *TINY, *metric, "--metrics-data", other, code=2)
        told = f"{other}: the inputs that metrics are measured on are {got}, expected {expected}, as in training"
        assert f"'--metrics-data': {told}" in message and not run.exists()


def test_a_sheet_shows_label_maps_in_the_colours_of_their_classes(whole, tmp_path):
    (tmp_path / "map.png").write_bytes(indexed(np.full((SIZE, SIZE), 3, np.uint8)))
    command("sheet", "--network", whole, tmp_path / "map.png", "--out", tmp_path / "sheet.png")
    shown = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    assert (shown == (200, 0, 0)).all(axis=1).sum() >= SIZE**2


def test_its_pictures_show_label_maps_in_their_colours(whole):
    path = whole / "translations000000.032.png"
    inputs, _, targets = samples_of(path, columns=4, rows=1, images=3, size=SIZE).transpose(1, 0, 2, 3, 4)
    assert {tuple(color) for color in inputs.reshape(-1, 3).tolist()} == {*COLORS.values(), (0, 0, 0)}
    assert (targets == targets[..., :1]).all() and len(np.unique(targets)) > 4


def test_resuming_with_label_maps_is_bit_for_bit_what_an_uninterrupted_run_gives(whole, maps, tmp_path, monkeypatch):
    from ggdr.scripts.training import label_maps
    from ggdr.torch_utils import loop

    run, iteration = tmp_path / "run", loop.PhaseRunner.iteration

    def stopped(self, batch, at):
        if at.step == 2:  # in the middle of a tick
            os.kill(os.getpid(), signal.SIGTERM)
        return iteration(self, batch, at)

    with monkeypatch.context() as patch:
        patch.setattr(loop.PhaseRunner, "iteration", stopped)
        output = translate("--data", maps, "--outdir", run, *TINY, "--kimg", 0.032, code=130)
    assert "stopped by SIGTERM at 0.012 kimg" in output
    # The classes are those of the run: files are not looked through again.
    monkeypatch.setattr(label_maps, "classes_of_maps", lambda *args: pytest.fail("looked for classes again"))
    translate("--outdir", run, "--resume", "latest")
    assert_same_weights(run, whole)
    for option in (["--classes", 10], ["--ignore-label", "0,255"]):
        monkeypatch.undo()
        message = translate("--outdir", run, "--resume", "latest", "--kimg", 0.04, *option, code=2)
        assert "a run cannot go on with another" in message and "labels.values 0, 3, 9 ->" in message


def test_a_run_starts_from_a_snapshot_with_the_same_classes(whole, maps, tmp_path):
    snapshot = whole / "network-snapshot-000000.032.safetensors"
    args = ["--data", maps, *TINY[:2], *TINY[4:], "--resume", snapshot, "--kimg", 0.004]
    translate(*args, "--outdir", tmp_path / "run")
    options = json.loads((tmp_path / "run" / "training_options.json").read_text())
    assert classes_from_json(options["labels"]) == CLASSES
    args += ["--outdir", tmp_path / "other"]
    message = translate(*args, "--classes", 3, code=2)
    assert "'--classes': got 3 classes, the values 0 to 2; 255 ignored; " in message
    assert "takes 3 classes, the values 0, 3, 9; 255 ignored" in message
    more = make_maps(tmp_path / "more", values=(0, 4))
    assert "has a pixel of the value 4; expected 0, 3, 9, a class" in translate(*args, "--data", more, code=2)
    images = tmp_path / "images"
    for side in "AB":
        shutil.copytree(maps / "images", images / f"train{side}")
    message = translate(*args, "--data", images, code=2)
    assert "its inputs are images, and" in message and "takes label maps of 3 classes" in message
    stored = load_snapshot(snapshot)
    for change, expected in (
        ({}, "its inputs are label maps, and"),
        ({"labels": {"values": [1]}}, "classes of label maps are damaged: expected colors, ignored, names, values"),
    ):
        config = {name: value for name, value in stored.config.items() if name != "labels"}
        save_snapshot(tmp_path / "changed.safetensors", stored.networks, {**config, **change})
        assert expected in translate(*args, "--resume", tmp_path / "changed.safetensors", code=2)


def test_classes_may_be_typed_or_known(maps, tmp_path):
    args = ["--data", maps, "--outdir", tmp_path / "run"]
    settings, output = dry_run(*args, "--classes", 12)
    assert settings["labels"]["values"] == [*range(12)] and settings["G"]["in_channels"] == 12
    assert "12 classes, the values 0 to 11; 255 ignored" in output
    settings, _ = dry_run(*args, "--ignore-label", "none")
    assert settings["labels"]["values"] == [0, 3, 9, 255] and settings["labels"]["ignored"] == []
    settings, _ = dry_run(*args, "--classes", 9, "--ignore-label", "0,255")
    assert settings["labels"]["values"] == [*range(1, 10)] and settings["D"]["in_channels"] == 12
    coco = make_maps(tmp_path / "coco", "stuffthingmaps")
    assert dry_run("--data", coco, "--outdir", tmp_path / "run")[0]["G"]["in_channels"] == 182
    assert dry_run("--data", coco, "--outdir", tmp_path / "run", "--classes", 10)[0]["G"]["in_channels"] == 10


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--classes", 5], "labels/0.png: has a pixel of the value 9; expected 0 to 4, a class, or 255 to ignore"),
        (["--classes", 255, "--ignore-label", "0,255"], "'--classes': 8 bits have 254 values beside those"),
        (["--classes", 256], "expected a whole number from 1 to 255, got '256'"),
        (["--ignore-label", "256"], "numbers from 0 to 255 with commas between them, or none; got '256'"),
        (["--ignore-label", "0,3,255"], "1 class, the value 9; 0, 3, 255 ignored: one class alone; --ignore-label"),
        (["--direction", "BtoA"], "'--direction': the target, labels/0.png, is a label map with the number of a class"),
    ],
)
def test_bad_input_is_a_message_and_writes_nothing(args, message, maps, tmp_path):
    run = tmp_path / "run"
    assert message in translate("--data", maps, "--outdir", run, *TINY, *args, code=2)
    assert not run.exists()


def test_options_of_label_maps_are_refused_for_images(maps, tmp_path):
    for side in "AB":
        shutil.copytree(maps / "images", tmp_path / "images" / f"train{side}")
    args = ["--data", tmp_path / "images", "--outdir", tmp_path / "run", *TINY]
    message = "is about label maps with the number of a class in each pixel; the input, trainA/0.png, is none"
    assert f"'--classes': {message}" in translate(*args, "--classes", 3, code=2)
    assert f"'--ignore-label': {message}" in translate(*args, "--ignore-label", 3, code=2)


def test_a_value_that_is_met_late_ends_the_run_with_the_file_named(tmp_path):
    late = make_maps(tmp_path / "late", num=NUM * 10)
    wrong = np.full((SIZE, SIZE), 200, np.uint8)
    (late / "labels" / "41.png").write_bytes(indexed(wrong))  # none of those that are looked at before
    args = ["--data", late, "--outdir", tmp_path / "run", *TINY, "--kimg", 0.08, "--classes", 10]
    assert "labels/41.png: has a pixel of the value 200; expected 0 to 9, a class, or 255" in translate(*args, code=2)


def test_label_maps_are_applied_as_such(whole, tmp_path):
    snapshot, values = whole / "network-snapshot-000000.032.safetensors", np.full((21, 45), 3, np.uint8)
    values[:9, :7], values[12:, 20:] = 9, 255
    Image.fromarray(values).save(tmp_path / "grey.png")
    (tmp_path / "palette.png").write_bytes(indexed(values, {0: (9, 9, 9)}))
    args = ["apply", "--network", snapshot, "--outdir", tmp_path / "out"]
    command(*args, tmp_path / "grey.png", tmp_path / "palette.png")
    out = [np.asarray(Image.open(tmp_path / "out" / f"{name}.png")) for name in ("grey", "palette")]
    assert (out[0] == out[1]).all() and out[0].shape == (21, 45, 3)
    translator = load_translator(snapshot)
    planes = np.stack([values == 0, values == 3, values == 9]).astype(np.float32)
    expected = to_u8(translator(torch.from_numpy(planes)[None]))[0].permute(1, 2, 0).numpy()
    assert translator.labels == CLASSES and (out[0] == expected).all()
    Image.fromarray(values).convert("RGB").save(tmp_path / "rgb.png")
    Image.fromarray(values).save(tmp_path / "lossy.jpg")
    Image.fromarray(values + 1).save(tmp_path / "other.png")
    for name, message in (
        ("rgb.png", "rgb.png: has pixel type 'RGB', expected 8-bit L or P with the number of a class in each pixel"),
        ("lossy.jpg", "lossy.jpg: is a JPEG, which does not keep values; expected label maps as PNG"),
        ("other.png", "other.png: has a pixel of the value 4 and 1 more; expected 0, 3, 9, a class, or 255 to ignore"),
    ):
        assert message in command(*args, tmp_path / name, code=2)


def test_classes_that_do_not_fit_the_generator_are_refused(whole, tmp_path):
    stored = load_snapshot(whole / "network-snapshot-000000.032.safetensors")
    path = tmp_path / "changed.safetensors"
    for labels, message in (
        (numbered_classes(4).to_json(), "label maps of 4 classes, and a G of 3 channels"),
        ("three", "classes of label maps are damaged: expected colors, ignored, names, values of classes, got 'three'"),
    ):
        save_snapshot(path, stored.networks, {**stored.config, "labels": labels})
        with pytest.raises(SnapshotError, match=message):
            load_translator(path)


def test_ignored_values_are_read_as_they_are_meant():
    assert parse_ignored("255") == (255,) and parse_ignored("255,0") == (0, 255) and parse_ignored("none") == ()
    for text in ("", "256", "-1", "1,", "1,1", "0.5", "None", "1 2"):
        with pytest.raises(ValueError, match="expected different numbers from 0 to 255"):
            parse_ignored(text)
