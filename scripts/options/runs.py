# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the commands that look at run folders share: which runs, and what to call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.errors import CliError, os_error_text
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.terminal import say
from ggdr.torch_utils.pictures.plot_style import COLORS
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from ggdr.scripts.reports.read_run import Run

run_dirs_argument = click.argument(
    "run_dirs", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
label_option = click.option(
    "--label",
    "labels",
    metavar="NAME",
    multiple=True,
    show_default="the folders' names",
    help="What to call each run, in order.",
)


def open_runs(run_dirs: Sequence[Path], labels: Sequence[str]) -> list[Run]:
    """The runs in these folders; BadParameter or CliError if that cannot be."""
    from ggdr.scripts.reports.read_run import read_run

    try:
        names = run_names(run_dirs, labels)
    except ValueError as error:
        raise bad_parameter(str(error), "--label") from error
    if len(names) > len(COLORS):
        message = f"got {len(names)} runs, expected {len(COLORS)} at most, told apart by colour"
        raise bad_parameter(message, "RUN_DIR...")
    try:
        return [read_run(path, name) for path, name in zip(run_dirs, names, strict=True)]
    except ValueError as error:
        raise bad_parameter(str(error), "RUN_DIR...") from error
    except OSError as error:
        raise CliError(os_error_text(error)) from error


def run_names(run_dirs: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """A name for each run: its label; without labels its folder's name, or its whole path where that is ambiguous.

    Raises:
        ValueError: labels that are not as many as runs, or two runs of one name.
    """
    if labels and len(labels) != len(run_dirs):
        raise ValueError(f"got {len(labels)} labels for {len(run_dirs)} runs, expected one each")
    names = list(labels) or [path.resolve().name for path in run_dirs]
    if not labels and len(set(names)) != len(names):
        names = [str(path) for path in run_dirs]
    if len(set(names)) != len(names):
        raise ValueError(f"expected another label for each run, got {names}")
    return names


def show_notes(notes: Iterable[str]) -> None:
    """Says on standard error what readers of a run should know."""
    for note in notes:
        say(f"note: {printable(note, 1000)}", err=True)
