# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr interpolate`: a walk between latents, as a video or a sheet."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.options.labels import AskedLabel, choose_label, label_option
from ggdr.scripts.options.latents import HELP, LATENTS, has_seeds
from ggdr.scripts.options.network import (
    GRID,
    batch_option,
    make_folder,
    network_option,
    open_generator,
    trunc_option,
    writing_images,
)
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, ops_option, prepare_ops
from ggdr.scripts.options.pictures import (
    check_cutoff,
    check_fps,
    cutoff_option,
    fps_option,
    noise_option,
    out_option,
    size_option,
)
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say
from ggdr.torch_utils.pictures.animation import ANIMATIONS

KEYS_PER_CELL = 8


EXAMPLES = """\b
Examples:
  ggdr interpolate --network network-snapshot-000100.safetensors --seeds 0-7 --out walk.mp4
  ggdr interpolate --network cifar.safetensors --class 3 --grid 4x3 --frames 45 --trunc 0.7 --out cats.mp4
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@out_option((*ANIMATIONS, ".png"), "Video that plays over and over, .mp4, .gif or .webp; or a sheet of stills, .png.")
@click.option(
    "--seeds",
    "listed",
    metavar="LIST",
    type=LATENTS,
    show_default=f"{KEYS_PER_CELL} for each cell, from 0 up",
    help=f"Key images in order, dealt out to the cells of --grid one by one; one may come back. {HELP}",
)
@click.option("--grid", "columns_rows", metavar="COLSxROWS", type=GRID, default="1x1", help="Walks side by side.")
@click.option(
    "--frames",
    metavar="N",
    type=WholeNumber(min=1),
    show_default="60; of stills 8",
    help="Frames from one key to the next.",
)
@fps_option
@click.option("--loop/--no-loop", "closed", default=True, help="Walk back to the first key, so that no jump shows.")
@click.option(
    "--space",
    type=click.Choice(["w", "z"]),
    default="w",
    help="Where the walk lies: among mapped latents, or on the sphere of z.",
)
@click.option(
    "--curve",
    type=click.Choice(["cubic", "linear"]),
    default="cubic",
    help="Smooth through the keys, or straight from key to key (in Z: along arcs).",
)
@trunc_option
@cutoff_option
@label_option
@noise_option
@size_option(256, sheet=False)
@batch_option(16)
@device_option
@ops_option
def main(
    network: Path,
    out: Path,
    listed: list[int | Path] | None,
    columns_rows: tuple[int, int],
    frames: int | None,
    fps: float,
    closed: bool,
    space: str,
    curve: str,
    truncation_psi: float,
    truncation_cutoff: int | None,
    asked_label: AskedLabel,
    noise_mode: str,
    size: int,
    batch_size: int,
    device: str,
    ops: str | None,
) -> None:
    """Walk between the images of seeds, or of latents in files, as a video.

    Every stretch from key to key takes the same time. The noise inputs stand still, so that only what the
    latents change moves. A video is written while it is generated: an .mp4 of any length needs the same memory.
    """
    columns, rows = columns_rows
    cells = columns * rows
    listed = list(range(KEYS_PER_CELL * cells)) if listed is None else listed
    if space == "z" and not all(isinstance(item, int) for item in listed):
        raise bad_parameter("latents of files lie in W: expected w, got z", "--space")
    still = out.suffix.lower() == ".png"
    if not still:
        check_fps(out, fps)
    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    label = choose_label(network, G, asked_label, needed=has_seeds(listed))
    check_cutoff(network, G, truncation_cutoff)

    from ggdr.scripts.viewing.latents import read_latents
    from ggdr.scripts.viewing.renderer import Renderer
    from ggdr.scripts.viewing.walk_pictures import save_walk_sheet, save_walk_video, walk_between

    keys = read_latents(listed, network, G)
    if len(keys) % cells or len(keys) < 2 * cells:
        walks = "a walk needs" if cells == 1 else f"{columns}x{rows} walks need"
        num = f"{2 * cells} latents or more" if cells == 1 else f"{2 * cells} latents, or {3 * cells}, {4 * cells} ..."
        which = f", of {listed[0] if keys[0].seed is None else keys[0].caption}" if len(keys) == 1 else ""
        raise bad_parameter(f"{walks} {num}, of seeds or files; got {len(keys)}{which}", "--seeds")
    make_folder(out.parent, "--out")
    prepare_ops(ops, torch_device)
    renderer = Renderer(G, label, truncation_psi, truncation_cutoff, noise_mode, batch_size)
    grid = walk_between(renderer, keys, columns=columns, rows=rows, space=space, curve=curve, closed=closed)
    with writing_images(out, batch_size, "--out"), progress_bars() as progress:
        if still:
            save_walk_sheet(grid, out, steps=frames or 8, size=size, progress=progress)
            say(f"{len(keys)} keys, {frames or 8} steps between two, written to {out}")
        else:
            how = {"size": size, "fps": fps, "progress": progress}
            num = save_walk_video(grid, out, frames_per_key=frames or 60, **how)
            say(f"{num} frames, {num / fps:.1f} s, written to {out}")
