# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Maps of classes beside the images that they are of, as a sheet; and scores of them, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from torch import Tensor

from ggdr.clusters import resized_labels
from ggdr.scripts.viewing.cluster_sheets import PER_LINE
from ggdr.scripts.viewing.segmentation_scores import CLUSTERED, SCORES, Judged
from ggdr.torch_utils.data.label_maps import LabelClasses, class_colors
from ggdr.torch_utils.pictures.sheets import as_rgb, contact_sheet, thumbnail
from ggdr.translation.label_maps import color_label_maps

MOST_NAMES = 40  # of classes, below a sheet
TITLES = {"miou": "mIoU", "ari": "ARI", "ami": "AMI"}


@dataclass(frozen=True)
class Shown:
    """A row of a sheet: images, or maps of classes.

    Attributes:
        name:    beside the row.
        maps:    [N, h, w] integers: classes from 0, IGNORED for none.
        picture: [N, C, H, W] uint8.
    """

    name: str
    maps: Tensor | None = None
    picture: Tensor | None = None


def segmentation_sheet(rows: Sequence[Shown], classes: LabelClasses, title: str) -> np.ndarray:
    """The first images of each row, the first of which shows images; black is no class. [H, W, 3] uint8."""
    size = rows[0].picture.shape[2:]
    cells = []
    for row in rows:
        pictures = row.picture
        if pictures is None:
            maps = resized_labels(row.maps[:PER_LINE].long(), size)
            pictures = color_label_maps(maps[:, None], classes)
        cells.append([thumbnail(as_rgb(x.permute(1, 2, 0).numpy())) for x in pictures[:PER_LINE]])
    note = "Scores are means over all images and repeats. Black: no class, or a cluster that is taken for none."
    colors = map(tuple, class_colors(classes).tolist())
    legend = dict(islice(zip(classes.shown_names, colors, strict=False), MOST_NAMES))
    return contact_sheet(cells, rows=[row.name for row in rows], title=title, note=note, legend=legend)


def score_table(judged: Sequence[Judged]) -> list[str]:
    """Lines of a table with aligned columns: each score's mean, and in brackets its sample standard deviation."""
    head = ["layer", "features", "network", "images", "by", *(f"{TITLES[name]} (sd)" for name in SCORES)]
    table = [head]
    for row in judged:
        numbers = row.numbers()
        by = f"{row.clusters} clusters" if row.method == CLUSTERED else row.method
        cells = [numbers["layer"], row.features, row.network or "-", row.images, by]
        for name in SCORES:
            mean, sd = numbers[name], numbers[f"{name}_sd"]
            cells.append("-" if mean is None else f"{mean:.3f}" + ("" if sd is None else f" ({sd:.3f})"))
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
