# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What colouring grey images without a network comes to: left grey, in the mean colour, and the real images."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.paired import colourfulness, highest_psnr, psnr, ssim
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.measured import MeasuredPairs

BATCH = 500


def read(data: Path, split: str, size: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a split: uint8 [N, 3, size, size] each."""
    pairs = MeasuredPairs(PairedImages(data, split=split), CropConfig(size))
    parts = [pairs.read(range(i, min(i + BATCH, pairs.num))) for i in range(0, pairs.num, BATCH)]
    a, b = (torch.from_numpy(np.concatenate([part[side] for part in parts])) for side in "AB")
    return a, b


def mean_colour(grey: Tensor, colour: Tensor) -> Tensor:
    """What the colours of images lie above their grey, the mean over pixels: float32 [3, 1, 1]."""
    return (colour.float() - grey.float()).mean(dim=(0, 2, 3))[:, None, None]


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=32, show_default=True, help="Side of the images in pixels.")
def main(data: Path, size: int) -> None:
    """Prints a table of the test pairs of DATA, which `ggdr translate pairs --task colorize --test` made.

    The mean colour is that of the training pairs.
    """
    shift = mean_colour(*read(data, "train", size))
    grey, real = read(data, "test", size)
    tinted = (grey.float() + shift).round().clamp(0, 255).to(torch.uint8)
    click.echo("| images | psnr | ssim | colourfulness |\n| --- | --- | --- | --- |")
    for name, images in (("grey, as given", grey), ("in the mean colour", tinted), ("real", real)):
        # Equal images, which are grey ones, count as in the metric.
        nearness = (psnr(images, real).clamp(max=highest_psnr(3 * size * size)), ssim(images, real))
        cells = [f"{values.mean().item():.3g}" if images is not real else "" for values in nearness]
        click.echo(f"| {name} | {' | '.join(cells)} | {colourfulness(images).mean().item():.3g} |")


if __name__ == "__main__":
    main()
