# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the commands that look at a snapshot share: options, reading the network, writing the pictures."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import cli_errors, os_error_text, write_error_text
from ggdr.scripts.importing.published import network_name
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.terminal import say
from ggdr.scripts.training.snapshot_files import BEST_FILE, PATTERN, network_of_run

if TYPE_CHECKING:
    import torch

    from ggdr.stylegan2 import Discriminator, Generator

MAX_SEEDS = 1_000_000
MAX_SEED = 2**63 - 1
FOREIGN_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth")  # of networks that `ggdr import-weights` reads


class ReadBy(click.ParamType):
    """A value read from text by a function; its ValueError is the message."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        self.name, self.read = read.__name__, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SnapshotFile(click.Path):
    """A snapshot that is there, or a run folder, of which it takes one and says which.

    Says what to give instead of the files and names that are taken for snapshots.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(self._find(Path(value), param, ctx), param, ctx)
        except OSError as error:
            self.fail(os_error_text(error), param, ctx)

    def _find(self, path: Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The file that is meant."""
        if path.is_dir():
            found = network_of_run(path)
            if found is None:
                self.fail(f"{path}: a folder that holds no {BEST_FILE} and no {PATTERN}", param, ctx)
            if os.environ.get("RANK", "0") == "0":
                say(f"note: {path}: taking {found.name}", err=True)
            return found
        name = network_name(str(path))
        if not path.exists() and name is not None:
            command = shlex.join(["ggdr", "import-weights", name, f"{name}.safetensors"])
            self.fail(f"{path}: no such file; a published network is imported first: {command}", param, ctx)
        if path.name == "training-state.pt":
            self.fail(f"{path}: no snapshot; expected a network-snapshot-*.safetensors of that run", param, ctx)
        if path.exists() and path.suffix in FOREIGN_SUFFIXES:
            command = shlex.join(["ggdr", "import-weights", str(path), f"{path.stem}.safetensors"])
            self.fail(f"{path}: no snapshot; networks of others are imported first: {command}", param, ctx)
        return path


def parse_seeds(text: str) -> list[int]:
    """Seeds of a comma-separated list of numbers and inclusive ranges: "0-2,100,0" is [0, 1, 2, 100, 0].

    Raises:
        ValueError: anything else, a backward range, a seed of 2^63 or more, or over a million seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?", part)
        if match is None:
            raise ValueError(f"expected numbers and ranges, as in 0-63,100; got {part.strip()!r} in {text!r}")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f"expected a range from low to high, got {part.strip()!r} in {text!r}")
        if last > MAX_SEED:
            raise ValueError(f"expected seeds up to {MAX_SEED}, got {last}")
        if len(seeds) + last - first >= MAX_SEEDS:
            raise ValueError(f"expected {MAX_SEEDS} seeds at most, got more in {text!r}")
        seeds += range(first, last + 1)
    return seeds


def parse_grid(text: str) -> tuple[int, int]:
    """Columns and rows of "8x4". Raises ValueError for anything else, or a side below 1."""
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", text.strip().lower())
    if match is None or int(match[1]) < 1 or int(match[2]) < 1:
        raise ValueError(f"expected columns x rows such as 8x8, got {text!r}")
    return int(match[1]), int(match[2])


SEEDS = ReadBy(parse_seeds)
GRID = ReadBy(parse_grid)
SNAPSHOT_FILE = SnapshotFile()

network_option = click.option(
    "--network",
    metavar="FILE|RUN_DIR",
    required=True,
    type=SNAPSHOT_FILE,
    help="Network snapshot, network-snapshot-KKKKKK.safetensors; of a run folder the best one, else the last one.",
)
outdir_option = click.option(
    "--outdir",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pictures, made if missing; pictures of the same name are replaced.",
)
trunc_option = click.option(
    "--trunc",
    "truncation_psi",
    metavar="PSI",
    type=FiniteFloat(),
    default=1.0,
    help="Truncation: w is pulled towards its mean; 1 leaves it, 0 is the mean.",
)


def seeds_option(default: str) -> Callable:
    """--seeds LIST."""
    text = "Numbers and inclusive ranges, e.g. 0-63,100."
    return click.option("--seeds", metavar="LIST", type=SEEDS, help=text, default=default)


def batch_option(default: int) -> Callable:
    """--batch N."""
    text = "Images at once."
    return click.option("--batch", "batch_size", metavar="N", type=WholeNumber(min=1), default=default, help=text)


def open_generator(network: Path, device: torch.device) -> Generator:
    """The averaged generator of a snapshot, on its device; BadParameter if it cannot be read."""
    from ggdr.stylegan2 import load_generator
    from ggdr.torch_utils.checkpoint import SnapshotError

    try:
        return load_generator(network, device=device)
    except (SnapshotError, OSError) as error:
        raise bad_parameter(str(error), "--network") from error


def open_networks(network: Path, device: torch.device) -> tuple[Generator, Discriminator | None]:
    """The averaged generator of a snapshot, and its discriminator if it holds one; BadParameter if unreadable."""
    from ggdr.stylegan2.snapshot import discriminator_of, generator_of
    from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot

    try:
        snapshot = load_snapshot(network)
        G = generator_of(snapshot, device)
        return G, discriminator_of(snapshot, device) if "D" in snapshot.networks else None
    except (SnapshotError, OSError) as error:
        raise bad_parameter(str(error), "--network") from error


def make_folder(outdir: Path, option: str = "--outdir") -> None:
    """Makes the output folder and sees that files can be made in it, before any work is done."""
    from ggdr.torch_utils.atomic_write import check_writable

    try:
        outdir.mkdir(parents=True, exist_ok=True)
        check_writable(outdir)
    except OSError as error:
        raise bad_parameter(f"cannot write to {outdir}: {error.strerror or error}", option) from error


@contextmanager
def writing_images(where: Path, batch_size: int, option: str = "--outdir") -> Iterator[None]:
    """Turns a full disk and a full GPU into messages about the options that mend them."""
    import torch

    with cli_errors():
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            text = f"{batch_size} images at once do not fit the GPU's memory: expected fewer"
            raise bad_parameter(text, "--batch") from error
        except OSError as error:
            raise bad_parameter(write_error_text(where, error), option) from error
