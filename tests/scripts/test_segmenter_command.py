# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr segmenter`: training on images and on results of a translator, testing, what is held out and refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.metrics.segmenter import load_segmenter
from ggdr.metrics.segmenter_training import judge
from ggdr.scripts.segmenting.data import batches_in_order, read_translations
from ggdr.scripts.segmenting.learn import open_lesson
from ggdr.scripts.segmenting.results import values_of
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.label_maps import LabelClasses, numbered_classes
from ggdr.torch_utils.data.shapes import CLASSES
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.translation.config import UnetGeneratorConfig
from ggdr.translation.label_maps import one_hot
from ggdr.translation.layout_config import OASISGeneratorConfig
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import load_translator
from tests.scripts.test_translate_labels import run_ggdr

NUM, SIZE = 30, 16
TINY = ["--device", "cpu", "--kimg", 0.064, "--batch", 8, "--width", 2]


def segmenter(*args, code=0):
    return run_ggdr("segmenter", *args, code=code)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "shapes"
    run_ggdr("dataset", "shapes", path, "--resolution", SIZE, "--images", NUM, "--workers", 1)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """What was printed, and the folder."""
    folder = tmp_path_factory.mktemp("whole")
    return segmenter("train", "--data", data, "--outdir", folder, *TINY), folder


def save_layout_translator(path, classes=CLASSES, out_channels=3):
    config = OASISGeneratorConfig(classes.num, out_channels, channels=4, noise_channels=2, ups=2)
    torch.manual_seed(0)
    save_snapshot(
        path, {"G_ema": build_network(config).state_dict()}, {"G": config.to_json(), "labels": classes.to_json()}
    )
    return path


def state_of(folder):
    return load_snapshot(folder / "segmenter.safetensors").networks["segmenter"]


def is_same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_file_says_what_it_was_trained_on_and_how_well_it_does_on_what_was_held_out(whole, data):
    output, folder = whole
    found = load_segmenter(folder / "segmenter.safetensors")
    assert found.classes == CLASSES and found.channels == 3
    assert (found.about["num_images"], found.about["num_held_out"], found.about["translator"]) == (27, 3, None)
    dataset = ImageDataset(data, use_label_maps=True)
    batches = batches_in_order(dataset, np.array([9, 19, 29]), 2, torch.device("cpu"), lambda done, total: None)
    assert found.about["held_out"] == values_of(judge(found, batches, CLASSES.num))
    assert f"miou                         {found.about['held_out']['miou']:.4f}" in output
    assert "trained on 27 images in" in output and "IoU of triangle" in output and "label maps of 9 classes" in output


def test_the_same_options_give_the_same_weights_and_another_seed_others(whole, data, tmp_path):
    segmenter("train", "--data", data, "--outdir", tmp_path / "a", *TINY)
    files = [folder / "segmenter.safetensors" for folder in (whole[1], tmp_path / "a")]
    assert is_same(state_of(tmp_path / "a"), state_of(whole[1]))
    assert load_snapshot(files[0]).config == load_snapshot(files[1]).config
    assert load_segmenter(files[0]).digest == load_segmenter(files[1]).digest
    segmenter("train", "--data", data, "--outdir", tmp_path / "a", *TINY, "--seed", 1, "--overwrite")
    assert not is_same(state_of(tmp_path / "a"), state_of(whole[1]))


def test_what_is_held_out_is_not_trained_on(whole, data, tmp_path):
    for number, held_out in ((9, True), (8, False)):
        changed = tmp_path / f"changed{number}"
        shutil.copytree(data, changed)
        name = f"00000/img{number:08d}.png"
        Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(changed / "images" / name)
        segmenter("train", "--data", changed, "--outdir", tmp_path / str(number), *TINY)
        assert is_same(state_of(tmp_path / str(number)), state_of(whole[1])) == held_out


def test_of_the_dataset_of_training_only_what_was_held_out_is_tested(whole, data, tmp_path):
    file = whole[1] / "segmenter.safetensors"
    args = ["--segmenter", file, "--device", "cpu"]
    own = json.loads(segmenter("test", "--data", data, *args, "--json"))
    assert own["num_images"] == 3 and own["results"] == load_segmenter(file).about["held_out"]
    assert "3 images that training held out under" in segmenter("test", "--data", data, *args)
    run_ggdr("dataset", "shapes", tmp_path / "o.zip", "--resolution", SIZE, "--images", 12, "--seed", 1, "--workers", 1)
    other = json.loads(segmenter("test", "--data", tmp_path / "o.zip", *args, "--json", "--batch", 5))
    assert other["num_images"] == 12 and other["results"] != own["results"]


def test_code_is_tested_as_a_file_is(data, tmp_path, monkeypatch):
    text = "def sky(device):\n    import torch\n    classes = torch.eye(9, device=device)[0].view(1, 9, 1, 1)\n"
    (tmp_path / "own_sky.py").write_text(text + "    return lambda img: classes.expand(len(img), 9, 4, 4)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = json.loads(segmenter("test", "--data", data, "--segmenter", "own_sky:sky", "--device", "cpu", "--json"))
    share = (ImageDataset(data, use_label_maps=True).label_maps(range(NUM)) == 0).mean()
    assert found["num_images"] == NUM and found["results"]["pixel_accuracy"] == pytest.approx(share)
    assert found["results"]["iou_of_classes"][0] == pytest.approx(share)
    assert found["results"]["class_accuracy"] == pytest.approx(1 / 9)


def test_a_translator_gives_one_image_of_each_label_map_always_the_same(data, tmp_path):
    path = save_layout_translator(tmp_path / "t.safetensors")
    lesson = open_lesson(data, path, torch.device("cpu"))
    dataset, translator = lesson.dataset, load_translator(path)
    label_maps = torch.from_numpy(dataset.label_maps([4, 11]))
    expected = to_u8(translator(one_hot(label_maps, 9), seed=[4, 11], batch_size=2)).numpy()
    assert (lesson.read(np.array([4, 11])) == expected).all()
    assert (lesson.read(np.array([11, 4]))[::-1] == expected).all()  # kept
    assert (read_translations(translator, dataset)(np.array([11])) != expected[:1]).any()


def test_it_learns_from_a_translator_and_is_measured_on_images(whole, data, tmp_path):
    path = save_layout_translator(tmp_path / "t.safetensors")
    output = segmenter("train", "--data", data, "--translator", path, "--outdir", tmp_path / "out", *TINY)
    assert f"trained on what {path} makes of 27 label maps in" in output
    found = load_segmenter(tmp_path / "out" / "segmenter.safetensors")
    assert found.about["translator"]["path"] == str(path) and not is_same(
        state_of(tmp_path / "out"), state_of(whole[1])
    )
    dataset = ImageDataset(data, use_label_maps=True)
    batches = batches_in_order(dataset, np.array([9, 19, 29]), 8, torch.device("cpu"), lambda done, total: None)
    assert found.about["held_out"] == values_of(judge(found, batches, CLASSES.num))


def test_ctrl_c_leaves_what_was_there(whole, data, tmp_path, monkeypatch):
    from ggdr.scripts.segmenting import learn

    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(learn, "train_segmenter", interrupted)
    shutil.copy(whole[1] / "segmenter.safetensors", tmp_path)
    before = (tmp_path / "segmenter.safetensors").read_bytes()
    segmenter("train", "--data", data, "--outdir", tmp_path, *TINY, "--overwrite", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["segmenter.safetensors"]
    assert (tmp_path / "segmenter.safetensors").read_bytes() == before


def refused(*args):
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", segmenter(*args, code=2)).split())


def test_an_existing_file_is_kept(whole, data):
    assert "'--outdir'" in (text := refused("train", "--data", data, "--outdir", whole[1], *TINY))
    assert "exists; give --overwrite to replace it" in text


def test_data_that_cannot_be_learned_from_are_refused(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    text = refused("train", "--data", tmp_path, "--outdir", tmp_path / "out")
    assert str(tmp_path) in text and "label maps" in text and not (tmp_path / "out").exists()
    run_ggdr("dataset", "shapes", tmp_path / "few.zip", "--resolution", 16, "--images", 9, "--workers", 1)
    text = refused("train", "--data", tmp_path / "few.zip", "--outdir", tmp_path / "out")
    assert "'--data'" in text and "9 images, expected 10 or more: every tenth is held out" in text


def save_unet(path):
    config = UnetGeneratorConfig(3, 3, channels=2, downs=5)
    save_snapshot(path, {"G": build_network(config).state_dict()}, {"G": config.to_json()})
    return path


RENAMED = LabelClasses(CLASSES.values, names=("air", *CLASSES.names[1:]))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (save_unet, "a pix2pix that takes images, expected one that takes label maps"),
        (lambda path: save_layout_translator(path, numbered_classes(4)), "takes 4 classes, and the label maps have 9"),
        (lambda path: save_layout_translator(path, RENAMED), "a class 0 called air, which the label maps call sky"),
        (lambda path: save_layout_translator(path, out_channels=1), "makes images of 1 channels, and those of"),
    ],
    ids=["images", "number", "names", "channels"],
)
def test_translators_of_other_data_are_refused(data, tmp_path, save, message):
    path = save(tmp_path / "t.safetensors")
    text = refused("train", "--data", data, "--translator", path, "--outdir", tmp_path / "out", *TINY)
    assert "'--translator'" in text and message in text and str(path) in text


def test_segmenters_of_other_classes_are_refused(whole, tmp_path):
    for i in range(10):
        for folder, img in (("images", Image.new("RGB", (16, 16))), ("labels", Image.new("L", (16, 16), i % 2))):
            (tmp_path / "two" / folder).mkdir(parents=True, exist_ok=True)
            img.save(tmp_path / "two" / folder / f"{i}.png")
    (tmp_path / "two" / "classes.json").write_text(json.dumps({"names": ["a", "b"]}))
    args = ["--data", tmp_path / "two", "--segmenter"]
    text = refused("test", *args, whole[1] / "segmenter.safetensors")
    assert "'--segmenter'" in text and "finds 9 classes, and the label maps have 2 (of" in text
    assert "--segmenter missing.safetensors: no such file" in refused("test", *args, "missing.safetensors")
