# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws two landscapes, and what each task of `ggdr translate pairs` makes of them."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from ggdr.scripts.benches.drawn_images import picture
from ggdr.translation.data.pair_tasks import TASKS, PairTask

SIDE, FINE = 160, 4  # pixels of an image, and how many times as large it is drawn
LABEL_HEIGHT, GAP = 22, 4


def landscape(seed: int) -> np.ndarray:
    """A house with trees under the sun, uint8 [SIDE, SIDE, 3]."""
    rng = np.random.default_rng(seed)
    size = SIDE * FINE
    # Surfaces are not even, so that edges and coarse pixels have something to find.
    canvas = Image.fromarray(picture(size, rng))
    canvas = Image.blend(Image.new("RGB", (size, size), (150, 190, 235)), canvas, 0.12)
    draw = ImageDraw.Draw(canvas, "RGBA")

    def at(*points: float) -> list[float]:
        return [point * size for point in points]

    sun, house = rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.45)
    draw.ellipse(at(sun, 0.08, sun + 0.12, 0.2), (255, 225, 120))
    for x in np.arange(-0.2, 1, 0.3):
        draw.ellipse(at(x, 0.45, x + rng.uniform(0.4, 0.6), 0.9), (90, 125, 110))
    draw.rectangle(at(0, 0.68, 1, 1), (96, 150, 70, 225))
    draw.polygon(at(0.45, 1, 0.75, 1, house + 0.22, 0.76, house + 0.16, 0.76), (190, 170, 130))
    draw.rectangle(at(house, 0.5, house + 0.34, 0.77), (215, 190, 160))
    draw.polygon(at(house - 0.04, 0.5, house + 0.17, 0.33, house + 0.38, 0.5), (165, 65, 50))
    draw.rectangle(at(house + 0.14, 0.62, house + 0.22, 0.77), (110, 70, 45))
    for x in (0.04, 0.25):
        draw.rectangle(at(house + x, 0.56, house + x + 0.06, 0.64), (70, 95, 130))
    for x in (house - 0.13, house + 0.5, house + 0.44):
        top = rng.uniform(0.45, 0.55)
        draw.rectangle(at(x - 0.012, top + 0.1, x + 0.012, 0.82), (95, 65, 40))
        draw.ellipse(at(x - 0.08, top - 0.06, x + 0.08, top + 0.14), (50, 110, 50, 235))
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="PNG")
def main(out: Path) -> None:
    """Columns are what the network is given, by task, and the image that it is to make.

    \b
    Example:
      python -m benchmarks.pair_tasks_sheet --out docs/pairs.png
    """
    step, seeds = SIDE + GAP, (1, 4)
    sheet = Image.new("RGB", (step * (len(TASKS) + 1) - GAP, LABEL_HEIGHT + step * len(seeds) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for x, name in enumerate([*TASKS, "target"]):
        draw.text((x * step + SIDE // 2, LABEL_HEIGHT // 2), name, fill="black", font_size=14, anchor="mm")
    for y, (seed, holes) in enumerate(zip(seeds, ("strokes", "rectangle"), strict=True)):
        b = landscape(seed)
        for x, a in enumerate([*(PairTask(name, holes=holes)(b, number=y) for name in TASKS), b]):
            sheet.paste(Image.fromarray(a).convert("RGB"), (x * step, LABEL_HEIGHT + y * step))
    sheet.save(out, optimize=True)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
