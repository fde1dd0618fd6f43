# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws label maps of a dataset, their images, and what networks make of the maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.file_table import evenly_spread
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.pictures.sheets import contact_sheet, thumbnail
from ggdr.translation.label_maps import color_label_maps, to_input
from ggdr.translation.snapshot import load_translator
from ggdr.translation.translator import Translator


def layouts_sheet(dataset: ImageDataset, translators: Mapping[str, Translator], rows: int) -> np.ndarray:
    """[H, W, 3] uint8: rows of label maps, evenly spread over the dataset, and a column for each network.

    Raises:
        ValueError: a network takes other classes than the dataset has.
    """
    classes, chosen = dataset.label_classes, evenly_spread(len(dataset), rows)
    for name, translator in translators.items():
        if translator.labels != classes:
            raise ValueError(f"{name}: expected a network that takes the classes of the dataset, got another one")
    maps = torch.from_numpy(dataset.label_maps(chosen))
    layout = to_input(maps, classes)
    columns = {
        "label map": color_label_maps(maps, classes),
        "image": torch.from_numpy(dataset.images_u8(chosen)),
        **{name: to_u8(translator(layout)) for name, translator in translators.items()},
    }
    cells = [[thumbnail(x.permute(1, 2, 0).numpy()) for x in row] for row in zip(*columns.values(), strict=True)]
    return contact_sheet(cells, columns=list(columns), gap=2)


@click.command()
@click.option("--data", type=click.Path(exists=True), required=True, metavar="ZIP|DIR")
@click.option("--network", "networks", nargs=2, multiple=True, required=True, metavar="NAME FILE")
@click.option("--rows", type=click.IntRange(1), default=6, show_default=True, metavar="N")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="PNG|WEBP")
def main(data: str, networks: tuple[tuple[str, str], ...], rows: int, out: Path) -> None:
    """Label maps, their images, and what networks make of them, in columns.

    \b
    Example:
      python -m benchmarks.layouts_sheet --data shapes.zip --network OASIS runs/oasis/network-best.safetensors \\
          --network CC-FPSE runs/cc-fpse/network-best.safetensors --out docs/translation-layouts.webp
    """
    translators = {name: load_translator(path) for name, path in networks}
    try:
        sheet = layouts_sheet(ImageDataset(data, use_label_maps=True), translators, rows)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    Image.fromarray(sheet).save(out, quality=85)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
