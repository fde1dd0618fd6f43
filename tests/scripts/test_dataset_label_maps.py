# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr dataset` with label maps: every layout, maps that are picked and cropped with their images, and bad input."""

from __future__ import annotations

import io
import json
import re
import zipfile
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.metrics.image_sets import FileImages
from ggdr.scripts.training.host_stylegan2 import StyleGAN2Host
from ggdr.scripts.viewing.photographs import image_files
from ggdr.torch_utils.data.label_maps import IGNORED, KNOWN_SETS
from ggdr.torch_utils.data.loader import ImageDataset, batch_indices
from ggdr.torch_utils.data.shapes import CLASSES, ShapesSource
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.folders import find_pairs
from tests.dataset_files import encode, run, write, write_zip
from tests.translation.data.test_labels import indexed


def picture(values):
    """An image that shows the values of a label map in red."""
    rgb = np.full((*values.shape, 3), 90, np.uint8)
    rgb[..., 0] = values
    return rgb


def halves(left, right, shape=(16, 16)):
    """A label map of two values."""
    values = np.full(shape, right, np.uint8)
    values[:, : shape[1] // 2] = left
    return values


def label_files(maps, image="images/{}.png", label="labels/{}.png", kind="png"):
    """Files of label maps and of their images, by numbers from 0."""
    files = {image.format(i): encode(picture(values), kind, quality=95) for i, values in enumerate(maps)}
    return files | {label.format(i): encode(values) for i, values in enumerate(maps)}


def convert(tmp_path, source, *options):
    """(the dataset, what was printed)"""
    printed = run(source, tmp_path / "out.zip", *options)
    return ImageDataset(tmp_path / "out.zip", use_label_maps=True), printed


MAPS = [halves(0, 1), halves(2, IGNORED), halves(1, 1)]


def test_label_maps_come_along_beside_images(tmp_path):
    dataset, printed = convert(tmp_path, write(tmp_path / "in", label_files(MAPS)))
    assert (dataset.label_maps(range(3))[:, 0] == np.stack(MAPS)).all()
    assert (dataset.images_u8(range(3))[:, 0] == np.stack(MAPS)).all()
    assert "3 images, 16x16, 3 channels" in printed and dataset.left_out == ""
    # 128 of class 0, 384 of 1, 128 of 2, 128 ignored.
    assert "label maps of 3 classes: class 1 60%, class 0 20%, class 2 20%; 16.7% of pixels ignored" in printed
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
        stored = Image.open(io.BytesIO(archive.read("labels/00000/img00000001.png")))
    assert sorted(names) == [
        *["classes.json", "dataset.json"],
        *[f"{folder}/00000/img{i:08d}.png" for folder in ("images", "labels") for i in range(3)],
    ]
    # Programs show the colours of classes.
    assert stored.mode == "P" and stored.convert("RGB").getpixel((0, 0)) != stored.convert("RGB").getpixel((15, 0))


def test_a_converted_dataset_converts_to_the_same_bytes(tmp_path):
    run(write(tmp_path / "in", label_files(MAPS)), tmp_path / "first.zip")
    run(tmp_path / "first.zip", tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    run(tmp_path / "first.zip", tmp_path / "folder")
    dataset = ImageDataset(tmp_path / "folder", use_label_maps=True)
    assert (dataset.label_maps(range(3))[:, 0] == np.stack(MAPS)).all()
    assert dataset.label_classes == ImageDataset(tmp_path / "first.zip").label_classes
    # A folder of ours is replaced, too.
    run(tmp_path / "first.zip", tmp_path / "folder", "--overwrite")


@pytest.mark.parametrize("workers", [1, 2])
def test_label_maps_are_picked_never_interpolated_with_the_crop_of_their_image(tmp_path, workers):
    rng = np.random.default_rng(0)
    maps = [rng.choice(np.array([0, 50, 200, IGNORED], np.uint8), (32, 48)) for _ in range(300)]
    options = ["--resolution", 8, "--transform", "center-crop", "--filter", "bicubic", "--workers", workers]
    files = label_files(maps, "images/{:03d}.png", "labels/{:03d}.png")
    dataset, _ = convert(tmp_path, write(tmp_path / "in", files), *options)
    assert dataset.label_classes.num == 3
    found = dataset.label_maps(range(300))[:, 0]
    picked = np.stack(maps)[:, 2::4, 10:40:4]
    expected = np.searchsorted([0, 50, 200], picked).astype(np.uint8)
    assert (found == np.where(picked == IGNORED, IGNORED, expected)).all()
    # The images were interpolated.
    assert len(np.unique(dataset.images_u8(range(300))[:, 0])) > 100


def test_label_maps_keep_the_place_of_what_images_show(tmp_path):
    maps = [halves(0, 200, (40, 64)), halves(200, 0, (64, 40)).T.copy(), halves(200, 0, (50, 50))]
    source = write(tmp_path / "in", label_files(maps))
    for options in ([], ["--transform", "center-crop", "--overwrite"]):
        if not options:
            maps[:2] = [values[:40, 12:52] if values.shape[1] > 50 else values[:40, :40] for values in maps[:2]]
            square = write(tmp_path / "square", label_files(maps))
            dataset, _ = convert(tmp_path, square, "--resolution", 16)
        else:
            dataset, _ = convert(tmp_path, source, "--resolution", 16, *options)
        shown = dataset.images_u8(range(3))[:, 0] > 100
        assert (shown == (dataset.label_maps(range(3))[:, 0] == 1)).mean() > 0.98


def test_bars_of_wide_images_have_no_class(tmp_path):
    maps = [np.ones((30, 40), np.uint8)]
    dataset, _ = convert(
        tmp_path, write(tmp_path / "in", label_files(maps)), "--transform", "center-crop-wide", "--resolution", 16
    )
    numbers = dataset.label_maps([0])[0, 0]
    assert (numbers[2:14] == 0).all() and (numbers[:2] == IGNORED).all() and (numbers[14:] == IGNORED).all()
    assert (dataset.images_u8([0])[0, 1] == np.where(numbers == 0, 90, 0)).all()


def test_small_images_are_left_out_or_enlarged_with_their_label_maps(tmp_path):
    maps = [halves(0, 1), halves(1, 0, (8, 8)), halves(0, 1, (32, 32))]
    source = write(tmp_path / "in", label_files(maps))
    dataset, _ = convert(tmp_path, source, "--resolution", 16, "--small", "skip")
    assert len(dataset) == 2 and (dataset.label_maps([0, 1])[:, 0] == maps[0]).all()
    dataset, _ = convert(tmp_path, source, "--resolution", 16, "--small", "upscale", "--overwrite")
    assert (dataset.label_maps([1])[0, 0] == halves(1, 0)).all()


def test_broken_images_and_label_maps_are_left_out_together(tmp_path):
    files = label_files(MAPS)
    files["images/1.png"], files["labels/2.png"] = files["images/1.png"][:-40], files["labels/2.png"][:-40]
    source = write(tmp_path / "in", files)
    dataset, printed = convert(tmp_path, source, "--skip-broken", "--ignore-label", 255, "--classes", 3)
    assert len(dataset) == 1 and (dataset.label_maps([0])[0, 0] == MAPS[0]).all()
    assert "2 broken ones left out" in printed
    assert re.search("labels/2.png: cannot be decoded", printed)


# Layouts.


def cityscapes(maps):
    files = {
        f"leftImg8bit/train/aachen/a_{i}_leftImg8bit.png": encode(picture(values)) for i, values in enumerate(maps)
    }
    for i, values in enumerate(maps):
        files[f"gtFine/train/aachen/a_{i}_gtFine_labelIds.png"] = encode(values)
        files[f"gtFine/train/aachen/a_{i}_gtFine_instanceIds.png"] = encode(values)
    # Test images come with maps in which nothing is labelled.
    files["leftImg8bit/test/berlin/b_0_leftImg8bit.png"] = encode(picture(maps[0]))
    files["gtFine/test/berlin/b_0_gtFine_labelIds.png"] = encode(np.zeros_like(maps[0]))
    return files


def splits(maps, images, labels):
    files = label_files(maps, f"{images}/train/{{}}.jpg", f"{labels}/train/{{}}.png", "jpeg")
    return files | label_files(maps[:1], f"{images}/val/v{{}}.jpg", f"{labels}/val/v{{}}.png", "jpeg")


LAYOUTS = {
    "cityscapes": (cityscapes, [7, 33, 0], [0, 18, IGNORED], 19, "bicycle"),
    "ade20k": (
        lambda maps: {
            name.replace("/0.", "/ADE_0.").replace("/1.", "/ADE_1.").replace("/v0.", "/ADE_v0."): data
            for name, data in splits(maps, "images", "annotations").items()
        },
        [1, 150, 0],
        [0, 149, IGNORED],
        150,
        None,
    ),
    "coco": (lambda maps: splits(maps, "images", "stuffthingmaps"), [0, 181, 255], [0, 181, IGNORED], 182, None),
    "facades": (
        lambda maps: label_files(maps, "base/cmp_b{}.jpg", "base/cmp_b{}.png", "jpeg"),
        [1, 12, 0],
        [0, 11, IGNORED],
        12,
        "shop",
    ),
    "images_and_labels": (lambda maps: splits(maps, "images", "labels"), [3, 9, 255], [0, 1, IGNORED], 2, None),
    "splits_above": (
        lambda maps: (
            label_files(maps, "train/images/{}.jpg", "train/labels/{}.png", "jpeg")
            | label_files(maps[:1], "val/images/v{}.jpg", "val/labels/v{}.png", "jpeg")
        ),
        [3, 9, 255],
        [0, 1, IGNORED],
        2,
        None,
    ),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_classes_of_published_sets_are_known(tmp_path, layout, kind):
    files_of, values, expected, num, last = LAYOUTS[layout]
    maps = [halves(values[0], values[1]), halves(values[2], values[0])]
    files = files_of(maps)
    source = write(tmp_path / "in", files) if kind == "folder" else write_zip(tmp_path / "in.zip", files)
    dataset, printed = convert(tmp_path, source)
    wanted = np.stack([halves(expected[0], expected[1]), halves(expected[2], expected[0])])
    assert (dataset.label_maps(range(len(dataset)))[:, 0] == wanted).all()
    assert dataset.label_classes.num == num and dataset.label_classes.ignored == (IGNORED,)
    assert last is None or dataset.label_classes.names[-1] == last
    assert f"label maps of {num} classes: " in printed and not dataset.has_labels


def test_a_split_is_taken_where_it_is_named(tmp_path):
    files = splits([halves(3, 9), halves(9, 3)], "images", "labels")
    source = write(tmp_path / "in", files)
    assert len(convert(tmp_path, source, "--split", "val")[0]) == 1
    message = run(source, tmp_path / "no.zip", "--split", "test", expect=2)
    assert "expected images in a folder test, found train, val" in message
    # Also of sets without label maps.
    photos = write(tmp_path / "photos", {name: data for name, data in files.items() if name.startswith("images")})
    printed = run(photos / "images", tmp_path / "val.zip", "--split", "val")
    assert "1 images" in printed
    message = " ".join(run(source / "images" / "train", tmp_path / "no.zip", "--split", "val", expect=2).split())
    assert "images/train: has no folders such as train and val alone" in message
    for word in ("digits", "shapes"):
        assert "'--split': is for folders and zips" in run(word, tmp_path / "no.zip", "--split", "val", expect=2)


def test_classes_of_images_are_kept_beside_label_maps(tmp_path):
    source = write(tmp_path / "in", label_files(MAPS, "images/{}/a.png", "labels/{}/a.png"))
    run(source, tmp_path / "out.zip")
    dataset = ImageDataset(tmp_path / "out.zip", use_labels=True, use_label_maps=True)
    assert dataset.classes == ["0", "1", "2"] and dataset.labels(range(3)).argmax(1).tolist() == [0, 1, 2]


def test_photographs_and_their_pngs_are_no_images_and_label_maps(tmp_path):
    rgb = picture(MAPS[0])
    source = write(tmp_path / "in", {"a.jpg": encode(rgb, "jpeg"), "a.png": encode(rgb)})
    printed = run(source, tmp_path / "out.zip")
    assert "2 images" in printed and "label maps" not in printed


# Classes.


def test_classes_are_named_by_classes_json(tmp_path):
    stored = {"values": [9, 3], "names": ["sky", "sea"], "colors": ["#0000ff", "#00ff00"]}
    files = label_files([halves(3, 9), halves(9, 255)]) | {"classes.json": json.dumps(stored).encode()}
    dataset, printed = convert(tmp_path, write(tmp_path / "in", files))
    assert dataset.label_maps([0, 1])[:, 0, 0, [0, -1]].tolist() == [[1, 0], [0, IGNORED]]
    assert dataset.label_classes.names == ("sky", "sea") and dataset.label_classes.colors == ("#0000ff", "#00ff00")
    assert "label maps of 2 classes: sky 66.7%, sea 33.3%" in printed


def test_colours_of_a_palette_are_kept(tmp_path):
    values = halves(0, 9)
    files = {"images/a.png": encode(picture(values)), "labels/a.png": indexed(values)}
    dataset, _ = convert(tmp_path, write(tmp_path / "in", files))
    assert dataset.label_classes.colors == ("#0a141e", "#00c800")


def test_maps_in_colours_become_classes_by_the_colours_of_classes_json(tmp_path):
    stored = {"names": ["sky", "sea"], "colors": ["#0000ff", "#00ff00"]}
    colored = np.zeros((16, 16, 3), np.uint8)
    colored[:4, :, 2], colored[4:9, :, 1] = 255, 255
    files = {"images/a.png": encode(picture(halves(0, 0))), "labels/a.png": encode(colored)}
    source = write(tmp_path / "in", files | {"classes.json": json.dumps(stored).encode()})
    dataset, _ = convert(tmp_path, source)
    assert dataset.label_maps([0])[0, 0, :, 0].tolist() == [0] * 4 + [1] * 5 + [IGNORED] * 7
    colored[15, 15] = (1, 2, 3)
    (source / "labels" / "a.png").write_bytes(encode(colored))
    message = " ".join(run(source, tmp_path / "no.zip", expect=2).split())
    assert "labels/a.png: has a pixel of the colour #010203; expected those of 2 classes" in message


def test_ignored_values_and_the_number_of_classes_can_be_given(tmp_path):
    source = write(tmp_path / "in", label_files([halves(0, 1), halves(4, 255)]))
    dataset, _ = convert(tmp_path, source, "--ignore-label", "0,255")
    assert dataset.label_maps([0, 1])[:, 0, 0, [0, -1]].tolist() == [[IGNORED, 0], [1, IGNORED]]
    dataset, _ = convert(tmp_path, source, "--ignore-label", "none", "--overwrite")
    assert dataset.label_maps([0, 1])[:, 0, 0, [0, -1]].tolist() == [[0, 1], [2, 3]]
    dataset, _ = convert(tmp_path, source, "--classes", 5, "--overwrite")
    assert dataset.num_label_classes == 5
    message = run(source, tmp_path / "no.zip", "--classes", 255, "--ignore-label", "0,255", expect=2)
    assert "8 bits have 254 values" in message


def test_options_of_label_maps_need_label_maps(tmp_path):
    source = write(tmp_path / "in", {"a.png": encode(picture(MAPS[0]))})
    for options in (["--classes", 3], ["--ignore-label", "0"]):
        assert "has no label maps" in run(source, tmp_path / "no.zip", *options, expect=2)


ONE = "labels/1.png"


@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({ONE: None}, [], "no partner in labels for 1 of images"),
        ({"images/1.png": None}, [], "no partner in images for 1 of labels"),
        ({ONE: encode(halves(0, 1, (8, 8)))}, [], "images/1.png: is 16x16, and .*labels/1.png is 8x8; the two"),
        ({ONE: encode(halves(0, 7))}, ["--classes", 3], "labels/1.png: has a pixel of the value 7; expected 0 to 2"),
        ({ONE: encode(picture(MAPS[1]))}, [], "labels/1.png: has pixel type 'RGB', .*classes.json .*colour"),
        ({ONE: encode(MAPS[1])[:-40]}, ["--classes", 3], "labels/1.png: cannot be decoded.*--skip-broken"),
        ({"classes.json": b'{"names": ["a"]}'}, [], "labels/0.png: has a pixel of the value 1; expected 0, a class"),
        ({"classes.json": b"[]"}, [], "classes.json: got .*expected an object"),
    ],
    ids=["no_map", "no_image", "size", "value", "rgb", "cut", "too_few_names", "json"],
)
def test_what_does_not_fit_is_named_and_nothing_written(tmp_path, changes, options, message):
    files = {**label_files(MAPS), **changes}
    source = write(tmp_path / "in", {name: data for name, data in files.items() if data is not None})
    printed = " ".join(run(source, tmp_path / "out.zip", *options, expect=2).split())
    assert re.search(message, printed), printed
    assert not (tmp_path / "out.zip").exists()


# Shapes.


def test_shapes_are_a_dataset_with_label_maps(tmp_path):
    dataset, printed = convert(tmp_path, "shapes", "--resolution", 32, "--images", 40, "--seed", 3)
    assert len(dataset) == 40 and dataset.resolution == 32 and dataset.label_classes == CLASSES
    assert "40 images, 32x32" in printed and re.search(r"label maps of 9 classes: .*\bsky \d", printed)
    source = ShapesSource(32, 40, 3)
    drawn = [np.stack([array for _, array in part(range(40))]) for part in (source.items, source.label_maps)]
    assert (dataset.images_u8(range(40)).transpose(0, 2, 3, 1) == drawn[0]).all()
    assert (dataset.label_maps(range(40))[:, 0] == drawn[1]).all()


def test_shapes_do_not_depend_on_processes_or_how_many_there_are(tmp_path):
    for name, options in {"a": ["--workers", 1], "b": ["--workers", 2]}.items():
        run("shapes", tmp_path / f"{name}.zip", "--resolution", 32, "--images", 300, *options)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    run("shapes", tmp_path / "c.zip", "--resolution", 32, "--images", 10)
    with zipfile.ZipFile(tmp_path / "a.zip") as many, zipfile.ZipFile(tmp_path / "c.zip") as few:
        for name in few.namelist():
            assert name == "dataset.json" or many.read(name) == few.read(name)


def test_options_of_shapes_are_for_shapes(tmp_path):
    for options in (["--images", 3], ["--seed", 1]):
        message = " ".join(run("digits", tmp_path / "no.zip", *options, expect=2).split())
        assert f"'{options[0]}': is for the shapes that are drawn here" in message
    message = run("shapes", tmp_path / "no.zip", "--resolution", 512, expect=2)
    assert "resolution must be one of 16, 32, 64, 128, 256, got 512" in message
    assert "has 9 classes of its own" in run("shapes", tmp_path / "no.zip", "--classes", 3, expect=2)


# What others make of such a dataset.


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "shapes.zip"
    run("shapes", path, "--resolution", 32, "--images", 12)
    return path


def test_metrics_and_projection_see_images_alone(shapes):
    assert FileImages(shapes).num == 12
    assert all(file.path.startswith("images/") for file in image_files([shapes]))


def test_translation_takes_it_as_pairs_of_label_maps_and_images(shapes):
    pairs = PairedImages(shapes)
    assert pairs.num_images == 12 and pairs.sides[0].is_labels and not pairs.sides[1].is_labels
    found = find_pairs(pairs.container)
    assert found.folder == "labels"
    for a, row in zip(found.a.names, found.partner, strict=True):
        assert found.b.names[int(row)] == a.replace("labels/", "images/")


def test_pix2pix_is_trained_on_its_classes_without_looking_through_it(shapes, tmp_path, monkeypatch):
    from ggdr.scripts.cli import main
    from ggdr.torch_utils.data import label_map_files

    monkeypatch.setattr(label_map_files, "find_classes", lambda *args: pytest.fail("looked for classes"))
    args = ["--cfg", "cpu", "--channels", 4, "--device", "cpu", "--batch", 4, "--kimg", 0.008, "--tick", 0.004]
    command = ["translate", "train", "--data", shapes, "--outdir", tmp_path / "run", *args]
    result = CliRunner().invoke(main, [*map(str, command)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    options = json.loads((tmp_path / "run" / "training_options.json").read_text())
    assert options["labels"] == CLASSES.to_json() and "inputs are label maps of 9 classes" in result.output


def test_training_batches_have_label_maps_where_these_are_used(shapes):
    settings = SimpleNamespace(loop=SimpleNamespace(batch=4), seed=0, data=SimpleNamespace(workers=0))
    for use in (False, True):
        data = ImageDataset(shapes, use_label_maps=use, mirror=True)
        with closing(StyleGAN2Host().batches(settings, data, ProcessGroup(), 0)) as batches:
            batch = next(batches)
        assert batch.keys() == ({"img", "c", "label_map"} if use else {"img", "c"})
    indices = batch_indices(0, 4, 24, 0)
    assert torch.equal(batch["label_map"], torch.from_numpy(data.label_maps(indices)))


def test_training_says_which_label_maps_there_are(shapes, tmp_path):
    from ggdr.scripts.cli import main

    command = ["train", "--data", shapes, "--outdir", tmp_path, "--cfg", "cpu", "--device", "cpu", "--dry-run"]
    result = CliRunner().invoke(main, [*map(str, command)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert re.search(r"shapes.zip: label maps of 9 classes: .*\bsky \d", " ".join(result.output.split()))


def test_known_sets_have_a_colour_or_none_for_each_class():
    for _, classes in KNOWN_SETS.values():
        assert len(classes.colors) in (0, classes.num) and IGNORED in classes.ignored
