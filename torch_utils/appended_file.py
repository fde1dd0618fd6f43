# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files that grow by records, each whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class AppendedFile:
    """A file that records are appended to, made if missing.

    Raises:
        OSError: here and in `append`, e.g. since the disk is full; names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "a+b", buffering=0)

    def append(self, record: bytes) -> None:
        """Adds a record; one that does not fit is taken back."""
        size = os.fstat(self._file.fileno()).st_size
        data = memoryview(record)
        try:
            while data:  # a disk about to be full takes a part
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # a device, not a file
                self._file.truncate(size)
            message = f"cannot write the log ({error.strerror or error})"
            raise OSError(error.errno, message, str(self.path)) from error

    def cut_half_line(self) -> None:
        """Drops what follows the last line end: half a line, as a power cut leaves it."""
        if self.path.is_file():
            self._file.seek(0)
            data = self._file.read()
            if not data.endswith(b"\n"):
                self._file.truncate(data.rfind(b"\n") + 1)

    def close(self) -> None:
        self._file.close()
