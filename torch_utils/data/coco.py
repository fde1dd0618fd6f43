# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps as annotations of COCO, whose masks are run lengths. Imports no torch.

Source: the data format and mask API of Lin et al. 2014, arXiv:1405.0312, as cocodataset.org describes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def run_lengths(mask: np.ndarray) -> list[int]:
    """Pixels in a row that are not in a mask, then that are, and so on, column by column.

    Args:
        mask: bool [H, W].

    Returns:
        The first is 0 if the first pixel is in the mask; their sum is H * W.
    """
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    ends = np.concatenate([[0] if pixels[0] else [], changes, [pixels.size]]).astype(np.int64)
    return np.diff(ends, prepend=0).tolist()


def run_length_text(lengths: Sequence[int]) -> str:
    """Run lengths as the text that COCO's tools call compressed.

    From the fourth on, each is stored as its difference from the one two before it. A number is split into groups of
    five bits, the lowest first; each is a character from "0" on, with 32 added where more follow. The highest bit of
    the last group is the sign.
    """
    characters = []
    for i, length in enumerate(lengths):
        number, has_more = length - (lengths[i - 2] if i > 2 else 0), True
        while has_more:
            group, number = number & 31, number >> 5
            has_more = number != (-1 if group & 16 else 0)
            characters.append(chr(48 + group + (32 if has_more else 0)))
    return "".join(characters)


def coco_annotations(label_maps: np.ndarray, files: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """The content of a file of annotations, one for each class that an image shows; for JSON.

    Args:
        label_maps: uint8 [N, H, W]; values that have no name are of no class.
        files:      N names of images.
        names:      of the classes, whose ids are from 1 up.
    """
    height, width = label_maps.shape[1:]
    annotations: list[dict[str, Any]] = []
    for i, label_map in enumerate(label_maps):
        for number in range(len(names)):
            mask = label_map == number
            if mask.any():
                annotation = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": number + 1}
                annotations.append({**annotation, **_described(mask)})
    return {
        "images": [{"id": i, "file_name": file, "width": width, "height": height} for i, file in enumerate(files, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": annotations,
    }


def _described(mask: np.ndarray) -> dict[str, Any]:
    """A mask bool [H, W] with at least one pixel, its size, and the box [x, y, width, height] around it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    (top, bottom), (left, right) = ((int(each[0]), int(each[-1]) + 1) for each in (rows, columns))
    return {
        "segmentation": {"size": list(mask.shape), "counts": run_length_text(run_lengths(mask))},
        "area": int(mask.sum()),
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }
