# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr generate`: images from a network snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.options.labels import AskedLabel, choose_label, label_option
from ggdr.scripts.options.latents import has_seeds, latents_option
from ggdr.scripts.options.network import (
    GRID,
    batch_option,
    make_folder,
    network_option,
    open_generator,
    outdir_option,
    trunc_option,
    writing_images,
)
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, ops_option, prepare_ops
from ggdr.scripts.options.pictures import check_cutoff, cutoff_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say

EXAMPLES = """\b
Examples:
  ggdr generate --network network-snapshot-000100.safetensors --seeds 0-63 --outdir out --grid 8x8
  ggdr generate --network cifar.safetensors --seeds 0-999 --class 3 --trunc 0.7 --outdir cats
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@latents_option()
@outdir_option
@trunc_option
@cutoff_option
@label_option
@click.option(
    "--noise-mode",
    type=click.Choice(["const", "random", "none"]),
    default="const",
    help="Noise inputs: the network's own, drawn from each seed, or none.",
)
@click.option(
    "--grid",
    "columns_rows",
    metavar="COLSxROWS",
    type=GRID,
    help="Write one picture, grid.FORMAT, instead of one for each seed; e.g. 8x8.",
)
@batch_option(16)
@device_option
@ops_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "jpg", "webp", "npz"]),
    default="png",
    help="npz: one file, images.npz, of images uint8 [N,H,W,C] and seeds, -1 for latents of files. WebP is lossless.",
)
@click.option("--save-w", is_flag=True, help="With --format npz: also w float32 [N,num_ws,w_dim].")
def main(
    network: Path,
    listed: list[int | Path],
    outdir: Path,
    truncation_psi: float,
    truncation_cutoff: int | None,
    asked_label: AskedLabel,
    noise_mode: str,
    columns_rows: tuple[int, int] | None,
    batch_size: int,
    device: str,
    ops: str | None,
    file_format: str,
    save_w: bool,
) -> None:
    """Generate images from a network snapshot.

    Writes seed0000.png and so on, one for each seed, and photo.png for the latent in photo.npz. A seed's latent is
    the same on every device and in every batch.
    """
    if columns_rows is not None:
        columns, rows = columns_rows
        if file_format == "npz":
            raise bad_parameter("a grid is a picture: expected --format png, jpg or webp, got npz", "--grid")
    if save_w and file_format != "npz":
        raise bad_parameter(f"w is stored in npz files: expected --format npz, got {file_format}", "--save-w")

    if noise_mode == "random" and not all(isinstance(item, int) for item in listed):
        raise bad_parameter(
            "is drawn from seeds, and latents of files have none: expected const or none", "--noise-mode"
        )
    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    label = choose_label(network, G, asked_label, needed=has_seeds(listed))
    check_cutoff(network, G, truncation_cutoff)
    if file_format == "jpg" and G.img_channels == 4:
        raise bad_parameter(
            "a JPEG has no alpha and the network makes 4 channels: expected png, webp or npz", "--format"
        )

    from ggdr.scripts.viewing.latents import read_latents
    from ggdr.scripts.viewing.renderer import Renderer
    from ggdr.scripts.viewing.seed_files import draw_batches, save_arrays, save_grid, save_pictures

    if columns_rows is None and file_format != "npz":
        listed = list(dict.fromkeys(listed))  # a seed's picture is one file, however often it is named
    latents = read_latents(listed, network, G)
    if columns_rows is not None and len(latents) > columns * rows:
        raise bad_parameter(f"{columns}x{rows} holds {columns * rows} images, got {len(latents)} seeds", "--grid")
    make_folder(outdir)
    prepare_ops(ops, torch_device)
    batches = draw_batches(Renderer(G, label, truncation_psi, truncation_cutoff, noise_mode, batch_size), latents)
    with writing_images(outdir, batch_size), progress_bars() as bars:

        def progress(done: int) -> None:
            bars("images", done, len(latents))

        if columns_rows is not None:
            written = save_grid(batches, outdir, file_format, *columns_rows, progress=progress)
        elif file_format == "npz":
            written = save_arrays(batches, outdir, with_w=save_w, progress=progress)
        else:
            written = save_pictures(batches, outdir, file_format, progress=progress)
    say(f"{len(latents)} images written to {written}")
