# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate sheet`: images beside what they become in each domain, and beside what comes back."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import cli_errors, write_error_text
from ggdr.scripts.options.network import make_folder
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.pictures import out_option, size_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say
from ggdr.scripts.translating.options import (
    check_memory,
    check_tiles,
    from_option,
    open_translator,
    prepare_translator_ops,
    translation_options,
)

MAX_IMAGES = 100

EXAMPLES = """\b
Examples:
  ggdr translate sheet --network runs/facades plans --out facades.png
  ggdr translate sheet --network runs/seasons --from summer --to winter --to spring photos --out seasons.png
"""


@click.command("sheet", no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@out_option((".png", ".jpg", ".webp"), "The picture to write.")
@click.option(
    "--to", "targets", metavar="DOMAIN", multiple=True, help="Domain to show; may be repeated.  [default: all]"
)
@from_option
@click.option(
    "--most",
    metavar="N",
    type=WholeNumber(1, MAX_IMAGES),
    default=8,
    help="Of more images show as many, evenly spread.",
)
@size_option(128)
@translation_options
def sheet(
    images: tuple[Path, ...],
    network: Path,
    out: Path,
    source: str | None,
    targets: tuple[str, ...],
    most: int,
    size: int,
    noise: str | None,
    tile: int | None,
    overlap: int | None,
    batch_size: int,
    seed: int,
    device: str,
    ops: str | None,
) -> None:
    """Show images and their translations on one sheet.

    Each image stands beside what it becomes in each domain. Of CycleGAN and ComboGAN the row below shows what comes
    back from there. The domain of an image is --from, or the one that its folder is called by.
    """
    translator = open_translator(network, device, noise)
    tile, overlap = check_tiles(translator, tile, overlap)

    from ggdr.scripts.translating.directions import Placed, choose_sheet
    from ggdr.scripts.translating.image_files import Translation
    from ggdr.scripts.translating.inputs import find_inputs
    from ggdr.scripts.translating.sheet_pictures import draw_sheet, shown_of
    from ggdr.torch_utils.pictures.images import save_image

    with cli_errors(), progress_bars() as bars:
        inputs, notes = find_inputs(images, bars, stills=True)
        shown = shown_of(inputs, most)
        placed = [Placed(each.where, each.folder) for each in shown]
        sources, columns = choose_sheet(translator, network, source, targets, placed)
        translation = Translation(translator, seed, tile, overlap, batch_size)
        check_memory(translation, shown, [(each, translator.targets(each)[0]) for each in sources])
    make_folder(out.parent, "--out")
    prepare_translator_ops(ops, translator.device)
    for note in notes:
        say(f"note: {note}", err=True)
    with cli_errors(), progress_bars() as bars:
        left_out = len(inputs) - len(shown)
        picture = draw_sheet(shown, sources, columns, translation, size=size, left_out=left_out, bars=bars)
        try:
            save_image(picture, out)
        except OSError as error:
            raise bad_parameter(write_error_text(out, error), "--out") from error
    say(f"{len(shown)} of {len(inputs)} images written to {out}")
