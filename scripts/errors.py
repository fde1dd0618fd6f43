# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a user sees when something cannot be done: one message, exit code 2, no traceback."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

EXIT_STOPPED = 130  # ended by a signal before its time, all saved; what shells report for Ctrl-C


class CliError(click.ClickException):
    """A message for the user; the command ends with exit code 2."""

    exit_code = 2


class OptionError(ValueError):
    """An option's value cannot be used; `option` is its name on the command line, as "--batch"."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option, self.message = option, message


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or nothing where no name is near."""
    names = list(known)
    begun = [each for each in names if name and each.startswith(name)]  # "import" for "import-weights"
    found = begun or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


@contextmanager
def cli_errors() -> Iterator[None]:
    """Turns the errors that a user can mend into messages; all others keep their traceback."""
    import torch

    from ggdr.torch_utils.checkpoint import SnapshotError
    from ggdr.torch_utils.data.image_files import DataError
    from ggdr.torch_utils.data.workers import WorkerDied
    from ggdr.torch_utils.distributed import LostPeer

    try:
        yield
    except (DataError, LostPeer, SnapshotError, WorkerDied) as error:
        raise CliError(str(error)) from error
    except OptionError as error:
        raise click.BadParameter(error.message, param_hint=f"'{error.option}'") from error
    except torch.OutOfMemoryError as error:
        raise CliError(memory_error_text(error)) from error
    except OSError as error:
        raise CliError(os_error_text(error)) from error


@contextmanager
def metric_errors() -> Iterator[None]:
    """Turns the errors of metrics that a user can mend into messages."""
    from ggdr.metrics.extract import MetricError
    from ggdr.torch_utils.downloads import WeightsError

    with cli_errors():
        try:
            yield
        except (MetricError, WeightsError) as error:
            raise CliError(str(error)) from error


def os_error_text(error: OSError) -> str:
    """The file's name and what is wrong with it."""
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror or error}"


def memory_error_text(error: BaseException) -> str:
    """That a GPU's memory does not suffice, and for how much, if torch's error says so."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    return "not enough GPU memory" + (f" for {found[1]} more" if found else "")


def write_error_text(out: Path, error: OSError) -> str:
    """That a file or folder cannot be written; or what is wrong with the other one that the error names.

    What is written is often read from elsewhere in the same step.
    """
    if isinstance(error.filename, (str, bytes)):
        named, place = Path(os.fsdecode(error.filename)).absolute(), out.absolute()
        above = (named, *named.parents)
        # Files are written under a hidden name beside their own.
        is_partial = any(x.parent == place.parent and x.name.startswith(f".{place.name}.") for x in above)
        if not (is_partial or place in above or named in place.parents):
            return os_error_text(error)
    return f"cannot write to {out}: {error.strerror or error}"


@contextmanager
def first_process_speaks() -> Iterator[None]:
    """For errors that all processes of torchrun are likely to run into alike: the others take one line each."""
    try:
        yield
    except click.ClickException as error:
        rank = os.environ.get("RANK", "0")
        if rank != "0":
            raise CliError(f"process {rank}: {error.format_message()}") from None
        raise
