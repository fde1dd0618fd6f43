# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files that grow by records, each whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ggdr.torch_utils.untrusted.regular_files import drop_half_line, open_no_link


class AppendedFile:
    """A file that records are appended to, made if missing.

    Raises:
        OSError: here and in `append`, e.g. since the disk is full, or the file is a link; names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_no_link(path, "a+b", buffering=0)

    @classmethod
    def of_lines(cls, path: Path) -> AppendedFile:
        """A file of lines, without the half line that it may end in, as a power cut leaves it."""
        file = cls(path)
        drop_half_line(file._file, path)
        return file

    def append(self, record: bytes) -> None:
        """Adds a record; one that does not fit is taken back."""
        size = os.fstat(self._file.fileno()).st_size
        data = memoryview(record)
        try:
            while data:  # a disk about to be full takes a part
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # what the first error says matters more
                self._file.truncate(size)
            message = f"cannot be written ({error.strerror or error})"
            raise OSError(error.errno, message, str(self.path)) from error

    def append_line(self, text: str) -> None:
        """Adds a line, or several."""
        self.append(text.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def append_line(path: Path, text: str) -> None:
    """One line more in a file of lines.

    Raises:
        OSError: it cannot be written; the file is as it was, without the half line that it may have ended in.
    """
    with contextlib.closing(AppendedFile.of_lines(path)) as file:
        file.append_line(text)
