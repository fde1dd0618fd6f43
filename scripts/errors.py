# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a user sees when something cannot be done: one message, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


class CliError(click.ClickException):
    """A message for the user; the command ends with exit code 2."""

    exit_code = 2


@contextmanager
def cli_errors() -> Iterator[None]:
    """Turns the errors that a user can mend into messages; all others keep their traceback."""
    from torch_utils.checkpoint import SnapshotError
    from torch_utils.image_files import DataError
    from torch_utils.workers import WorkerDied

    try:
        yield
    except (DataError, SnapshotError, WorkerDied) as error:
        raise CliError(str(error)) from error
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise CliError(f"{where}{error.strerror or error}") from error
