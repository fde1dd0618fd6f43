# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Masks as COCO has them: run lengths by hand, and text that a decoder of its own reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ggdr.torch_utils.data.coco import coco_annotations, run_length_text, run_lengths


def decoded(text: str, height: int, width: int) -> np.ndarray:
    """A mask from its text, by the description of the format alone: bool [H, W]."""
    numbers, bits, shift = [], 0, 0
    for character in text:
        group = ord(character) - 48
        assert 0 <= group < 64
        bits |= (group % 32) << shift
        shift += 5
        if group < 32:
            number = bits - (1 << shift) if group & 16 else bits
            numbers.append(number + (numbers[-2] if len(numbers) > 2 else 0))
            bits = shift = 0
    assert shift == 0 and min(numbers) >= 0
    pixels = np.concatenate([np.full(length, i % 2 == 1) for i, length in enumerate(numbers)])
    return pixels.reshape(width, height).T


def test_runs_go_down_the_columns_and_begin_outside_the_mask():
    mask = np.array([[0, 0, 1], [0, 1, 1]], bool)
    assert run_lengths(mask) == [3, 3]
    assert run_lengths(~mask) == [0, 3, 3]
    assert run_lengths(np.ones([2, 3], bool)) == [0, 6] and run_lengths(np.zeros([2, 3], bool)) == [6]


def test_texts_of_small_numbers_are_those_by_hand():
    assert run_length_text([6]) == "6"
    assert run_length_text([0, 15]) == "0?"  # 48 + 15
    assert run_length_text([16]) == "`0"  # bit 16 is a sign, so that another group follows: 48 + 16 + 32, 48
    assert run_length_text([1, 1, 1, 0]) == "111O"  # 0 - 1: all bits of a group, 48 + 31


@pytest.mark.parametrize(
    ("height", "width", "share"),
    [(1, 1, 1.0), (7, 5, 0.5), (40, 33, 0.02), (300, 200, 0.0), (300, 200, 1.0), (128, 128, 0.999)],
)
def test_masks_come_back_from_their_text(height, width, share):
    mask = np.random.default_rng(0).random([height, width]) < share
    lengths = run_lengths(mask)
    assert sum(lengths) == mask.size and (decoded(run_length_text(lengths), height, width) == mask).all()


def test_annotations_have_a_mask_a_box_and_an_area_for_each_class_that_is_seen():
    label_maps = np.full([2, 4, 6], 255, np.uint8)
    label_maps[0, 1:3, 2:6] = 1
    label_maps[1, 0, 0] = 0
    found = json.loads(json.dumps(coco_annotations(label_maps, ["a.png", "b.png"], ["sky", "sea", "land"])))
    assert found["images"][1] == {"id": 2, "file_name": "b.png", "width": 6, "height": 4}
    assert found["categories"] == [{"id": i + 1, "name": name} for i, name in enumerate(["sky", "sea", "land"])]
    first, second = found["annotations"]
    assert (first["id"], first["image_id"], first["category_id"]) == (1, 1, 2)
    assert first["bbox"] == [2, 1, 4, 2] and first["area"] == 8 and first["segmentation"]["size"] == [4, 6]
    assert (decoded(first["segmentation"]["counts"], 4, 6) == (label_maps[0] == 1)).all()
    assert (second["image_id"], second["category_id"], second["bbox"]) == (2, 1, [0, 0, 1, 1])
