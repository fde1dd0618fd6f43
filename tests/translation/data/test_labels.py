# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps: which values are which classes, what is none, and one-hot planes that nothing interpolated."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_maps import (
    IGNORED,
    LabelClasses,
    check_classes,
    class_colors,
    classes_from_json,
    find_classes,
    known_classes,
    numbered_classes,
)
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.loader import TranslationLoader
from ggdr.translation.label_maps import color_label_maps, one_hot, to_input
from tests.dataset_files import encode
from tests.torch_utils.data.conftest import png, write

COLORS = {0: (10, 20, 30), 3: (200, 0, 0), 9: (0, 200, 0)}


def indexed(values, colors=COLORS):
    """A PNG with a palette."""
    img = Image.fromarray(values, "L")
    img.putdata(values.flatten().tolist())
    img = Image.frombytes("P", img.size, values.tobytes())
    table = np.zeros((256, 3), np.uint8)
    for value, color in colors.items():
        table[value] = color
    img.putpalette(table.flatten().tolist())
    return encode(img)


def label_set(path, maps, folder="labels", name="{}", image=None):
    """Label maps in a folder, and images of their sizes that hold the values in red."""
    files = {}
    for i, values in enumerate(maps):
        files[f"{folder}/{name.format(i)}.png"] = values if isinstance(values, bytes) else png(values)
        red = np.zeros((*(image or values.shape), 3), np.uint8)
        if not isinstance(values, bytes):
            red[..., 0] = values
        files[f"images/{name.format(i)}.png"] = png(red)
    return write(path, files)


def files_of(path):
    dataset = PairedImages(path)
    return dataset.container, dataset.input_files()


def random_maps(num=4, values=(0, 3, 9, 255), shape=(20, 24)):
    rng = np.random.default_rng(0)
    return [rng.choice(np.array(values, np.uint8), shape) for _ in range(num)]


# Classes.


def test_values_become_classes_without_gaps():
    classes = LabelClasses((3, 9, 7), (0, 255))
    values = np.array([[3, 9], [7, 0], [255, 3]], np.uint8)
    out = classes.numbers(values, "a.png")
    assert out.dtype == np.uint8 and out.tolist() == [[0, 1], [2, IGNORED], [IGNORED, 0]]
    with pytest.raises(
        DataError, match=r"^a.png: has a pixel of the value 4 and 1 more; expected 3, 7, 9, a class, or 0"
    ):
        classes.numbers(np.array([3, 4, 8, 4], np.uint8), "a.png")
    assert classes.describe() == "3 classes, the values 3, 7, 9; 0, 255 ignored"
    assert numbered_classes(255, ()).numbers(np.arange(255, dtype=np.uint8), "a").tolist() == list(range(255))


def test_the_smallest_values_that_are_not_ignored_are_classes():
    assert numbered_classes(3) == LabelClasses((0, 1, 2), (255,))
    assert numbered_classes(150, (0, 255)).values == tuple(range(1, 151))
    with pytest.raises(ValueError, match="8 bits have 254 values beside those that are ignored, too few for 255"):
        numbered_classes(255, (0, 1))


def test_classes_survive_a_file_and_damaged_ones_are_refused():
    classes = LabelClasses((1, 4), (), ("a", "b"), ("#0000ff", "#ff0000"))
    stored = json.loads(json.dumps(classes.to_json()))
    assert classes_from_json(stored) == classes
    for change, message in (
        ({"values": [1, 1]}, "different"),
        ({"values": [1, 256]}, "from 0 to 255"),
        ({"values": [True, 4]}, "whole numbers"),
        ({"ignored": [4]}, "different"),
        ({"values": []}, "1 to 255 classes, got 0"),
        ({"names": ["a"]}, "2 classes and 1 names"),
        ({"names": ["a" * 101, "b"]}, "100 characters at most"),
        ({"colors": ["red", "blue"]}, "colors of classes"),
        ({"colors": [1, 2]}, "colors of classes"),
        ({"names": "ab"}, "expected colors, ignored, names, values"),
        ({"more": []}, "expected colors, ignored, names, values"),
    ):
        with pytest.raises(ValueError, match=message):
            classes_from_json({**stored, **change})
    with pytest.raises(ValueError, match="got None"):
        classes_from_json(None)


def test_published_sets_are_known_by_their_folders_and_names(tmp_path):
    def known(path):
        dataset = PairedImages(path)
        return known_classes(dataset.pairs.folder, dataset.input_files())

    zeros = [np.zeros((4, 4), np.uint8)]
    ade = known(label_set(tmp_path / "ade", zeros, "annotations", "ADE_train_{}"))
    assert ade.values == tuple(range(1, 151)) and ade.ignored == (0, 255)
    assert known(label_set(tmp_path / "mine", zeros, "annotations")) is None
    assert known(label_set(tmp_path / "labels", zeros)) is None
    assert known(label_set(tmp_path / "coco", zeros, "stuffthingmaps")).num == 182
    start = "train/aachen/aachen_000000_000019"
    files = {f"gtFine/{start}_gtFine_labelIds.png": png(zeros[0])}
    files |= {f"leftImg8bit/{start}_leftImg8bit.png": png(np.zeros((4, 4, 3), np.uint8))}
    cityscapes = known(write(tmp_path / "cityscapes", files))
    assert cityscapes.num == 19 and {*cityscapes.values, *cityscapes.ignored} == {*range(34), 255}
    assert cityscapes.names[13] == "car" and cityscapes.values[13] == 26 and cityscapes.colors[13] == "#00008e"
    assert known_classes(None, files_of(tmp_path / "mine")[1]) is None


def test_the_values_that_occur_are_found_with_their_colours(tmp_path):
    maps = random_maps()
    path = label_set(tmp_path / "set", [indexed(maps[0]), *maps[1:]], image=(20, 24))
    seen = []
    classes = find_classes(*files_of(path), progress=lambda *args: seen.append(args))
    assert classes == LabelClasses((0, 3, 9), (255,), (), ("#0a141e", "#c80000", "#00c800"))
    assert seen == [(i, 4) for i in range(1, 5)]
    assert find_classes(*files_of(path), ()).values == (0, 3, 9, 255)
    # Colours that tell nothing apart are left alone.
    for colors in ({0: (1, 1, 1), 3: (2, 2, 2), 9: (3, 3, 3)}, {0: (9, 0, 0), 3: (9, 0, 0), 9: (8, 0, 0)}):
        path = label_set(tmp_path / f"{len(colors)}{colors[3]}", [indexed(maps[0], colors)], image=(20, 24))
        assert find_classes(*files_of(path)).colors == ()


def test_what_is_no_label_map_is_named(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(DataError, match=r"255 different values in \S+labels/0.png and the others are grey photographs"):
        find_classes(*files_of(label_set(tmp_path / "grey", [grey])))
    with pytest.raises(DataError, match="its label maps hold 255 alone, which is ignored"):
        find_classes(*files_of(label_set(tmp_path / "empty", [np.full((4, 4), 255, np.uint8)])))
    mixed = label_set(
        tmp_path / "mixed", [np.zeros((4, 4), np.uint8), png(np.zeros((4, 4, 3), np.uint8))], image=(4, 4)
    )
    with pytest.raises(DataError, match=r"labels/1.png: has pixel type 'RGB', expected 8-bit L or P"):
        find_classes(*files_of(mixed))
    write(
        mixed,
        {
            "labels/2.jpg": encode(np.zeros((4, 4), np.uint8), "jpeg"),
            "images/2.png": png(np.zeros((4, 4, 3), np.uint8)),
        },
    )
    (mixed / "labels" / "1.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
    with pytest.raises(DataError, match=r"labels/2.jpg: is a JPEG, which does not keep values"):
        find_classes(*files_of(mixed))
    maps = random_maps()
    maps[2][7, 5] = 44
    with pytest.raises(
        DataError, match=r"labels/2.png: has a pixel of the value 44; expected 0, 3, 9, a class, or 255"
    ):
        check_classes(*files_of(label_set(tmp_path / "wrong", maps)), LabelClasses((0, 3, 9)))


# One-hot.


def test_one_hot_has_a_plane_for_each_class_and_nothing_where_pixels_are_ignored():
    numbers = torch.tensor([[[[0, 2], [IGNORED, 1]]]], dtype=torch.uint8)
    planes = one_hot(numbers, 3)
    assert planes.shape == (1, 3, 2, 2) and planes.dtype == torch.float32
    assert planes[0].flatten(1).T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert torch.equal(
        one_hot(torch.full([1, 1, 1, 1], 254, dtype=torch.uint8), 255).argmax(1).flatten(), torch.tensor([254])
    )
    assert torch.equal(to_input(numbers, LabelClasses((4, 5, 6))), planes)
    assert to_input(numbers, None).max() == 1 and to_input(numbers, None).min() == -1


@pytest.mark.parametrize("fit", ["stretch", "cover", "none"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_hold_each_pixels_class_after_resize_crop_and_flip(tmp_path, fit, num_workers):
    rng = np.random.default_rng(0)
    blocks = [
        np.kron(rng.choice(np.array([0, 3, 9, 255], np.uint8), (4, 4)), np.ones((8, 8), np.uint8)) for _ in range(4)
    ]
    classes = LabelClasses((0, 3, 9))
    dataset = PairedImages(label_set(tmp_path / "set", blocks)).with_classes(classes)
    a, b = dataset.sides
    assert (a.planes, b.planes) == (3, 3) and b.classes is None
    assert dataset.fingerprint() == PairedImages(tmp_path / "set").fingerprint()
    loader = TranslationLoader(dataset, CropConfig(24, enlarge=1.3, fit=fit), 2, num_workers=num_workers)
    flat = 0
    for batch in itertools.islice(loader, 6):
        assert batch["A"].shape == (2, 1, 24, 24) and batch["A"].dtype == torch.uint8
        planes = to_input(batch["A"], dataset.sides[0].classes)
        assert set(planes.unique().tolist()) <= {0.0, 1.0}
        # The image holds the values themselves; away from borders they are not blended.
        values = torch.tensor([0, 3, 9, 255])[torch.cat([planes, 1 - planes.sum(1, keepdim=True)], 1).argmax(1)]
        red = batch["B"][:, 0].long()
        highest, lowest = (sign * F.max_pool2d(sign * values[:, None].float(), 7, 1) for sign in (1, -1))
        inside = F.pad(highest == lowest, (3, 3, 3, 3))
        flat += inside.sum().item()
        assert (red[inside[:, 0]] == values[inside[:, 0]]).all()
    assert flat > 100


def test_values_that_are_no_class_are_named_when_they_are_met(tmp_path):
    maps = random_maps(values=(0, 3))
    maps[1][:] = 7
    dataset = PairedImages(label_set(tmp_path / "set", maps)).with_classes(LabelClasses((0, 3)))
    with pytest.raises(DataError, match=r"labels/1.png: has a pixel of the value 7; expected 0, 3, a class, or 255"):
        list(itertools.islice(TranslationLoader(dataset, CropConfig(8), 4, num_workers=0), 2))


def test_pictures_show_label_maps_in_their_colours():
    numbers = torch.tensor([[[[0, 1, IGNORED]]]], dtype=torch.uint8)
    own = LabelClasses((5, 6), colors=("#102030", "#ffee00"))
    shown = color_label_maps(numbers, own)
    assert shown.dtype == torch.uint8 and shown[0, :, 0].T.tolist() == [[16, 32, 48], [255, 238, 0], [0, 0, 0]]
    many = class_colors(numbered_classes(182))
    assert many.shape == (183, 3) and len(np.unique(many, axis=0)) == 183
    few = class_colors(numbered_classes(8)).astype(int)
    assert (few[:8] == many[:8]).all(), "a class has its colour whatever their number is"
    assert np.abs(few[:, None] - few).sum(2)[~np.eye(9, dtype=bool)].min() > 60


def test_a_set_of_label_maps_is_read_from_a_zip(tmp_path):
    path = label_set(tmp_path / "set.zip", random_maps())
    dataset = PairedImages(path)
    assert find_classes(dataset.container, dataset.input_files()).values == (0, 3, 9)
    assert Container(path).image_files() and dataset.pairs.folder == "labels"
