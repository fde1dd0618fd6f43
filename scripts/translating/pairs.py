# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate pairs`: pairs to train on, made of ordinary images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ggdr.scripts.errors import CliError, write_error_text
from ggdr.scripts.options.destination import (
    broken_notes,
    check_destination,
    convert_workers_option,
    max_images_option,
    overwrite_option,
    sigterm_unwinds,
    size_of,
    skip_broken_option,
)
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.training import seed_option
from ggdr.scripts.options.translation import NamedChoice
from ggdr.scripts.terminal import say
from ggdr.torch_utils.data.archives import DRAWN
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.workers import WorkerDied
from ggdr.translation.data.crops import MAX_SIZE
from ggdr.translation.data.holes import HOLES
from ggdr.translation.data.make_pairs import MadePairs, make_pairs
from ggdr.translation.data.pair_tasks import FACTORS, MIN_SIDE, SIGMAS, TASKS, PairTask

OF_TASKS = {"factor": "superres", "sigma": "edges", "holes": "inpaint"}

EXAMPLES = """\b
Examples:
  ggdr translate pairs --task colorize photos grey_to_colour --size 256
  ggdr translate pairs --task superres --factor 4 cifar10.zip sharper.zip --test 0.1
  ggdr translate train --data grey_to_colour --outdir runs/colour
"""


@click.command("pairs", no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.argument("source", metavar="SOURCE")
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--task",
    type=NamedChoice(TASKS),
    required=True,
    help="What the network is to learn: colours for grey images; images from drawings of their edges; what belongs "
    "into a hole; sharp images from coarse ones.",
)
@click.option(
    "--size",
    type=WholeNumber(MIN_SIDE, MAX_SIZE),
    metavar="PIXELS",
    help="Side of the squares written, cut out of the middle and shrunk.  [default: images as they are]",
)
@max_images_option
@click.option(
    "--test",
    type=FiniteFloat(min=0, max=1, max_open=True),
    default=0.0,
    metavar="FRACTION",
    help="Part of the images, spread evenly, that goes into testA and testB.",
)
@click.option(
    "--factor",
    type=WholeNumber(*FACTORS),
    default=PairTask.factor,
    metavar="N",
    help="superres: the coarse image has an N-th of the pixels along each side, enlarged again.",
)
@click.option(
    "--sigma",
    type=FiniteFloat(*SIGMAS),
    default=PairTask.sigma,
    metavar="PIXELS",
    help="edges: how much the image is smoothed first; larger values leave small things out.",
)
@click.option(
    "--holes", type=NamedChoice(HOLES), default=PairTask.holes, help="inpaint: shape of the hole, filled with magenta."
)
@seed_option
@skip_broken_option
@convert_workers_option
@overwrite_option
@click.pass_context
def pairs(ctx: click.Context, source: str, dest: Path, overwrite: bool, **options: Any) -> None:
    """Make pairs for `ggdr translate train` of ordinary images.

    SOURCE is what `ggdr dataset` takes: a folder of images (also in sub-folders), a zip, a dataset, ... DEST, a zip if
    its name ends in .zip, else a folder, gets trainA with what the network is given and trainB with the images.
    """
    for name, task in OF_TASKS.items():
        if task != options["task"] and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise bad_parameter(f"is for --task {task}, and has no meaning for {options['task']}", f"--{name}")
    if source not in DRAWN and not Path(source).exists():
        raise bad_parameter(f"{source}: no such file or folder", "SOURCE")
    check_destination(source, dest, overwrite=overwrite, ours="(train|test)[AB]", kind="set of pairs")
    started = time.monotonic()
    task = PairTask(options["task"], options["factor"], options["sigma"], options["holes"], options["seed"])
    try:
        with sigterm_unwinds(), progress_bars() as progress:
            made = make_pairs(
                source,
                dest,
                task,
                size=options["size"],
                max_images=options["max_images"],
                test=options["test"],
                skip_broken=options["skip_broken"],
                num_workers=options["workers"],
                overwrite=overwrite,
                progress=lambda done, total: progress("images", done, total),
            )
    except (DataError, WorkerDied) as error:
        raise CliError(f"{error}\n{dest} was not written.") from error
    except OSError as error:
        raise CliError(write_error_text(dest, error)) from error
    for note in _notes(made):
        say(f"note: {note}", err=True)
    num = f"{made.num_train} pairs to train on" + (f" and {made.num_test} to test" if made.num_test else "")
    say(f"{dest}: {num}, {task.name}, {size_of(dest) / 1e6:.1f} MB ({time.monotonic() - started:.1f} s)")


def _notes(made: MadePairs) -> Iterator[str]:
    """What of the source is not in the pairs, or of no use there."""
    yield from broken_notes(made.broken)
    if made.num_equal:
        yield f"{made.num_equal} of {made.num_train + made.num_test} pairs have two equal images"
    if made.left_out:
        yield made.left_out
