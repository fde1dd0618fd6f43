# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws images of a dataset with their label maps below them, and the colours of the classes."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image

from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.file_table import evenly_spread
from ggdr.torch_utils.data.label_maps import class_colors
from ggdr.torch_utils.pictures.sheets import as_rgb, contact_sheet, thumbnail

MOST_COLORS = 12  # classes in the legend
SWATCH = (24, 64)  # pixels


def label_map_sheet(dataset: ImageDataset, columns: int, rows: int) -> np.ndarray:
    """[H, W, 3] uint8: rows of images, evenly spread over the dataset, with a row of label maps below each."""
    classes = dataset.label_classes
    colors = class_colors(classes)
    chosen = evenly_spread(len(dataset), columns * rows)
    images = [thumbnail(as_rgb(image)) for image in dataset.images_u8(chosen).transpose(0, 2, 3, 1)]
    numbers = np.minimum(dataset.label_maps(chosen)[:, 0], classes.num)
    maps = [thumbnail(colors[each]) for each in numbers]
    cells = []
    for start in range(0, len(chosen), columns):
        cells += [images[start : start + columns], maps[start : start + columns]]
    shown = range(min(classes.num, MOST_COLORS))
    swatches = [np.broadcast_to(colors[i], (*SWATCH, 3)) for i in shown]
    names = [classes.names[i] if classes.names else str(i) for i in shown]
    parts = [contact_sheet(cells, gap=2), contact_sheet([swatches], columns=names, gap=8)]
    width = max(part.shape[1] for part in parts)
    white = [((0, 0), (0, width - part.shape[1]), (0, 0)) for part in parts]
    return np.concatenate([np.pad(part, pad, constant_values=255) for part, pad in zip(parts, white, strict=True)])


@click.command()
@click.option("--data", type=click.Path(exists=True), required=True, metavar="ZIP|DIR")
@click.option("--columns", type=click.IntRange(1), default=10, show_default=True, metavar="N")
@click.option("--rows", type=click.IntRange(1), default=3, show_default=True, metavar="N")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="PNG|WEBP")
def main(data: str, columns: int, rows: int, out: Path) -> None:
    """Rows of images, each with a row of label maps below it.

    \b
    Example:
      python -m benchmarks.label_map_sheet --data datasets/shapes.zip --out docs/shapes.webp
    """
    sheet = label_map_sheet(ImageDataset(data, use_label_maps=True), columns, rows)
    Image.fromarray(sheet).save(out, quality=90, method=6)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
