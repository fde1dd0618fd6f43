# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr directions`: directions in W that change images in one way, as sheets and as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ggdr.scripts.options.labels import AskedLabel, choose_label, label_option
from ggdr.scripts.options.latents import latents_option
from ggdr.scripts.options.layer_sets import LAYERS, find_layers, spans
from ggdr.scripts.options.network import (
    batch_option,
    make_folder,
    network_option,
    open_generator,
    outdir_option,
    trunc_option,
    writing_images,
)
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import (
    bad_parameter,
    choose_device,
    device_option,
    ops_option,
    prepare_ops,
)
from ggdr.scripts.options.pictures import noise_option, size_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say

if TYPE_CHECKING:
    from ggdr.stylegan2 import Generator
    from ggdr.stylegan2.latent.w_directions import Directions

EXAMPLES = """\b
Examples:
  ggdr directions --network network-snapshot-000100.safetensors --method sefa --layers coarse --outdir out
  ggdr directions --network cifar.safetensors --class 3 --method pca --num 20 --seeds 0-5 --outdir cats
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@outdir_option
@click.option(
    "--method",
    type=click.Choice(["sefa", "pca"]),
    default="sefa",
    help="sefa: what changes the styles of --layers most, from their weights. pca: where W itself varies most.",
)
@click.option(
    "--num",
    metavar="K",
    type=WholeNumber(min=1),
    show_default="8, or all of --use",
    help="Directions, the strongest first.",
)
@click.option(
    "--layers",
    "layer_sets",
    metavar="coarse|middle|fine|all|LIST",
    type=LAYERS,
    show_default="all, or those of --use",
    help="Layers that sefa looks at and that move, by name or number, e.g. coarse,middle or 0-2,5.",
)
@click.option("--samples", metavar="N", type=WholeNumber(min=2), default=20000, help="Latents to measure W with.")
@click.option(
    "--use",
    "directions_file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Show the directions of a file, directions.safetensors of an earlier run, in place of finding some.",
)
@latents_option("0-3")
@click.option(
    "--strength",
    metavar="SD",
    type=FiniteFloat(min=0, min_open=True),
    default=3.0,
    help="How far to either side, in standard deviations of W along the direction.",
)
@click.option("--steps", metavar="N", type=WholeNumber(min=2), default=7, help="Images from side to side.")
@trunc_option
@label_option
@noise_option
@size_option(96)
@batch_option(16)
@device_option
@ops_option
def main(
    network: Path,
    outdir: Path,
    method: str,
    num: int | None,
    layer_sets: list[str | list[int]] | None,
    samples: int,
    directions_file: Path | None,
    listed: list[int | Path],
    strength: float,
    steps: int,
    truncation_psi: float,
    asked_label: AskedLabel,
    noise_mode: str,
    size: int,
    batch_size: int,
    device: str,
    ops: str | None,
) -> None:
    """Find directions in W that change images in one way.

    Writes direction00.png and so on, one for each direction with a row for each seed; overview.png, all directions
    at the first seed; and directions.safetensors, to use them elsewhere. The same network gives the same directions
    with the same signs, whatever the seeds.
    """
    torch_device = choose_device(device)
    G = open_generator(network, torch_device)
    label = choose_label(network, G, asked_label)
    found = find_layers(network, G.synthesis, layer_sets or [])
    layers = sorted({layer for indices in found.values() for layer in indices})
    if directions_file is None:
        layers, num = layers or list(range(G.num_ws)), num or 8
        _check_num(G, method, num, layers, samples)
    else:
        _check_nothing_is_to_be_found()
        directions = _read(directions_file, network, G, layers, num)

    from ggdr.scripts.viewing.direction_sheets import save_direction_sheets
    from ggdr.scripts.viewing.latents import read_latents
    from ggdr.scripts.viewing.renderer import Renderer
    from ggdr.stylegan2.latent.w_directions import find_directions, save_directions

    latents = read_latents(listed, network, G)
    make_folder(outdir)
    prepare_ops(ops, torch_device)
    renderer = Renderer(G, label, truncation_psi, noise_mode=noise_mode, batch_size=batch_size)
    with writing_images(outdir, batch_size), progress_bars() as progress:
        if directions_file is None:
            directions = find_directions(G, method, layers, num=num, num_samples=samples, label=label)
            save_directions(outdir / "directions.safetensors", directions)
        how = {"strength": strength, "steps": steps, "size": size, "progress": progress}
        save_direction_sheets(renderer, directions, latents, outdir, **how)
    say(f"{len(directions.vectors)} directions written to {outdir}")


def _check_num(G: Generator, method: str, num: int, layers: list[int], samples: int) -> None:
    """BadParameter for more directions than the method can tell apart."""
    from ggdr.stylegan2.latent.w_directions import max_directions

    most = max_directions(G, method, layers, num_samples=samples)
    if num > most:
        what = f"the styles of layers {spans(layers)}" if method == "sefa" else f"{samples} samples of W"
        raise bad_parameter(f"{what} span {most} directions: expected as many at most, got {num}", "--num")


def _check_nothing_is_to_be_found() -> None:
    """BadParameter for options that say how to find directions, given along with a file of some."""
    ctx = click.get_current_context()
    for name in ("method", "samples"):
        if ctx.get_parameter_source(name) != ParameterSource.DEFAULT:
            raise bad_parameter(f"directions come from a file: expected no --{name} with it", "--use")


def _read(path: Path, network: Path, G: Generator, layers: list[int], num: int | None) -> Directions:
    """The first `num` directions of a file, for other layers if there are any; BadParameter if they do not fit."""
    from ggdr.stylegan2.latent.w_directions import load_directions
    from ggdr.torch_utils.checkpoint import SnapshotError

    try:
        directions = load_directions(path)
    except SnapshotError as error:
        raise bad_parameter(str(error), "--use") from error
    most, w_dim = directions.vectors.shape
    if num is not None and num > most:
        raise bad_parameter(f"{path} holds {most} directions: expected as many at most, got {num}", "--num")
    if w_dim != G.w_dim:
        raise bad_parameter(f"{path} is of a W of {w_dim} numbers, that of {network} has {G.w_dim}", "--use")
    if not layers and max(directions.layers) >= G.num_ws:
        text = f"{path} moves layers {spans(directions.layers)}, {network} has {G.num_ws}: expected --layers as well"
        raise bad_parameter(text, "--use")
    first = {name: getattr(directions, name)[:num] for name in ("vectors", "std", "share")}
    return replace(directions, layers=tuple(layers) or directions.layers, **first)
