# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr stylemix` writes: tables of images with the styles of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.latents import Latent
from ggdr.scripts.viewing.renderer import Renderer
from ggdr.stylegan2.latent.style_mixing import mix_style_table
from ggdr.torch_utils.pictures import sheets


def render_style_tables(
    renderer: Renderer,
    row_latents: Sequence[Latent],
    column_latents: Sequence[Latent],
    layer_sets: Mapping[str, Sequence[int]],
    *,
    size: int,
    progress: Progress,
) -> np.ndarray:
    """A table for each set of layers, by its title, below each other, uint8 [H, W, 3].

    Each table has its sources in the first row and column; a cell is the row's image, with the styles of the column's
    in these layers.
    """
    base, style = renderer.ws_of(row_latents), renderer.ws_of(column_latents)
    tables: dict[str, list[list[np.ndarray]]] = {title: [] for title in layer_sets}
    for i, (title, layers) in enumerate(layer_sets.items()):
        for j, row in enumerate(mix_style_table(base, style, layers)):
            tables[title].append(renderer.render_cells(row, size))
            progress("rows", i * len(base) + j + 1, len(layer_sets) * len(base))
    row_images, column_images = renderer.render_cells(base, size), renderer.render_cells(style, size)
    rows, columns = (["", *(latent.short_name for latent in some)] for some in (row_latents, column_latents))
    parts = []
    for title, table in tables.items():
        cells = [[None, *column_images], *([image, *row] for image, row in zip(row_images, table, strict=True))]
        parts.append(sheets.contact_sheet(cells, rows=rows, columns=columns, title=title[0].upper() + title[1:]))
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in parts]
    )
