# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr generate`: images from a network snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.options.network import (
    GRID,
    batch_option,
    check_class,
    class_option,
    make_folder,
    network_option,
    open_generator,
    outdir_option,
    seeds_option,
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
@seeds_option()
@outdir_option
@trunc_option
@cutoff_option
@class_option
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
    help="npz: one file, images.npz, of images uint8 [N,H,W,C] and seeds. WebP is lossless.",
)
@click.option("--save-w", is_flag=True, help="With --format npz: also w float32 [N,num_ws,w_dim].")
def main(
    network: Path,
    seeds: list[int],
    outdir: Path,
    truncation_psi: float,
    truncation_cutoff: int | None,
    class_idx: int | None,
    noise_mode: str,
    columns_rows: tuple[int, int] | None,
    batch_size: int,
    device: str,
    ops: str | None,
    file_format: str,
    save_w: bool,
) -> None:
    """Generate images from a network snapshot.

    Writes seed0000.png and so on, one for each seed. A seed's latent is the same on every device and in every
    batch.
    """
    if columns_rows is not None:
        columns, rows = columns_rows
        if file_format == "npz":
            raise bad_parameter("a grid is a picture: expected --format png, jpg or webp, got npz", "--grid")
        if len(seeds) > columns * rows:
            text = f"{columns}x{rows} holds {columns * rows} images, got {len(seeds)} seeds"
            raise bad_parameter(text, "--grid")
    if save_w and file_format != "npz":
        raise bad_parameter(f"w is stored in npz files: expected --format npz, got {file_format}", "--save-w")

    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    check_class(network, G, class_idx)
    check_cutoff(network, G, truncation_cutoff)
    if file_format == "jpg" and G.img_channels == 4:
        raise bad_parameter(
            "a JPEG has no alpha and the network makes 4 channels: expected png, webp or npz", "--format"
        )
    make_folder(outdir)
    prepare_ops(ops, torch_device)

    from ggdr.scripts.viewing.seed_files import save_arrays, save_grid, save_pictures
    from ggdr.stylegan2.latent.sampling import generate_images

    batches = generate_images(
        G,
        seeds,
        device=torch_device,
        batch_size=batch_size,
        class_idx=class_idx,
        truncation_psi=truncation_psi,
        truncation_cutoff=truncation_cutoff,
        noise_mode=noise_mode,
    )
    with writing_images(outdir, batch_size), progress_bars() as bars:

        def progress(done: int) -> None:
            bars("images", done, len(seeds))

        if columns_rows is not None:
            written = save_grid(batches, outdir, file_format, *columns_rows, progress=progress)
        elif file_format == "npz":
            written = save_arrays(batches, outdir, with_w=save_w, progress=progress)
        else:
            written = save_pictures(batches, outdir, file_format, progress=progress)
    say(f"{len(seeds)} images written to {written}")
