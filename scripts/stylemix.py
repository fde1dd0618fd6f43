# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr stylemix`: images with the styles of others, as a table."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.options.labels import AskedLabel, choose_label, label_option
from ggdr.scripts.options.latents import LATENTS, has_seeds
from ggdr.scripts.options.layer_sets import LAYERS, find_layers
from ggdr.scripts.options.network import (
    batch_option,
    make_folder,
    network_option,
    open_generator,
    trunc_option,
    writing_images,
)
from ggdr.scripts.options.parameters import choose_device, device_option, ops_option, prepare_ops
from ggdr.scripts.options.pictures import (
    check_cutoff,
    cutoff_option,
    noise_option,
    out_option,
    size_option,
)
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say

EXAMPLES = """\b
Examples:
  ggdr stylemix --network network-snapshot-000100.safetensors --rows 0-4 --cols 10-15 --out mix.png
  ggdr stylemix --network cifar.safetensors --class 3 --layers 0-2 --trunc 0.7 --out cats.png
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@out_option((".png", ".jpg", ".webp"), "The picture to write.")
@click.option(
    "--rows",
    "listed_rows",
    metavar="LIST",
    type=LATENTS,
    default="0-3",
    help="Seeds, and latent files (.npz) of `ggdr project` or `ggdr generate --save-w`, whose images are changed.",
)
@click.option(
    "--cols",
    "listed_columns",
    metavar="LIST",
    type=LATENTS,
    default="4-9",
    help="Seeds and latent files that styles are taken from.",
)
@click.option(
    "--layers",
    "layer_sets",
    metavar="coarse|middle|fine|all|LIST",
    type=LAYERS,
    default="coarse,middle,fine",
    help="Layers that take the column's style, by name or number, e.g. 0-2,5. A table for each name, below each "
    "other, and one for all numbers together.",
)
@trunc_option
@cutoff_option
@label_option
@noise_option
@size_option(96)
@batch_option(16)
@device_option
@ops_option
def main(
    network: Path,
    out: Path,
    listed_rows: list[int | Path],
    listed_columns: list[int | Path],
    layer_sets: list[str | list[int]],
    truncation_psi: float,
    truncation_cutoff: int | None,
    asked_label: AskedLabel,
    noise_mode: str,
    size: int,
    batch_size: int,
    device: str,
    ops: str | None,
) -> None:
    """Mix the styles of images, as a table.

    Each row keeps its image but for some layers, which take the style of the column's image. Both stand in the
    margins. Coarse layers (4x4 and 8x8) hold pose and shape, middle ones (16x16, 32x32) parts, fine ones colours;
    smaller networks share their resolutions out, 32x32: 4 and 8, 16, 32.
    """
    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    label = choose_label(network, G, asked_label, needed=has_seeds(listed_rows + listed_columns))
    check_cutoff(network, G, truncation_cutoff)
    panels = find_layers(network, G.synthesis, layer_sets)

    from ggdr.scripts.viewing.latents import read_latents
    from ggdr.scripts.viewing.renderer import Renderer
    from ggdr.scripts.viewing.style_tables import render_style_tables
    from ggdr.torch_utils.pictures.images import save_image

    row_latents = read_latents(listed_rows, network, G, "--rows")
    column_latents = read_latents(listed_columns, network, G, "--cols")
    make_folder(out.parent, "--out")
    prepare_ops(ops, torch_device)
    renderer = Renderer(G, label, truncation_psi, truncation_cutoff, noise_mode, batch_size)
    with writing_images(out, batch_size, "--out"), progress_bars() as progress:
        sheet = render_style_tables(renderer, row_latents, column_latents, panels, size=size, progress=progress)
        save_image(sheet, out)
    say(f"{len(panels)} {'tables' if len(panels) > 1 else 'table'} written to {out}")
