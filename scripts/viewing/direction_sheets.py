# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr directions` shows: each direction from side to side, and all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ggdr.scripts.options.layer_sets import spans
from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.latents import Latent
from ggdr.scripts.viewing.renderer import Renderer
from ggdr.stylegan2.latent.w_directions import Directions, move
from ggdr.torch_utils.pictures import sheets
from ggdr.torch_utils.pictures.images import save_image

TITLES = {"sefa": "SeFa", "pca": "PCA"}
WHAT_SHARE_IS = {"sefa": "of the style gain", "pca": "of the variance of W"}


def save_direction_sheets(
    renderer: Renderer,
    directions: Directions,
    latents: Sequence[Latent],
    outdir: Path,
    *,
    strength: float,
    steps: int,
    size: int,
    progress: Progress,
) -> None:
    """A sheet for each direction with a row for each latent, and one of all directions at the first.

    Args:
        strength: how far to either side, in standard deviations of W along the direction.
        steps:    images from side to side, 2 at least.
    """
    ws = renderer.ws_of(latents)
    # Not linspace, which may miss 0 by a rounding.
    amounts = strength * (2 * torch.arange(steps) - (steps - 1)) / (steps - 1)
    columns = [f"{amount:+.3g} sd" if amount else "0" for amount in amounts.tolist()]
    method, share_of = TITLES[directions.method], WHAT_SHARE_IS[directions.method]
    overview: list[list[np.ndarray]] = []
    rows: list[str] = []
    for k, (vector, std) in enumerate(zip(directions.vectors, directions.std, strict=True)):
        flat = renderer.render_cells(move(ws, vector, amounts * std, directions.layers).flatten(0, 1), size)
        cells, share = [flat[i : i + steps] for i in range(0, len(flat), steps)], float(directions.share[k])
        overview.append(cells[0])
        rows.append(f"{k}\n{share:.1%}")
        title = f"{method} direction {k}: {share:.1%} {share_of}, sd {std:.2f}"
        sheet = sheets.contact_sheet(cells, rows=[latent.caption for latent in latents], columns=columns, title=title)
        save_image(sheet, outdir / f"direction{k:02d}.png")
        progress("sheets", k + 1, len(directions.vectors))
    first = latents[0].caption if latents[0].seed is None else f"Seed {latents[0].seed}"
    note = (
        f"{first}, layers {spans(directions.layers)}. Percentages: {share_of}. "
        "sd: standard deviation of W along the direction."
    )
    sheet = sheets.contact_sheet(overview, rows=rows, columns=columns, title=f"{method} directions", note=note)
    save_image(sheet, outdir / "overview.png")
