# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr truncation` writes: the images of seeds at several strengths, as a sheet or as a video."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.latents import Latent
from ggdr.scripts.viewing.renderer import Renderer
from ggdr.torch_utils.pictures import animation, sheets
from ggdr.torch_utils.pictures.images import save_image


def render_truncated(renderer: Renderer, ws: Tensor, psi: float, size: int) -> list[np.ndarray]:
    """The images of ws [N, num_ws, w_dim] at one strength, for a contact sheet."""
    return renderer.render_cells(renderer.G.mapping.truncate(ws, psi, renderer.truncation_cutoff), size)


def save_truncation_sheet(
    renderer: Renderer, latents: Sequence[Latent], psis: Sequence[float], out: Path, *, size: int, progress: Progress
) -> None:
    """Rows are latents, columns strengths."""
    ws = renderer.ws_of(latents)
    columns = []
    for psi in psis:
        columns.append(render_truncated(renderer, ws, psi, size))
        progress("columns", len(columns), len(psis))
    cells = [list(row) for row in zip(*columns, strict=True)]
    names = [f"psi {psi:g}" for psi in psis]
    save_image(sheets.contact_sheet(cells, rows=[latent.caption for latent in latents], columns=names), out)


def save_truncation_sweep(
    renderer: Renderer,
    latents: Sequence[Latent],
    low: float,
    high: float,
    out: Path,
    *,
    num_frames: int,
    fps: float,
    size: int,
    progress: Progress,
) -> int:
    """All latents as a block, from the lowest strength to the highest and back; returns the number of frames."""
    ws = renderer.ws_of(latents)
    # Near a square, and without empty cells if there is such a block.
    root = math.ceil(math.sqrt(len(latents)))
    columns = next((k for k in range(root, 2 * root) if len(latents) % k == 0), root)

    def frames() -> Iterator[np.ndarray]:
        for i in range(num_frames):
            # Half a cosine each way: slow at both ends.
            psi = high - (high - low) * (1 + math.cos(2 * math.pi * i / num_frames)) / 2
            images = render_truncated(renderer, ws, psi, size)
            cells = [images[j : j + columns] for j in range(0, len(images), columns)]
            # The note is always wider than the title, whose width changes: all frames must be of one size.
            note = "1: the images, 0: their mean"
            yield sheets.contact_sheet(cells, title=f"psi {psi:+.2f}", note=note)
            progress("frames", i + 1, num_frames)

    return animation.save_animation(frames(), out, fps=fps)
