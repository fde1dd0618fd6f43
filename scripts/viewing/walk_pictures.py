# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr interpolate` writes: walks between latents as a video, or as a sheet of stills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.latents import Latent
from ggdr.scripts.viewing.renderer import Renderer, fit_to_sheet
from ggdr.stylegan2.latent.sampling import latents_of_seeds
from ggdr.stylegan2.latent.walks import Walk, walk_through
from ggdr.torch_utils.pictures import animation, sheets
from ggdr.torch_utils.pictures.images import save_image


@dataclass(frozen=True)
class GridWalk:
    """Walks side by side, one for each cell of a grid.

    Attributes:
        walk:    its points are [num_cells, ...]: z, or ws.
        keys:    the latents passed through, dealt out to the cells one by one.
        space:   "z" or "w".
        columns: of the grid.
    """

    renderer: Renderer
    walk: Walk
    keys: Sequence[Latent]
    space: str
    columns: int
    num_cells: int

    def images(self, t: Tensor) -> Iterator[np.ndarray]:
        """At each of the times [n], the images of all cells, [H, W, C] uint8 each."""
        for times in t.split(max(self.renderer.batch_size // self.num_cells, 1)):
            points = self.walk.at(times).flatten(0, 1).float()
            yield from self.renderer.render(self.renderer.map(points) if self.space == "z" else points)


def walk_between(
    renderer: Renderer, keys: Sequence[Latent], *, columns: int, rows: int, space: str, curve: str, closed: bool
) -> GridWalk:
    """Walks through latents, as many for each cell of the grid.

    Args:
        space:  "w": among mapped latents; "z": on the sphere of z, of seeds only.
        curve:  "cubic" or "linear".
        closed: back to the first key.
    """
    num_cells = columns * rows
    if space == "z":
        points = latents_of_seeds([key.seed for key in keys], renderer.G.z_dim)
    else:
        points = renderer.ws_of(keys)
    walk = walk_through(points.unflatten(0, (-1, num_cells)), curve=curve, closed=closed, on_sphere=space == "z")
    return GridWalk(renderer, walk, keys, space, columns, num_cells)


def save_walk_video(
    grid: GridWalk, out: Path, *, frames_per_key: int, size: int, fps: float, progress: Progress
) -> int:
    """Writes frames as they come, each image enlarged to `size` at most; returns their number."""
    t = grid.walk.times(frames_per_key)

    def frames() -> Iterator[np.ndarray]:
        stream = (sheets.enlarged(sheets.as_rgb(image), size) for image in grid.images(t))
        for i in range(len(t)):
            tiles = list(islice(stream, grid.num_cells))
            rows = [np.concatenate(tiles[j : j + grid.columns], axis=1) for j in range(0, len(tiles), grid.columns)]
            yield np.concatenate(rows)
            progress("frames", i + 1, len(t))

    return animation.save_animation(frames(), out, fps=fps)


def save_walk_sheet(grid: GridWalk, out: Path, *, steps: int, size: int, progress: Progress) -> None:
    """One row from each key to the next, both of them shown; the walks of all cells below each other."""
    part = torch.arange(steps + 1, dtype=torch.float64) / steps
    num_segments = grid.walk.num_segments
    strips: list[list[list[np.ndarray]]] = [[] for _ in range(grid.num_cells)]
    for segment in range(num_segments):
        flat = [fit_to_sheet(image, size) for image in grid.images(segment + part)]
        for cell, strip in enumerate(strips):
            strip.append(flat[cell :: grid.num_cells])
        progress("rows", segment + 1, num_segments)
    keys = [[key.short_name for key in grid.keys[cell :: grid.num_cells]] for cell in range(grid.num_cells)]
    rows = [f"{of[i]} to {of[(i + 1) % len(of)]}" for of in keys for i in range(num_segments)]
    save_image(sheets.contact_sheet([row for strip in strips for row in strip], rows=rows), out)
