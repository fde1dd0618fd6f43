# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr stylemix`: images with the styles of others, as a table."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.options.layer_sets import LAYERS, find_layers
from ggdr.scripts.options.network import (
    SEEDS,
    batch_option,
    check_class,
    class_option,
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
    "--rows", "row_seeds", metavar="LIST", type=SEEDS, default="0-3", help="Seeds of the images that are changed."
)
@click.option(
    "--cols", "column_seeds", metavar="LIST", type=SEEDS, default="4-9", help="Seeds that styles are taken from."
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
@class_option
@noise_option
@size_option(96)
@batch_option(16)
@device_option
@ops_option
def main(
    network: Path,
    out: Path,
    row_seeds: list[int],
    column_seeds: list[int],
    layer_sets: list[str | list[int]],
    truncation_psi: float,
    truncation_cutoff: int | None,
    class_idx: int | None,
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
    check_class(network, G, class_idx)
    check_cutoff(network, G, truncation_cutoff)
    panels = find_layers(network, G.synthesis, layer_sets)
    make_folder(out.parent, "--out")
    prepare_ops(ops, torch_device)

    from ggdr.scripts.viewing.renderer import Renderer
    from ggdr.scripts.viewing.style_tables import render_style_tables
    from ggdr.torch_utils.pictures.images import save_image

    renderer = Renderer(G, class_idx, truncation_psi, truncation_cutoff, noise_mode, batch_size)
    with writing_images(out, batch_size, "--out"), progress_bars() as progress:
        sheet = render_style_tables(renderer, row_seeds, column_seeds, panels, size=size, progress=progress)
        save_image(sheet, out)
    say(f"{len(panels)} {'tables' if len(panels) > 1 else 'table'} written to {out}")
