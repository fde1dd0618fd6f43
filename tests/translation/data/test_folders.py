# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Every layout of folders that users have: its domains and pairs, and what is said where something is missing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.image_files import DataError
from ggdr.translation.data.folders import find_domains, find_pairs
from tests.torch_utils.data.conftest import our_files, png, write

IMAGE = png(np.zeros((4, 4, 3), np.uint8))


@pytest.fixture(params=["set", "set.zip"])
def make(request, tmp_path):
    """A function: a container with images of these names and files of other contents."""

    def make(*names, **others):
        files = {name: IMAGE for name in names} | {name: data for name, data in others.items()}
        return Container(write(tmp_path / request.param, files))

    return make


def domains(container, split="train"):
    return {domain.name: list(domain.files.names) for domain in find_domains(container, split)}


def pairs(container, split="train"):
    """[(name of A, name of B)]; [name] of both side by side."""
    found = find_pairs(container, split)
    if found.is_side_by_side:
        return list(found.a.names)
    b = list(found.b.names)
    return [(name, b[int(i)]) for name, i in zip(found.a.names, found.partner, strict=True)]


# Domains.


def test_folders_of_cyclegan(make):
    container = make("trainA/1.jpg", "trainA/2.jpg", "trainB/x/1.png", "testA/3.jpg", "testB/4.jpg")
    assert domains(container) == {"A": ["trainA/1.jpg", "trainA/2.jpg"], "B": ["trainB/x/1.png"]}
    assert domains(container, "test") == {"A": ["testA/3.jpg"], "B": ["testB/4.jpg"]}


def test_folders_of_combogan_come_in_the_order_of_their_numbers(make):
    container = make(*(f"alps/train{i}/a.jpg" for i in range(12)), "alps/test0/a.jpg", "alps/list.txt")
    assert list(domains(container)) == [str(i) for i in range(12)]
    assert domains(container)["10"] == ["alps/train10/a.jpg"]


def test_folders_of_classes(make):
    assert domains(make("cat/1.jpg", "dog/1.jpg", "dog/2.jpg")) == {
        "cat": ["cat/1.jpg"],
        "dog": ["dog/1.jpg", "dog/2.jpg"],
    }


def test_folders_of_classes_in_folders_of_splits(make):
    container = make("afhq/train/cat/1.jpg", "afhq/train/dog/1.jpg", "afhq/val/cat/9.jpg", "afhq/val/dog/9.jpg")
    assert domains(container) == {"cat": ["afhq/train/cat/1.jpg"], "dog": ["afhq/train/dog/1.jpg"]}
    assert domains(container, "val") == {"cat": ["afhq/val/cat/9.jpg"], "dog": ["afhq/val/dog/9.jpg"]}


def test_a_dataset_of_this_project_has_its_classes_as_domains(tmp_path):
    container = Container(write(tmp_path / "set.zip", our_files(classes=["ant", "bee", "cat"])))
    found = domains(container)
    assert {name: len(files) for name, files in found.items()} == {"ant": 4, "bee": 3, "cat": 3}
    assert found["bee"] == [f"00000/img0000000{i}.png" for i in (1, 4, 7)]
    without_names = Container(write(tmp_path / "numbers.zip", our_files()))
    assert list(domains(without_names)) == ["0", "1", "2"]
    with_one_name = Container(write(tmp_path / "one.zip", our_files(classes=["ant"])))
    assert {name: len(files) for name, files in domains(with_one_name).items()} == {"ant": 4, "1": 3, "2": 3}


def refused(container, find, *args):
    with pytest.raises(DataError) as caught:
        find(container, *args)
    message = str(caught.value)
    assert message.startswith(str(container.path)), message
    return message


def test_what_has_no_two_domains_is_told_what_to_have(tmp_path, make):
    only_a = make("trainA/1.jpg", **{"trainB/1.heic": b"x"})
    message = refused(only_a, find_domains)
    assert "only trainA holds images; expected folders trainA and trainB" in message and "1 .heic" in message
    assert "only testA holds images" in refused(
        Container(write(tmp_path / "t", {"testA/1.jpg": IMAGE})), find_domains, "test"
    )
    flat = Container(write(tmp_path / "flat", {"1.jpg": IMAGE}))
    assert re.search(
        r"holds no domains \(expected dataset.json, or from 2 to .* class folders, found 0\)",
        refused(flat, find_domains),
    )
    vectors = Container(write(tmp_path / "v.zip", our_files(labels=[[0.5]] * 10)))
    assert "its labels are numbers, not classes" in refused(vectors, find_domains)
    other = Container(write(tmp_path / "o", {"val/a/1.jpg": IMAGE, "test/a/1.jpg": IMAGE}))
    assert "expected images in a folder train, found test, val" in refused(other, find_domains)


def test_an_empty_domain_is_named(tmp_path):
    files = our_files(labels=[2 * (i % 2) for i in range(10)], classes=["ant", "bee", "cat", "dog"])
    container = Container(write(tmp_path / "set.zip", files))
    assert "bee, dog of its 4 domains hold no images" in refused(container, find_domains)
    one = Container(write(tmp_path / "one.zip", our_files(labels=[0] * 10, classes=["ant"])))
    assert "holds one domain alone, ant" in refused(one, find_domains)


def test_a_folder_without_images_is_named(tmp_path):
    container = Container(write(tmp_path / "set", {"notes.txt": b"x"}))
    for find in (find_domains, find_pairs):
        assert "no images in this folder; 1 file left out" in refused(container, find)


# Pairs.


@pytest.mark.parametrize("folder", ["", "facades/", "facades/train/"])
def test_pairs_side_by_side(make, folder):
    assert pairs(make(f"{folder}1.jpg", f"{folder}2.jpg")) == [f"{folder}1.jpg", f"{folder}2.jpg"]


def test_pairs_side_by_side_of_a_split(make):
    container = make("facades/train/1.jpg", "facades/val/2.jpg", "facades/test/3.jpg")
    assert pairs(container) == ["facades/train/1.jpg"] and pairs(container, "test") == ["facades/test/3.jpg"]


def test_pairs_of_equal_names_in_two_folders(make):
    container = make("trainA/b.png", "trainA/a.png", "trainB/a.jpg", "trainB/b.jpg", "testA/c.png", "testB/c.png")
    assert pairs(container) == [("trainA/a.png", "trainB/a.jpg"), ("trainA/b.png", "trainB/b.jpg")]
    assert pairs(container, "test") == [("testA/c.png", "testB/c.png")]


def test_partners_are_found_by_name_and_not_by_order(make):
    # a.jpg comes before a.k.jpg, a.png after a.k.png.
    found = pairs(make("edges/x/a.jpg", "edges/x/a.k.jpg", "photos/x/a.k.png", "photos/x/a.png"))
    assert found == [("edges/x/a.jpg", "photos/x/a.png"), ("edges/x/a.k.jpg", "photos/x/a.k.png")]


LABELLED = {
    "index maps": ("labels/{0}.png", "images/{0}.jpg", "train/"),
    "index maps of splits": ("{1}labels/{0}.png", "{1}images/{0}.jpg", "train/"),
    "ADE20K": ("annotations/{1}{0}.png", "images/{1}{0}.jpg", "training/"),
    "COCO-Stuff": ("stuffthingmaps/{1}{0}.png", "images/{1}{0}.jpg", "train2017/"),
    "Cityscapes": ("gtFine/{1}city/{0}_gtFine_labelIds.png", "leftImg8bit/{1}city/{0}_leftImg8bit.png", "train/"),
    "CMP facades": ("base/{0}.png", "base/{0}.jpg", ""),
}


@pytest.mark.parametrize("layout", LABELLED)
def test_label_maps_and_their_images(make, layout):
    maps, images, split = LABELLED[layout]
    names = [pattern.format(name, split) for pattern in (maps, images) for name in ("x", "y")]
    others = ["gtFine/train/city/x_gtFine_color.png"] if layout == "Cityscapes" else []
    held_out = [pattern.format("z", "val/") for pattern in (maps, images) if "{1}" in pattern]
    container = make(*names, *held_out, *others)
    found = find_pairs(container)
    assert pairs(container) == list(zip(names[:2], names[2:], strict=True)) and found.labels == {"A"}
    if held_out:
        assert pairs(container, "val") == [tuple(held_out)]


def test_images_and_folders_of_images_alone_are_no_label_maps(make):
    assert find_pairs(make("images/a.png", "photos/a.png")).labels == frozenset()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["A/1.png", "A/2.png", "B/2.png"], "no partner in B for 1 of A; the two images"),
        (
            [*(f"trainA/{i}.png" for i in range(5)), "trainB/4.png", "trainB/x.png"],
            r"no partner in trainB for 0, 1, 2, \.\.\. \(4 in all\) of trainA; none in trainA for x of trainB; the",
        ),
        (["labels/1.png", "images/2.jpg"], "no partner in images for 1 of labels; none in labels for 2 of images"),
        (
            ["gtFine/train/a/1_gtFine_color.png", "leftImg8bit/train/a/1_leftImg8bit.png"],
            "no partner in gtFine for 1 of leftImg8bit",
        ),
        (["1.jpg", "1.png", "2.jpg"], "no partner in the PNGs for 2 of the JPEGs"),
        (["A/1.png", "A/1.jpg", "B/1.png"], "two images of A are called 1"),
        (["trainA/1.png", "testB/1.png"], "expected pairs in trainA and trainB, found images in trainA"),
        (["train0/1.png", "train1/1.png"], "expected pairs in trainA and trainB, found images in train0, train1"),
        (["A/1.png", "B/1.png", "C/1.png"], "side by side in one image, or two folders .* found 3 folders: A, B, C"),
    ],
)
def test_what_is_unpaired_is_named(make, names, message):
    assert re.search(message, refused(make(*names), find_pairs))


def test_jpegs_and_pngs_of_unequal_names_are_side_by_side_each(make):
    assert pairs(make("1.jpg", "2.png")) == ["1.jpg", "2.png"]
