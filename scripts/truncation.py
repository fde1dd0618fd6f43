# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr truncation`: the images of seeds at several strengths of truncation, as a sheet or a video."""

from __future__ import annotations

import math
from pathlib import Path

import click

from ggdr.scripts.options.labels import AskedLabel, choose_label, label_option
from ggdr.scripts.options.latents import has_seeds, latents_option
from ggdr.scripts.options.network import (
    ReadBy,
    batch_option,
    make_folder,
    network_option,
    open_generator,
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

MAX_PSI = 100  # far beyond what a generator makes images of


def parse_psis(text: str) -> list[float]:
    """Numbers of a comma-separated list, each once; ValueError for anything else, or numbers beyond MAX_PSI."""
    psis: dict[float, None] = {}
    for part in text.split(","):
        try:
            psi = float(part)
        except ValueError:
            psi = math.nan
        if not abs(psi) <= MAX_PSI:
            raise ValueError(
                f"expected numbers from {-MAX_PSI} to {MAX_PSI}, as in 0,0.5,1; got {part.strip()!r} in {text!r}"
            )
        psis[psi] = None
    return list(psis)


PSIS = ReadBy(parse_psis)


EXAMPLES = """\b
Examples:
  ggdr truncation --network network-snapshot-000100.safetensors --seeds 0-7 --out psi.png
  ggdr truncation --network cifar.safetensors --class 3 --seeds 0-15 --psis 0,1.2 --out psi.mp4
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@out_option((".png", ".jpg", *ANIMATIONS), "Sheet to write, .png or .jpg; or video of a sweep, .mp4, .gif or .webp.")
@latents_option("0-7")
@click.option(
    "--psis",
    metavar="LIST",
    type=PSIS,
    default="-0.5,0,0.25,0.5,0.7,1,1.5",
    help="Strengths, one column each: 1 is the image itself, 0 the mean image, below 0 its opposite. A video goes "
    "from the lowest to the highest and back.",
)
@cutoff_option
@label_option
@click.option("--frames", metavar="N", type=WholeNumber(min=2), default=180, help="Of a video: frames in all.")
@fps_option
@noise_option
@size_option(96)
@batch_option(16)
@device_option
@ops_option
def main(
    network: Path,
    out: Path,
    listed: list[int | Path],
    psis: list[float],
    truncation_cutoff: int | None,
    asked_label: AskedLabel,
    frames: int,
    fps: float,
    noise_mode: str,
    size: int,
    batch_size: int,
    device: str,
    ops: str | None,
) -> None:
    """Show images at several strengths of truncation.

    Truncation pulls w towards its mean: images become more typical, and more alike. The sheet shows how far that
    helps, and what is lost.
    """
    video = out.suffix.lower() in ANIMATIONS
    if video:
        check_fps(out, fps)
        if len(psis) < 2:
            raise bad_parameter(f"a video needs two strengths to go between, got {psis[0]:g}", "--psis")
    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    label = choose_label(network, G, asked_label, needed=has_seeds(listed))
    check_cutoff(network, G, truncation_cutoff)

    from ggdr.scripts.viewing.latents import read_latents
    from ggdr.scripts.viewing.renderer import Renderer
    from ggdr.scripts.viewing.truncation_pictures import save_truncation_sheet, save_truncation_sweep

    latents = read_latents(listed, network, G)
    make_folder(out.parent, "--out")
    prepare_ops(ops, torch_device)
    renderer = Renderer(G, label, truncation_cutoff=truncation_cutoff, noise_mode=noise_mode, batch_size=batch_size)
    with writing_images(out, batch_size, "--out"), progress_bars() as progress:
        if video:
            how = {"num_frames": frames, "fps": fps, "size": size, "progress": progress}
            num = save_truncation_sweep(renderer, latents, min(psis), max(psis), out, **how)
            say(f"{num} frames, {num / fps:.1f} s, written to {out}")
        else:
            save_truncation_sheet(renderer, latents, psis, out, size=size, progress=progress)
            say(f"{len(latents)} seeds at {len(psis)} strengths written to {out}")
