# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Writing a dataset zip or folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.stored_zip import StoredZip
from ggdr.torch_utils.untrusted.regular_files import open_no_link


@contextmanager
def new_dataset(dest: Path, *, overwrite: bool = False) -> Iterator[Callable[[str, bytes], None]]:
    """A new zip (if the name ends in .zip; nothing in it is compressed) or folder, filled inside the block.

    Until the block ends well it is called .NAME.PID.partial, beside DEST; after any exception that is gone
    and DEST is what it was.

    Args:
        dest:      path to create; missing parent folders are created too.
        overwrite: replace a DEST of the same kind.

    Yields:
        add(name, data), which adds a file; names are relative, with forward slashes.

    Raises:
        DataError: dest exists and overwrite is False.
        OSError:   it cannot be written.
    """
    dest.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = dest.with_name(f".{dest.name}.{os.getpid()}.partial")
    try:
        if dest.suffix.lower() == ".zip":
            with open_no_link(partial, "wb") as file:
                archive = StoredZip(file)
                yield archive.add
                archive.close()
                file.flush()
                os.fsync(file.fileno())
        else:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield lambda name, data: _add_to_folder(partial, name, data)
        _publish(partial, dest, overwrite)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _publish(partial: Path, dest: Path, overwrite: bool) -> None:
    """Give the finished dataset its name."""
    if os.path.lexists(dest) and not overwrite:
        raise DataError(f"{dest}: exists already")
    if not dest.is_dir():
        os.replace(partial, dest)
        return
    replaced = dest.with_name(f".{dest.name}.{os.getpid()}.replaced")
    dest.rename(replaced)
    try:
        partial.rename(dest)
    except OSError:
        replaced.rename(dest)
        raise
    shutil.rmtree(replaced)


def _add_to_folder(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
