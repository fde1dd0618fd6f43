# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The bytes of a pickle that nobody trusts, and bounds on what reading them may cost."""

from __future__ import annotations

import mmap

MAX_OPCODES = 300_000  # published networks of 1024x1024 need about 40,000
MAX_INT_DIGITS = 64  # of numbers that are written as text
SMALL = 1024  # bytes, up to which data is copied; the rest stays a view of the file


class InertPickleError(ValueError):
    """A pickle that is damaged, or holds something else than networks; `name` of what was refused, if any."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class Budget:
    """Counts what a file makes its reader do, so that a small file cannot ask for much."""

    def __init__(self, file_size: int) -> None:
        # In a sound file each byte belongs to one tensor at most: it is copied as bytes (from text, in old protocols),
        # as a storage, and as a tensor.
        self.bytes, self.opcodes = 3 * file_size, MAX_OPCODES

    def take(self, num_bytes: int) -> None:
        """For copies of the file's content."""
        self.bytes -= num_bytes
        if self.bytes < 0:
            raise InertPickleError("its tensors are more than the file holds")

    def step(self) -> None:
        self.opcodes -= 1
        if self.opcodes < 0:
            raise InertPickleError(f"it has more than {MAX_OPCODES} instructions")


class Source:
    """The file as pickletools reads it; a lying length gives what is there, and no memory is set aside for it."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data, self._view, self._position = data, memoryview(data), 0

    def read(self, count: int) -> bytes | memoryview:
        part = self._view[self._position : self._position + max(count, 0)]
        self._position += len(part)
        return bytes(part) if len(part) <= SMALL else part

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._position) + 1
        start, self._position = self._position, end or len(self._data)
        # Reading a decimal number of n digits takes a time of n^2.
        if self._position - start > MAX_INT_DIGITS and self._data[start - 1 : start] in (b"I", b"L"):
            raise InertPickleError(f"a number of more than {MAX_INT_DIGITS} digits at byte {start}")
        return self._data[start : self._position]

    def tell(self) -> int:
        return self._position
