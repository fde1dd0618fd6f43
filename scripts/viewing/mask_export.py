# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr clusters --export-masks` writes: images with their clusters as a data set that other tools read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ggdr.clusters import resized_labels
from ggdr.label_images import palette
from ggdr.scripts.viewing.cluster_files import file_name
from ggdr.scripts.viewing.cluster_sheets import NetworkView
from ggdr.torch_utils.data.coco import coco_annotations
from ggdr.torch_utils.data.container import CLASSES_FILE, IMAGES, LABEL_MAPS
from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.label_maps import LabelClasses, hex_colors
from ggdr.torch_utils.data.writer import new_dataset

COCO_FILE = "coco.json"


def export_masks(view: NetworkView, dest: Path) -> str:
    """Writes images/NAME.png, labels/NAME.png, classes.json and coco.json; of the largest layer of the view.

    Args:
        dest: a new folder, or a zip.

    Returns:
        What was written, in a line.

    Raises:
        DataError: dest exists.
        OSError: it cannot be written.
    """
    res = max(view.generator)
    num = int(view.clusters[res].numbers.max()) + 1
    names = tuple(f"cluster {i}" for i in range(num))
    classes = LabelClasses(tuple(range(num)), names=names, colors=tuple(hex_colors(palette(num))))
    colors = np.zeros((256, 3), np.uint8)
    colors[:num] = palette(num)
    # A seed that was given twice is one image.
    picks = {f"{file_name(caption)}.png": i for i, caption in enumerate(view.captions)}
    maps = resized_labels(view.generator[res][list(picks.values())], view.images.shape[1:3]).numpy().astype(np.uint8)
    with new_dataset(dest) as add:
        for (name, i), label_map in zip(picks.items(), maps, strict=True):
            add(IMAGES + name, encode_png(view.images[i].squeeze()))
            add(LABEL_MAPS + name, encode_png(label_map, palette=colors))
        add(CLASSES_FILE, _json(classes.to_json()))
        add(COCO_FILE, _json(coco_annotations(maps, list(picks), names)))
    return f"{len(picks)} images with masks of {num} clusters of the {res}x{res} features written to {dest}"


def _json(content: object) -> bytes:
    return (json.dumps(content) + "\n").encode()
