# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the commands share that translate images: options, and what their values are checked against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ggdr.scripts.options.network import batch_option, network_option
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, ops_option, prepare_ops
from ggdr.scripts.options.training import seed_option
from ggdr.scripts.options.translation import NamedChoice
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config_base import NOISE_KINDS

if TYPE_CHECKING:
    import torch

    from ggdr.scripts.translating.image_files import Translation
    from ggdr.scripts.translating.inputs import Input
    from ggdr.translation.translator import Translator

MAX_TILE = 2**15
ADVISED_TILES = (2048, 1024, 512, 256)
SMALL = 2**20  # pixels that are translated without asking for memory

noise_option = click.option(
    "--noise",
    type=NamedChoice(NOISE_KINDS),
    help="Of networks that make images of label maps: what has noise of its own, the whole image, each "
    "class, or each pixel.  [default: as in training, image for OASIS and pixel for CC-FPSE]",
)
from_option = click.option("--from", "source", metavar="DOMAIN", help="Domain that the images are of.")
to_option = click.option("--to", "target", metavar="DOMAIN", help="Domain that they become images of.")


def translation_options(command: Callable) -> Callable:
    """--network, --noise, --tile, --overlap, --batch, --seed, --device, --ops."""
    tile = click.option(
        "--tile",
        type=WholeNumber(8, MAX_TILE),
        metavar="PIXELS",
        help="Translate larger images in overlapping tiles of this side, in bounded memory.  [default: whole]",
    )
    overlap = click.option(
        "--overlap",
        type=WholeNumber(0, MAX_TILE),
        metavar="PIXELS",
        help="What tiles have in common, where they are blended.  [default: a quarter of the tile]",
    )
    for option in (
        ops_option,
        device_option,
        seed_option,
        batch_option(1),
        overlap,
        tile,
        noise_option,
        network_option,
    ):
        command = option(command)
    return command


def open_translator(network: Path, device: str, noise: str | None = None) -> Translator:
    """The translator of a snapshot, with that kind of noise.

    Raises:
        click.BadParameter: it cannot be read, is for other than grey and colour images, or has no noise.
    """
    from ggdr.torch_utils.checkpoint import SnapshotError
    from ggdr.translation.snapshot import load_translator
    from ggdr.translation.translator import LayoutTranslator

    try:
        translator = load_translator(network, choose_device(device))
    except (SnapshotError, OSError) as error:
        raise bad_parameter(str(error), "--network") from error
    for source in translator.sources:
        for target in translator.targets(source)[:1]:
            taken, made = translator.channels(source, target)
            if (translator.labels is None and taken not in (1, 3)) or made not in (1, 3):
                text = f"{network} makes {made} channels of {taken}: expected 1 or 3, as images have"
                raise bad_parameter(text, "--network")
    if isinstance(translator, LayoutTranslator):
        translator.noise = noise or translator.noise
    elif noise is not None:
        text = f"{network} is a {translator.model}, which has no noise of this kind: leave it out"
        raise bad_parameter(text, "--noise")
    return translator


def prepare_translator_ops(ops: str | None, device: torch.device) -> None:
    """`prepare_ops` where networks of translators have compiled operations."""
    from ggdr.translation.layers import COMPILED_ON

    if device.type in COMPILED_ON:
        prepare_ops(ops, device)


def check_tiles(translator: Translator, tile: int | None, overlap: int | None) -> tuple[int | None, int]:
    """Tile and overlap; BadParameter if the networks cannot halve the tile, or tiles would not fit together."""
    if tile is None:
        if overlap is not None:
            raise bad_parameter("there are no tiles without --tile", "--overlap")
        return None, 0
    if tile % translator.multiple:
        below = tile // translator.multiple * translator.multiple
        nearest = " or ".join(str(x) for x in (below, below + translator.multiple) if x)
        text = f"the network takes multiples of {translator.multiple} pixels: expected {nearest}, got {tile}"
        raise bad_parameter(text, "--tile")
    if getattr(translator, "noise", None) == "pixel":
        across = "does not go on from tile to tile"
        if click.get_current_context().get_parameter_source("noise") is not ParameterSource.DEFAULT:
            raise bad_parameter(f"noise of each pixel {across}: expected image or class", "--noise")
        text = f"the noise of a {translator.model} is of each pixel unless told otherwise, and {across}"
        raise bad_parameter(f"{text}: give --noise image with it", "--tile")
    if overlap is not None and 2 * overlap > tile:
        raise bad_parameter(f"expected up to half of the tile, {tile // 2}, got {overlap}", "--overlap")
    return tile, tile // 4 if overlap is None else overlap


def check_seeds(translator: Translator, network: Path) -> None:
    """BadParameter if --seeds is given beside --seed, or nothing that the network does depends on seeds."""
    if click.get_current_context().get_parameter_source("seed") is not ParameterSource.DEFAULT:
        raise bad_parameter("and --seed both say what is random; give one of them", "--seeds")
    if not translator.is_random:
        raise bad_parameter(f"{network} has neither dropout nor noise: all seeds give the same", "--seeds")


def check_memory(translation: Translation, inputs: Sequence[Input], directions: Sequence[tuple[str, str]]) -> None:
    """BadParameter if the largest image would take more memory than there is; it names tiles that do not."""
    from ggdr.torch_utils.timing.free_memory import free_bytes
    from ggdr.translation.needed_memory import bytes_per_pixel

    translator = translation.translator

    stills = Counter(each.size for each in inputs if each.is_still)

    def together(i: int) -> int:
        """How many images, frames or tiles go through the network together."""
        is_few = inputs[i].is_still and translation.is_whole(inputs[i].size)
        return min(translation.batch_size, stills[inputs[i].size]) if is_few else translation.batch_size

    def pixels(i: int) -> int:
        """How many of theirs do."""
        width, height = inputs[i].size
        if not translation.is_whole(inputs[i].size):
            width, height = (min(side, translation.tile) for side in (width, height))
        return width * height * together(i)

    largest = max(range(len(inputs)), key=pixels)
    free = free_bytes(translator.device) if pixels(largest) > SMALL else None
    if free is None:
        return
    each = bytes_per_pixel(translator, *directions[largest])
    need = pixels(largest) * each
    if need <= free:
        return
    (width, height), batch, at_once = inputs[largest].size, translation.batch_size, together(largest)
    with_batch = f" with --batch {batch}" if batch > 1 else ""
    fitting = [
        f"--tile {tile} takes about {_gib(tile * tile * batch * each)}{with_batch}"
        for tile in ADVISED_TILES
        if tile % translator.multiple == 0 and 2 * tile * tile * batch * each < free and tile < max(width, height)
    ]
    advice = f"expected smaller tiles: {fitting[0]}" if fitting else "that is not enough for any tile"
    several = f", {at_once} at once," if at_once > 1 else ""
    what = f"{width}x{height} pixels" if translation.is_whole((width, height)) else f"tiles of {translation.tile}"
    text = (
        f"{printable(inputs[largest].where)}: {what}{several} take about {_gib(need)} of memory, and {_gib(free)} are "
        f"free; {advice}"
    )
    raise bad_parameter(text, "--tile")


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
