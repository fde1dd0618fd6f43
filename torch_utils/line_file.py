# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files that grow line by line, and whose last line may be half written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ggdr.torch_utils.untrusted.regular_files import drop_half_line, open_no_link


class LineFile:
    """Appends lines, each whole or not at all, to a file that may end in half a line (which is cut off)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_no_link(path, "a+b", buffering=0)
        drop_half_line(self._file, path)

    def write(self, text: str) -> None:
        """Append `text` and a line end."""
        size = os.fstat(self._file.fileno()).st_size
        data = memoryview(text.encode() + b"\n")
        try:
            while data:  # a disk about to be full takes a part
                data = data[self._file.write(data) :]
        except OSError as err:
            with contextlib.suppress(OSError):  # what the first error says matters more
                self._file.truncate(size)
            raise named_write_error(err, str(self.path)) from err

    def close(self) -> None:
        self._file.close()


def append_line(path: Path, text: str) -> None:
    """One line more in a file that may end in half a line.

    Raises:
        OSError: it cannot be written; the file is as it was, without that half line.
    """
    with contextlib.closing(LineFile(path)) as file:
        file.write(text)


def named_write_error(err: OSError, name: str) -> OSError:
    """The same error, naming the file."""
    return OSError(err.errno, f"cannot be written ({err.strerror or err})", name)
