# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Datasets with label maps: read beside their images, flipped and subset with them, and faults named by file."""

from __future__ import annotations

import json
import pickle
import re
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_map_files import read_classes
from ggdr.torch_utils.data.label_maps import IGNORED, LabelClasses, classes_from_file
from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader
from tests.conftest import ggdr
from tests.torch_utils.data.conftest import IMAGES, name_of, our_files, png, write

NUM = len(IMAGES)
MAPS = np.random.default_rng(1).choice(np.array([0, 1, 2, IGNORED], np.uint8), (NUM, 16, 16))
NAMES = ["sky", "tree", "house"]


def labelled_files(maps=MAPS, classes=None, **changes):
    """Files of a dataset with label maps; `changes` replaces or, with None, removes files by their names."""
    labels = [[f"images/{name_of(i)}", i % 2] for i in range(NUM)]
    files = {f"images/{name_of(i)}": png(image) for i, image in enumerate(IMAGES)}
    files |= {f"labels/{name_of(i)}": png(numbers) for i, numbers in enumerate(maps)}
    files["dataset.json"] = json.dumps({"labels": labels, "classes": ["even", "odd"]}).encode()
    files["classes.json"] = json.dumps({"names": NAMES} if classes is None else classes).encode()
    return {name: data for name, data in {**files, **changes}.items() if data is not None}


@pytest.fixture(params=["set.zip", "set", "below/set.zip"])
def labelled(request, tmp_path):
    (tmp_path / "below").mkdir()
    files = labelled_files()
    if request.param.startswith("below"):
        files = {f"top/{name}": data for name, data in files.items() if name != "dataset.json"}
        files["top/dataset.json"] = b'{"labels": null}'
    return write(tmp_path / request.param, files)


def test_label_maps_come_beside_images_and_are_none_of_them(labelled):
    dataset = ImageDataset(labelled, use_label_maps=True)
    assert len(dataset) == NUM and dataset.num_label_classes == 3 and dataset.label_classes.names == tuple(NAMES)
    assert (dataset.images_u8(range(NUM)) == IMAGES.transpose(0, 3, 1, 2)).all()
    maps = dataset.label_maps(range(NUM))
    assert maps.dtype == np.uint8 and maps.shape == (NUM, 1, 16, 16) and (maps[:, 0] == MAPS).all()
    assert dataset.left_out == ""


def test_labels_of_images_are_read_beside_label_maps(tmp_path):
    dataset = ImageDataset(write(tmp_path / "set.zip", labelled_files()), use_labels=True)
    assert dataset.classes == ["even", "odd"] and dataset.label_counts.tolist() == [5, 5]


def test_label_maps_are_flipped_with_their_images(labelled):
    # In each map, the red of the image.
    maps = IMAGES[..., 0] % 3
    files = labelled_files(maps)
    dataset = ImageDataset(write(labelled.parent / "flips.zip", files), use_label_maps=True, mirror=True)
    every = np.arange(2 * NUM)[::-1]
    for cache_mb in (2048, 0):
        again = ImageDataset(dataset.path, use_label_maps=True, mirror=True, cache_mb=cache_mb)
        for _ in range(2):  # decoded, then kept
            assert (again.images_u8(every)[:, :1] % 3 == again.label_maps(every)).all()
    assert (dataset.label_maps([NUM])[0, 0] == maps[0, :, ::-1]).all()


def test_a_subset_has_the_label_maps_of_its_images(tmp_path):
    files = labelled_files(IMAGES[..., 0] % 3)
    dataset = ImageDataset(write(tmp_path / "set.zip", files), use_label_maps=True, max_images=4, seed=3)
    assert (dataset.images_u8(range(4))[:, :1] % 3 == dataset.label_maps(range(4))).all()


def test_names_of_images_and_label_maps_may_sort_differently(tmp_path):
    files = {"classes.json": b'{"names": ["a", "b"]}'}
    for name, value in (("x", 0), ("x.k", 1)):
        files[f"images/{name}.jpeg"] = png(np.full((8, 8, 3), value, np.uint8))
        files[f"labels/{name}.png"] = png(np.full((8, 8), value, np.uint8))
    dataset = ImageDataset(write(tmp_path / "set", files), use_label_maps=True)
    assert (dataset.images_u8([0, 1])[:, :1] == dataset.label_maps([0, 1])).all()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_label_maps_of_its_images_with_the_same_flip(tmp_path, num_workers):
    path = write(tmp_path / "set.zip", labelled_files(IMAGES[..., 0] % 3))
    dataset = ImageDataset(path, use_label_maps=True, mirror=True, cache_mb=0)
    with closing(iter(ImageLoader(dataset, 4, num_workers=num_workers))) as batches:
        for images_u8, c, label_maps in islice(batches, 6):
            assert label_maps.dtype == torch.uint8 and label_maps.shape == (4, 1, 16, 16) and c.shape == (4, 0)
            assert torch.equal(images_u8[:, :1] % 3, label_maps)


def test_without_use_label_maps_no_label_map_is_decoded(labelled, monkeypatch):
    dataset = ImageDataset(labelled)
    monkeypatch.setattr(dataset, "label_decoder", None)
    with closing(iter(ImageLoader(dataset, 4))) as batches:
        assert len(next(batches)) == 2
    assert dataset.num_label_classes == 3 and not dataset.use_label_maps
    with pytest.raises(DataError, match="was opened without use_label_maps"):
        dataset.label_maps([0])


def test_a_dataset_without_label_maps_says_how_to_make_one(path):
    assert ImageDataset(path).label_classes is None and ImageDataset(path).num_label_classes == 0
    with pytest.raises(DataError, match=r"set(\.zip)?: has no label maps; ggdr dataset makes"):
        ImageDataset(path, use_label_maps=True)


@pytest.mark.parametrize("top", ["", "top/"])
def test_label_maps_without_classes_json_say_that_it_is_missing_and_how_to_make_it(tmp_path, top):
    files = labelled_files(**{"classes.json": None, "dataset.json": None})
    folder = write(tmp_path / "a set", {top + name: data for name, data in files.items()})
    message = "a set: has images/ and labels/, but no classes.json, .*: ggdr dataset '.*a set' NEW.zip"
    with pytest.raises(DataError, match=message):
        ImageDataset(folder, use_label_maps=True)
    ggdr("dataset", folder, tmp_path / "NEW.zip")
    assert ImageDataset(tmp_path / "NEW.zip", use_label_maps=True).num_label_classes == 3


def test_shares_count_pixels_that_have_a_class(tmp_path):
    maps = np.zeros((NUM, 16, 16), np.uint8)
    maps[:, :8], maps[:, 8:12] = 1, IGNORED
    dataset = ImageDataset(write(tmp_path / "set.zip", labelled_files(maps)))
    assert dataset.label_shares().tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    maps[1:] = 2  # of two, the first and the last are looked at
    dataset = ImageDataset(write(tmp_path / "two.zip", labelled_files(maps)))
    assert dataset.label_shares(2).tolist() == pytest.approx([64 / 448, 128 / 448, 256 / 448])


def test_values_of_files_become_classes_by_classes_json(tmp_path):
    stored = {"values": [7, 3], "ignored": [0, 9]}
    maps = np.full((NUM, 16, 16), 7, np.uint8)
    maps[:, 0], maps[:, 1], maps[:, 2] = 3, 0, 9
    dataset = ImageDataset(write(tmp_path / "set.zip", labelled_files(maps, stored)), use_label_maps=True)
    assert dataset.label_maps([0])[0, 0, :4, 0].tolist() == [1, IGNORED, IGNORED, 0]


def test_the_fingerprint_takes_in_label_maps_where_they_are_used(tmp_path):
    def fingerprint(name, files, use=True):
        return ImageDataset(write(tmp_path / name, files), use_label_maps=use).fingerprint()

    changed = MAPS.copy()
    changed[4, 0, 0] = (changed[4, 0, 0] + 1) % 3
    base = fingerprint("a.zip", labelled_files())
    assert base == fingerprint("b.zip", labelled_files())
    others = [
        fingerprint("c.zip", labelled_files(changed)),
        fingerprint("d.zip", labelled_files(classes={"names": NAMES[::-1]})),
        fingerprint("e.zip", labelled_files(), use=False),
    ]
    assert len({base, *others}) == 4
    assert fingerprint("f.zip", labelled_files(changed), use=False) == others[2]


def test_a_copy_in_another_process_has_the_label_maps(labelled):
    dataset = ImageDataset(labelled, use_label_maps=True)
    before = dataset.label_maps(range(NUM))
    assert (pickle.loads(pickle.dumps(dataset)).label_maps(range(NUM)) == before).all()


# Bad input.

LAST = f"labels/{name_of(NUM - 1)}"


def on_opening(path):
    ImageDataset(path)


def on_reading(path):
    ImageDataset(path, use_label_maps=True).label_maps(range(NUM))


@pytest.mark.parametrize(
    "changes, when, message",
    [
        ({LAST: None}, on_opening, "no partner in labels/ for 00000/img00000009 of images/"),
        ({f"images/{name_of(3)}": None, "dataset.json": b'{"labels": null}'}, on_opening, "no partner in images/ for"),
        ({LAST: png(np.zeros((8, 8), np.uint8))}, on_opening, f"{LAST}: is 8x8, expected 16x16 as its image has"),
        ({LAST: png(IMAGES[0])}, on_opening, f"{LAST}: has pixel type 'RGB', expected 8-bit L or P"),
        ({LAST: png(MAPS[0] % 4 + 1)}, on_reading, f"{LAST}: has a pixel of the value 3 and 1 more; expected 0 to 2"),
        ({LAST: png(MAPS[0])[:-30]}, on_reading, f"{LAST}: cannot be decoded"),
        ({"classes.json": b"{"}, on_opening, "classes.json: .*; expected an object such"),
        ({"classes.json": b'{"names": []}'}, on_opening, "classes.json: label maps must have 1 to 255 classes, got 0"),
        ({"classes.json": b'{"clases": ["a"]}'}, on_opening, "classes.json: got {'clases': .*expected an object"),
        ({"classes.json": b'{"names": "ab"}'}, on_opening, "classes.json: got .*expected an object"),
        ({"classes.json": b'{"names": 3}'}, on_opening, "classes.json: .*expected an object"),
    ],
    ids=["no_map", "no_image", "size", "rgb", "value", "cut", "json", "no_class", "key", "text", "number"],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, changes, when, message):
    path = write(tmp_path / "set.zip", labelled_files(**changes))
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + message):
        when(path)


def test_classes_json_may_say_less_than_everything():
    assert classes_from_file(b'{"names": ["a", "b"]}', "x") == LabelClasses((0, 1), (255,), ("a", "b"))
    assert classes_from_file(b'{"values": [4, 255]}', "x") == LabelClasses((4, 255), ())
    colors = ("#ff0000", "#00ff00")
    assert classes_from_file(b'{"colors": ["#ff0000", "#00ff00"]}', "x") == LabelClasses((0, 1), (255,), (), colors)
    full = LabelClasses((5, 2), (0,), ("a", "b"), colors)
    assert classes_from_file(json.dumps(full.to_json()).encode(), "x") == full


def test_a_folder_of_class_names_is_not_taken_for_label_maps(tmp_path):
    """Without images/ and labels/, classes.json is a file like others."""
    path = write(tmp_path / "set.zip", {**our_files(), "classes.json": b'{"names": ["a"]}'})
    assert ImageDataset(path).label_classes is None and len(ImageDataset(path)) == NUM
    assert read_classes(Container(path)).names == ("a",)
