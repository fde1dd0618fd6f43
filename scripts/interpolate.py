# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr interpolate`: a walk between latents, as a video or a sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.options.network import (
    GRID,
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
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, ops_option, prepare_ops
from ggdr.scripts.options.pictures import (
    check_cutoff,
    check_fps,
    cutoff_option,
    fit_to_sheet,
    fps_option,
    noise_option,
    out_option,
    size_option,
)
from ggdr.scripts.options.progress import progress_bars
from ggdr.torch_utils.pictures.animation import ANIMATIONS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ggdr.stylegan2.latent.walks import Walk

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
    metavar="LIST",
    type=SEEDS,
    show_default=f"{KEYS_PER_CELL} for each cell, from 0 up",
    help="Key images, numbers and inclusive ranges, e.g. 0-7,100; dealt out to the cells of --grid one by one.",
)
@click.option("--grid", "columns_rows", metavar="COLSxROWS", type=GRID, default="1x1", help="Walks side by side.")
@click.option(
    "--frames",
    metavar="N",
    type=click.IntRange(min=1),
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
@class_option
@noise_option
@size_option(256, sheet=False)
@batch_option(16)
@device_option
@ops_option
def main(
    network: Path,
    out: Path,
    seeds: list[int] | None,
    columns_rows: tuple[int, int],
    frames: int | None,
    fps: float,
    closed: bool,
    space: str,
    curve: str,
    truncation_psi: float,
    truncation_cutoff: int | None,
    class_idx: int | None,
    noise_mode: str,
    size: int,
    batch_size: int,
    device: str,
    ops: str | None,
) -> None:
    """Walk between the images of seeds, as a video.

    Every stretch from key to key takes the same time. The noise inputs stand still, so that only what the
    latents change moves. A video is written while it is generated: an .mp4 of any length needs the same memory.
    """
    columns, rows = columns_rows
    cells = columns * rows
    seeds = list(range(KEYS_PER_CELL * cells)) if seeds is None else seeds
    if len(seeds) % cells or len(seeds) < 2 * cells:
        text = f"{columns}x{rows} walks need {2 * cells} seeds, or {3 * cells}, {4 * cells} ..., got {len(seeds)}"
        raise bad_parameter(text, "--seeds")
    still = out.suffix.lower() == ".png"
    if not still:
        check_fps(out, fps)
    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    check_class(network, G, class_idx)
    check_cutoff(network, G, truncation_cutoff)
    make_folder(out.parent, "--out")
    prepare_ops(ops, torch_device)

    from ggdr.stylegan2.latent.sampling import latents_of_seeds, map_latents, pictures
    from ggdr.stylegan2.latent.walks import walk_through

    def to_ws(z: Tensor) -> Tensor:
        cutoff = truncation_cutoff
        return map_latents(G, z, class_idx, truncation_psi=truncation_psi, truncation_cutoff=cutoff)

    keys = latents_of_seeds(seeds, G.z_dim)
    keys = (keys if space == "z" else to_ws(keys)).unflatten(0, (-1, cells))
    walk = walk_through(keys, curve=curve, closed=closed, on_sphere=space == "z")

    def images(t: Tensor) -> Iterator[np.ndarray]:
        """At each of the times, the images of all cells."""
        at_once = max(batch_size // cells, 1)
        for times in t.split(at_once):
            points = walk.at(times).flatten(0, 1).float()
            yield from pictures(
                G, to_ws(points) if space == "z" else points, batch_size=batch_size, noise_mode=noise_mode
            )

    with writing_images(out, batch_size, "--out"):
        if still:
            _save_sheet(walk, images, seeds, columns_rows, frames or 8, size, out)
            click.echo(f"{len(seeds)} keys, {frames or 8} steps between two, written to {out}")
        else:
            num = _save_video(images, walk.times(frames or 60), columns, cells, size, fps, out)
            click.echo(f"{num} frames, {num / fps:.1f} s, written to {out}")


def _save_video(
    images: Callable[[Tensor], Iterator[np.ndarray]],
    t: Tensor,
    columns: int,
    cells: int,
    size: int,
    fps: float,
    out: Path,
) -> int:
    """Writes frames as they come; returns their number."""
    import numpy as np

    from ggdr.torch_utils.pictures.animation import save_animation
    from ggdr.torch_utils.pictures.sheets import as_rgb, enlarged

    def frames() -> Iterator[np.ndarray]:
        stream = (enlarged(as_rgb(image), size) for image in images(t))
        with progress_bars() as progress:
            for i in range(len(t)):
                tiles = list(islice(stream, cells))
                rows = [np.concatenate(tiles[j : j + columns], axis=1) for j in range(0, cells, columns)]
                yield np.concatenate(rows)
                progress("frames", i + 1, len(t))

    return save_animation(frames(), out, fps=fps)


def _save_sheet(
    walk: Walk,
    images: Callable[[Tensor], Iterator[np.ndarray]],
    seeds: list[int],
    columns_rows: tuple[int, int],
    frames: int,
    size: int,
    out: Path,
) -> None:
    """One row from each key to the next, both of them shown; the walks of all cells below each other."""
    import torch

    from ggdr.torch_utils.pictures.images import save_image
    from ggdr.torch_utils.pictures.sheets import contact_sheet

    num_cells = columns_rows[0] * columns_rows[1]
    part = torch.arange(frames + 1, dtype=torch.float64) / frames
    strips: list[list[list[np.ndarray]]] = [[] for _ in range(num_cells)]
    with progress_bars() as progress:
        for segment in range(walk.num_segments):
            flat = [fit_to_sheet(image, size) for image in images(segment + part)]
            for cell, strip in enumerate(strips):
                strip.append(flat[cell::num_cells])
            progress("rows", segment + 1, walk.num_segments)
    keys = [seeds[cell::num_cells] for cell in range(num_cells)]
    rows = [f"{of[i]} to {of[(i + 1) % len(of)]}" for of in keys for i in range(walk.num_segments)]
    save_image(contact_sheet([row for strip in strips for row in strip], rows=rows), out)
