# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws a contact sheet of every augmentation, and of feature maps warped with their images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ggdr.stylegan2.augment.pipe import PIPES, AugmentConfig, AugmentPipe

TRANSFORMS = (
    "xflip rotate90 xint scale rotate aniso xfrac brightness contrast lumaflip hue saturation imgfilter noise cutout"
)
ROWS = [*TRANSFORMS.split(), "bgc", "bgcfnc"]
LABEL_WIDTH, GAP = 100, 4


def load_images(path: Path, num: int) -> Tensor:
    """[num, 3, H, W] float32 in [-1, 1]: images spread evenly over a zip file."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg")))
        if len(names) < num:
            raise click.BadParameter(f"{path} holds {len(names)} PNG or JPEG images, at least {num} are needed")
        images = []
        for name in names[len(names) // num // 2 :: len(names) // num][:num]:
            with archive.open(name) as file:
                images.append(np.asarray(Image.open(file).convert("RGB")))
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise click.BadParameter(f"{path} holds images of several sizes: {sorted(sizes)}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def make_rows(images: Tensor, num_draws: int, seed: int) -> list[tuple[str, Tensor]]:
    """Rows of the sheet: a label and [1 + num_draws, 3, h, w], the first without augmentation."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for i, name in enumerate(ROWS):
        img = images[i % len(images)].expand(num_draws, -1, -1, -1)
        pipe = AugmentPipe(PIPES[name] if name in PIPES else AugmentConfig(**{name: 1.0}), p=1.0)
        rows.append((name, torch.cat([img[:1], pipe.sample(img, rng)(img)])))
    # Features: the image, averaged over 2x2 and 4x4 pixels.
    for i, p in enumerate((0.3, 1.0)):
        img = images[i].expand(num_draws, -1, -1, -1)
        aug = AugmentPipe(PIPES["bg"], p=p).sample(img, rng)
        rows.append((f"bg, p = {p:g}", torch.cat([img[:1], aug(img)])))
        for factor in (2, 4):
            feat = F.avg_pool2d(img, factor)
            label = f"warp {feat.shape[2]}x{feat.shape[3]}"
            rows.append((label, torch.cat([feat[:1], aug.warp(feat)])))
    return rows


def render(rows: list[tuple[str, Tensor]], cell: int) -> Image.Image:
    """The sheet, each image enlarged to `cell` pixels without smoothing."""
    step = cell + GAP
    sheet = Image.new("RGB", (LABEL_WIDTH + step * len(rows[0][1]), step * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (label, imgs) in enumerate(rows):
        draw.text((4, y * step + cell // 2 - 6), label, fill="black", font_size=14)
        images_u8 = (imgs * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for x, image_u8 in enumerate(images_u8):
            enlarged = Image.fromarray(image_u8).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (LABEL_WIDTH + x * step, y * step))
    return sheet


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, metavar="ZIP")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="PNG")
@click.option("--draws", type=click.IntRange(min=1), default=8, show_default=True, metavar="N")
@click.option("--seed", default=0, show_default=True)
@click.option("--enlarge", type=click.IntRange(min=1), default=3, show_default=True)
def main(data: Path, out: Path, draws: int, seed: int, enlarge: int) -> None:
    """Rows are transforms, with the image as it is on the left; then images with feature maps warped alike.

    \b
    Examples:
      python -m benchmarks.augmentation_sheet --data cifar10.zip --out docs/augmentation.png
      python -m benchmarks.augmentation_sheet --data ffhq256.zip --out sheet.png --draws 4 --enlarge 1
    """
    images = load_images(data, num=4)
    render(make_rows(images, draws, seed), images.shape[3] * enlarge).save(out)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
