# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate apply`: translated images and videos from a network snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import CliError, cli_errors
from ggdr.scripts.options.network import SEEDS, make_folder, outdir_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say
from ggdr.scripts.translating.options import (
    check_memory,
    check_seeds,
    check_tiles,
    from_option,
    open_translator,
    prepare_translator_ops,
    to_option,
    translation_options,
)

EXAMPLES = """\b
Examples:
  ggdr translate apply --network runs/facades plan.png --outdir out
  ggdr translate apply --network runs/layouts --seeds 0-3 --noise class layout.png --outdir out
  ggdr translate apply --network runs/seasons --from summer --to winter photos film.mp4 --outdir winter --format jpg
"""


@click.command("apply", no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@outdir_option
@to_option
@from_option
@click.option(
    "--seeds",
    metavar="LIST",
    type=SEEDS,
    help="Several results of each image, with dropout or noise of these seeds, such as 0-3, in place of --seed; files "
    "are called NAME-seed0 and so on.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "jpg", "webp"]),
    default="png",
    help="Of images. WebP is lossless; a JPEG has no transparency.",
)
@translation_options
def apply(
    images: tuple[Path, ...],
    network: Path,
    outdir: Path,
    source: str | None,
    target: str | None,
    seeds: list[int] | None,
    file_format: str,
    noise: str | None,
    tile: int | None,
    overlap: int | None,
    batch_size: int,
    seed: int,
    device: str,
    ops: str | None,
) -> None:
    """Translate images and videos with a trained network.

    IMAGE is a file, or a folder or zip of images with all below it; a video is given by its name. Each translation
    has the size and the name of its image. Transparency is kept; grey images serve as colour ones. A network that was
    trained on label maps takes such. Videos become MP4 without sound; animated GIF and WebP stay what they are.

    Of two domains --to alone is enough, and pix2pix needs neither. Of more, --from may be left out where images lie in
    folders that are called by their domains.
    """
    translator = open_translator(network, device, noise)
    if seeds is not None:
        check_seeds(translator, network)
    tile, overlap = check_tiles(translator, tile, overlap)

    from ggdr.scripts.translating.directions import Placed, choose_directions
    from ggdr.scripts.translating.image_files import Translation
    from ggdr.scripts.translating.inputs import find_inputs, joined
    from ggdr.scripts.translating.jobs import num_of, plan_jobs, run_jobs
    from ggdr.scripts.viewing.photographs import unread_files

    with cli_errors(), progress_bars() as bars:
        inputs, notes = find_inputs(images, bars)
        placed = [Placed(each.where, each.folder) for each in inputs]
        directions = choose_directions(translator, network, source, target, placed)
        chosen = [seed] if seeds is None else list(dict.fromkeys(seeds))
        jobs = plan_jobs(inputs, directions, outdir, file_format, chosen)
        translation = Translation(translator, seed, tile, overlap, batch_size)
        check_memory(translation, inputs, directions)
    make_folder(outdir)
    prepare_translator_ops(ops, translator.device)
    for note in [*unread_files(images), *notes]:
        say(f"note: {note}", err=True)
    with cli_errors(), progress_bars() as bars:
        outcome = run_jobs(jobs, translation, outdir, bars)
    for note in outcome.notes:
        say(f"note: {note}", err=True)
    if outcome.written:
        say(f"{num_of(outcome.written)} written to {outdir}")
    if outcome.errors:
        errors = list(dict.fromkeys(outcome.errors))  # one for all seeds
        of = f"{len(errors)} of {len(inputs)} files were not translated: " if len(inputs) > 1 else ""
        raise CliError(of + joined(errors))
