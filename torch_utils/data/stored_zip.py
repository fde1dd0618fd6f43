# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Writes zips whose files are not compressed, as zipfile does too, at six times the cost for a small file."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

_DATE = (1 << 5) | 1  # 1980-01-01, the earliest that a zip can hold, so that equal files make equal zips
_MODE = 0o644 << 16  # readable by all, in Unix' terms
_UNIX = 3
_UTF8 = 0x800  # flag of a name that is not ASCII
_PLAIN, _ZIP64 = 20, 45  # versions of the format, 2.0 and 4.5
_MAX_COUNT, _MAX_OFFSET = 2**16 - 1, 2**31 - 1  # from where on the ZIP64 form is taken

# Version needed, flags, method (0: stored), time, date, CRC, size twice, length of the name, of extra fields.
_FILE = struct.Struct("<5H3L2H")


class StoredZip:
    """A zip written from front to back to an open binary file, byte for byte as zipfile would; `close` completes it.

    Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = file.tell()
        self._directory: list[bytes] = []

    def add(self, name: str, data: bytes) -> None:
        """Appends a file of less than 2 GiB; whether another has this name is not checked."""
        encoded, crc = name.encode(), zlib.crc32(data)
        flags = 0 if name.isascii() else _UTF8
        fields = (flags, 0, 0, _DATE, crc, len(data), len(data), len(encoded))
        self._file.write(b"PK\3\4" + _FILE.pack(_PLAIN, *fields, 0) + encoded)
        self._file.write(data)

        version, offset, extra = _PLAIN, self._offset, b""
        if offset > _MAX_OFFSET:
            version, offset, extra = _ZIP64, 0xFFFFFFFF, struct.pack("<HHQ", 1, 8, offset)
        entry = b"PK\1\2" + bytes([version, _UNIX]) + _FILE.pack(version, *fields, len(extra))
        entry += struct.pack("<3H2L", 0, 0, 0, _MODE, offset) + encoded + extra
        self._directory.append(entry)
        self._offset += 4 + _FILE.size + len(encoded) + len(data)

    def close(self) -> None:
        """Appends the directory; the file stays open."""
        directory = b"".join(self._directory)
        count, size, start = len(self._directory), len(directory), self._offset
        self._file.write(directory)
        if count > _MAX_COUNT or size > _MAX_OFFSET or start > _MAX_OFFSET:
            record = struct.pack("<QHHLL4Q", 44, _ZIP64, _ZIP64, 0, 0, count, count, size, start)
            self._file.write(b"PK\6\6" + record + b"PK\6\7" + struct.pack("<LQL", 0, start + size, 1))
            count, size, start = min(count, 0xFFFF), min(size, 0xFFFFFFFF), min(start, 0xFFFFFFFF)
        self._file.write(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, count, count, size, start, 0))
