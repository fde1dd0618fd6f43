# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The images that metrics of translation take: which split, which crop, and which fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.image_files import DataError
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages
from ggdr.translation.data.folders import held_out_split
from ggdr.translation.data.measured import MeasuredDomain, MeasuredPairs, open_held_out


def make(root, *names, size=(8, 8)):
    """Images whose colour is their number."""
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 2 * i, 255 - i)).save(root / name)
    return root


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["A/0.png", "B/0.png"], "train"),
        (["trainA/0.png", "trainB/0.png"], "train"),
        (["trainA/0.png", "trainB/0.png", "testA/0.png", "testB/0.png"], "test"),
        (["train0/0.png", "train1/0.png", "val0/0.png", "val1/0.png"], "val"),
        (["train/0.png", "val/0.png"], "val"),
        (["train/0.png", "val/0.png", "test/0.png"], "test"),
        (["training/0.png", "validation/0.png"], "val"),
        (["images/train2017/0.jpg", "images/val2017/0.jpg", "labels/train2017/0.png", "labels/val2017/0.png"], "val"),
        (["A/train/0.png", "A/test/0.png", "B/train/0.png", "B/test/0.png"], "train"),
        (["photos/test/0.png", "paintings/0.png"], "train"),
    ],
)
def test_the_split_is_that_which_the_folders_name(tmp_path, names, split):
    assert held_out_split(Container(make(tmp_path, *names))) == split


def test_pairs_of_the_test_split_are_taken(tmp_path):
    make(tmp_path, "trainA/0.png", "trainB/0.png", "testA/1.png", "testB/1.png")
    pairs, split = open_held_out(tmp_path, PairedImages, direction="BtoA")
    assert split == "test" and pairs.first_pair() == ("testB/1.png", "testA/1.png")
    (tmp_path / "testB" / "1.png").unlink()
    make(tmp_path, "testB/2.png")
    with pytest.raises(DataError, match="no partner in testB for 1 of testA"):
        open_held_out(tmp_path, PairedImages)


def test_all_of_an_image_is_measured_and_always_the_same(tmp_path):
    rng = np.random.RandomState(0)
    for side in "AB":
        (tmp_path / side).mkdir()
        for i in range(3):
            pixels = rng.randint(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{i}.png")
    measured = MeasuredPairs(PairedImages(tmp_path), CropConfig(16, enlarge=1.5))
    arrays = measured.read([2, 0])
    for row, i in enumerate((2, 0)):
        for side in "AB":
            pixels = np.asarray(Image.open(tmp_path / side / f"{i}.png"))
            assert (arrays[side][row].transpose(1, 2, 0) == pixels).all()
    assert (measured.side("B").read([1])[0] == measured.read([1])["B"][0]).all()
    prints = {measured.side(side).fingerprint() for side in "AB"}
    prints |= {MeasuredPairs(measured.dataset, CropConfig(12)).side("A").fingerprint()}
    assert len(prints) == 3
    same = MeasuredPairs(PairedImages(tmp_path), CropConfig(16, enlarge=1.1, flip=False))  # what is measured is alike
    assert same.side("A").fingerprint() in prints


def test_a_domain_has_its_own_images_and_number(tmp_path):
    make(tmp_path, "trainA/0.png", "trainB/1.png", "trainB/2.png", "trainB/3.png")
    dataset, split = open_held_out(tmp_path, UnpairedImages)
    a, b = (MeasuredDomain(dataset, CropConfig(8), i) for i in (0, 1))
    assert split == "train" and (a.num, b.num) == (1, 3)
    assert b.images.read([2, 0])[:, 0, 0, 0].tolist() == [3, 1] and a.images.read([0])[0, 0, 0, 0] == 0
    assert a.images.fingerprint() != b.images.fingerprint()
