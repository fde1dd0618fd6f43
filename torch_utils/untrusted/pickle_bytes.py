# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The bytes of a pickle that nobody trusts; a length that lies takes no memory."""

from __future__ import annotations

import re
import struct

MAX_DIGITS = 64  # of a number in decimal: reading n digits takes a time of n^2
SMALL = 1024  # bytes, up to which a part of a memoryview is copied
DIGITS = "digits"  # the form of a number that is written in decimal, as a line

_NEWLINE = re.compile(b"\n")


class InertPickleError(ValueError):
    """A pickle that is damaged, or asks for more than it may; `name` of what it asked for, if it was that."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class Source:
    """Reads bytes one part after the other.

    Args:
        data: bytes, or a memoryview, such as one of a mapped file, of which long parts stay views.
    """

    def __init__(self, data: bytes | memoryview, position: int = 0) -> None:
        self.data, self.position = data, position

    def take(self, size: int) -> bytes | memoryview:
        """The next `size` bytes."""
        end = self.position + size
        if not self.position <= end <= len(self.data):
            raise InertPickleError("it ends in the middle")
        part = self.data[self.position : end]
        self.position = end
        return part if size > SMALL else bytes(part)

    def line(self, most: int | None = None) -> bytes | memoryview:
        """Up to the next newline, which is taken away; of `most` bytes."""
        end = len(self.data) if most is None else self.position + most + 1
        newline = _NEWLINE.search(self.data, self.position, end)
        if newline is None:
            raise InertPickleError("it ends in the middle of a line, or the line is too long")
        return self.take(newline.end() - self.position)[:-1]

    def number(self, form: str) -> int | float:
        """A number in a form of `struct`, or DIGITS."""
        if form == DIGITS:
            return int(self.line(MAX_DIGITS))
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]
