# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws what the variants of a study of translators make of the same test images."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from ggdr.scripts.training.snapshot_files import snapshots_in
from ggdr.torch_utils.data.file_table import evenly_spread
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.torch_utils.pictures.sheets import contact_sheet, thumbnail
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages
from ggdr.translation.data.measured import MeasuredDomain, MeasuredPairs
from ggdr.translation.snapshot import load_translator


def inputs_of(data: Path, num: int, size: int, *, has_pairs: bool) -> list[np.ndarray]:
    """Test images, evenly spread, uint8 [num, 3, size, size]; of pairs inputs and targets, else of the first domain."""
    if not has_pairs:
        domain = MeasuredDomain(UnpairedImages(data, split="test"), CropConfig(size), 0)
        return [domain.read(evenly_spread(domain.num, num))["A"]]
    pairs = MeasuredPairs(PairedImages(data, split="test"), CropConfig(size))
    return list(pairs.read(evenly_spread(pairs.num, num)).values())


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--variants", metavar="A,B,...", required=True, help="Which, in this order.")
@click.option("--seed", default=0, show_default=True)
@click.option("--num", default=6, show_default=True, help="Images.")
@click.option("--size", default=32, show_default=True, help="Side of the images in pixels.")
@click.option("--out", metavar="FILE", required=True, type=click.Path(path_type=Path))
def main(study: Path, data: Path, variants: str, seed: int, num: int, size: int, out: Path) -> None:
    """STUDY is a folder of `ggdr compare --command "translate train"`, DATA what it trained on."""
    names = variants.split(",")
    translators = [load_translator(snapshots_in(study / name / f"seed{seed}")[-1]) for name in names]
    first = translators[0]
    inputs, *targets = inputs_of(data, num, size, has_pairs=not first.returns)
    images = from_u8(torch.from_numpy(inputs))
    source, target = first.domains[:2]
    columns = [inputs, *(to_u8(each(images, source, target)).numpy() for each in translators), *targets]
    heads = ["input", *names, *["target" for _ in targets]]
    cells = [[thumbnail(image.transpose(1, 2, 0)) for image in row] for row in zip(*columns, strict=True)]
    Image.fromarray(contact_sheet(cells, columns=heads)).save(out)


if __name__ == "__main__":
    main()
