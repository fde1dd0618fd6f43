# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that write a sheet or a video of generated images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.pictures.animation import MAX_LOOP_FPS

if TYPE_CHECKING:
    from ggdr.stylegan2 import Generator

LARGEST = 256  # pixels of an image on a sheet


class Picture(click.Path):
    """A file to write, of one of these endings."""

    def __init__(self, endings: tuple[str, ...]) -> None:
        super().__init__(path_type=Path, dir_okay=False)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if Path(value).suffix.lower() not in self.endings:
            *rest, last = self.endings
            self.fail(f"expected a name ending in {', '.join(rest)} or {last}, got {str(value)!r}", param, ctx)
        return super().convert(value, param, ctx)


def out_option(endings: tuple[str, ...], text: str) -> Callable:
    """--out FILE, of one of these endings."""
    return click.option("--out", metavar="FILE", required=True, type=Picture(endings), help=text)


def size_option(default: int, *, sheet: bool = True) -> Callable:
    """--size PIXELS; on sheets `renderer.fit_to_sheet` brings images to it."""
    text = "Enlarge images to about this width, by a whole number"
    text += f"; on sheets, shrink those above {LARGEST} and above this." if sheet else "; larger ones stay as they are."
    return click.option("--size", metavar="PIXELS", type=WholeNumber(min=1), default=default, help=text)


noise_option = click.option(
    "--noise-mode",
    type=click.Choice(["const", "none"]),
    default="const",
    help="Noise inputs, the same in all images: the network's own, or none.",
)
cutoff_option = click.option(
    "--trunc-cutoff",
    "truncation_cutoff",
    metavar="N",
    type=WholeNumber(min=0),
    show_default="all",
    help="Truncate the first N layers' w only.",
)
fps_option = click.option(
    "--fps",
    metavar="N",
    type=FiniteFloat(0.01, 1000),
    default=30.0,
    help="Frames a second; GIF and WebP show 50 at most.",
)


def check_cutoff(network: Path, G: Generator, cutoff: int | None) -> None:
    """BadParameter for a cutoff beyond the layers of the network."""
    if cutoff is not None and cutoff > G.num_ws:
        raise bad_parameter(f"{network} has {G.num_ws} ws: expected 0 to {G.num_ws}, got {cutoff}", "--trunc-cutoff")


def check_fps(out: Path, fps: float) -> None:
    """BadParameter for more frames a second than the kind of file can show."""
    if out.suffix.lower() in (".gif", ".webp") and fps > MAX_LOOP_FPS:
        raise bad_parameter(f"GIF and WebP show {MAX_LOOP_FPS} frames a second at most, got {fps:g}", "--fps")
