# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options and DEST of the commands that make a set of images, a zip or a folder."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import MAX_WORKERS, bad_parameter
from ggdr.torch_utils.data.archives import DRAWN
from ggdr.torch_utils.data.image_files import IMAGE_SUFFIXES

MOST_BROKEN = 20  # files that are named

max_images_option = click.option(
    "--max-images",
    type=WholeNumber(min=1),
    metavar="N",
    help="Take N images, spread evenly over the source.  [default: all]",
)
convert_workers_option = click.option(
    "--workers",
    type=WholeNumber(1, MAX_WORKERS),
    metavar="N",
    help="Processes that convert. The result does not depend on it.  [default: number of CPUs]",
)
skip_broken_option = click.option(
    "--skip-broken",
    is_flag=True,
    help="Leave out, and name, files that cannot be read as images, in place of stopping.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace DEST if it exists.")


def check_destination(source: str, dest: Path, *, overwrite: bool, ours: str, kind: str) -> None:
    """Refuses a DEST that exists, or that --overwrite must not replace.

    Args:
        ours: pattern of what the command puts at the top of a folder.
        kind: what it makes, as "dataset".

    Raises:
        BadParameter: with the reason.
    """
    if source not in DRAWN and dest.exists() and Path(source).exists() and dest.samefile(source):
        raise bad_parameter("is SOURCE itself", "DEST")
    if source not in DRAWN and Path(source).is_dir() and Path(source).resolve() in dest.resolve().parents:
        raise bad_parameter(f"{dest} lies inside SOURCE, and would be read with it next time", "DEST")
    if dest.suffix.lower() in (*IMAGE_SUFFIXES, ".tar", ".gz", ".tgz", ".npz"):
        raise bad_parameter(f"{dest}: expected a name ending in .zip, or that of a folder", "DEST")
    if not (dest.exists() or dest.is_symlink()):
        return
    if not overwrite:
        raise bad_parameter(f"{dest} exists; give --overwrite to replace it", "DEST")
    if dest.is_dir() == (dest.suffix.lower() == ".zip"):
        raise bad_parameter(
            f"{dest} is a {'folder' if dest.is_dir() else 'file'} and would be replaced by the other kind; "
            "remove it first",
            "DEST",
        )
    if dest.is_dir():
        foreign = [p.name for p in dest.iterdir() if not re.fullmatch(ours, p.name)]
        if foreign:
            raise bad_parameter(
                f"{dest} holds {foreign[0]}, so it is no {kind} of ours; --overwrite does not delete it", "DEST"
            )


def broken_notes(broken: Sequence[str]) -> Iterator[str]:
    """What to tell of files that --skip-broken left out.

    Args:
        broken: the error of each.
    """
    yield from broken[:MOST_BROKEN]
    if len(broken) > MOST_BROKEN:
        yield f"{len(broken) - MOST_BROKEN} more broken files are left out"


def size_of(dest: Path) -> int:
    """Bytes of all that was written."""
    files = [dest] if dest.is_file() else [path for path in dest.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Make SIGTERM an exception, so that the partial DEST goes away as it does on Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(signum: int, frame: FrameType | None) -> None:
    """Ends the process with the exit code that shells give this signal."""
    sys.exit(128 + signum)
