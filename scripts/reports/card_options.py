# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the commands that write model cards share: options, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.errors import os_error_text
from ggdr.scripts.options.network import ReadBy, seeds_option
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.untrusted.regular_files import open_regular

if TYPE_CHECKING:
    from ggdr.scripts.reports.card_facts import Facts
    from ggdr.torch_utils.checkpoint import Snapshot

MAX_SAMPLES = 256


def repo_name(text: str) -> str:
    """USER/NAME of a model on the hub."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text, flags=re.ASCII):
        raise ValueError(f"expected USER/NAME, got {text!r}")
    return text


def licence_name(text: str) -> str:
    """A licence's identifier."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise ValueError(f"expected an identifier in small letters, such as cc-by-4.0 or mit, got {text!r}")
    return text


_OPTIONS = (
    click.option(
        "--run",
        "run_dir",
        metavar="DIR",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        show_default="the snapshot's folder, if it is a run's",
        help="Folder of the run, for metrics, machine and duration.",
    ),
    click.option("--title", metavar="TEXT", show_default="of the run's folder", help="Heading of the card."),
    click.option(
        "--license",
        "licence",
        metavar="ID",
        type=ReadBy(licence_name),
        show_default="none: the card says so",
        help="Licence of the weights, as model hubs name it: cc-by-4.0, mit, other, ...",
    ),
    click.option(
        "--repo",
        metavar="USER/NAME",
        type=ReadBy(repo_name),
        default="USER/NAME",
        help="Where the model will be, for the code in the card.",
    ),
    seeds_option("0-31"),
)


def card_options(command: Callable) -> Callable:
    """What a card says beyond the facts, and its samples."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def card_parameters() -> set[str]:
    """The names of the parameters of `card_options`."""

    @click.command()
    @card_options
    def command() -> None: ...

    return {param.name for param in command.params}


def read_card_facts(network: Path, run_dir: Path | None) -> tuple[Snapshot, Facts]:
    """The snapshot and all that is known of it; BadParameter if a file cannot be read."""
    from ggdr.scripts.reports.card_facts import read_facts
    from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot

    try:
        snapshot = load_snapshot(network)
        return snapshot, read_facts(snapshot, run_dir)
    except SnapshotError as error:
        raise bad_parameter(str(error), "--network") from error
    except ValueError as error:
        raise bad_parameter(str(error), "--run") from error
    except OSError as error:
        raise bad_parameter(os_error_text(error), "--run") from error


def check_seeds(seeds: Sequence[int]) -> None:
    """BadParameter for more samples than a picture should have."""
    if len(seeds) > MAX_SAMPLES:
        raise bad_parameter(f"expected {MAX_SAMPLES} samples at most, got {len(seeds)}", "--seeds")


def check_place(card: Path) -> None:
    """BadParameter where a text that is no model card would be replaced: the README of a project, say."""
    if not card.is_file():
        return
    with open_regular(card) as file:
        is_card = file.read(3) == b"---"
    if not is_card:
        raise bad_parameter(f"{card} is there and is no model card; move it away, or choose another place", "--out")
