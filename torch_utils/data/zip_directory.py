# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reads the directory of a zip of millions of files, in less than a third of the time and memory of zipfile."""

from __future__ import annotations

import os
import struct
import zipfile
from array import array
from typing import BinaryIO

import numpy as np

from ggdr.torch_utils.data.file_table import PLACE, FileTable, Names

_END = struct.Struct("<4s4H2LH")  # signature, disks, files twice, bytes and start of the directory, of the comment
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LENGTHS = struct.Struct("<4s24x3H")  # of an entry: signature, lengths of its name, extra fields and comment
_ENTRY = np.dtype(
    [("signature", "S4"), ("versions", "<u2", 2), ("flags", "<u2"), ("method", "<u2"), ("time", "<u2", 2),
     ("crc", "<u4"), ("packed", "<u4"), ("size", "<u4"), ("lengths", "<u2", 3), ("disk", "<u2"),
     ("attributes", "u1", 6), ("offset", "<u4")]
)  # fmt: skip
_UTF8 = 0x800  # flag of a name that is not in the PC's old code page
_ZIP64 = 1  # id of the extra field of large numbers
_AT_ONCE = 2**16  # entries


def read_directory(file: BinaryIO) -> FileTable:
    """The files in a zip; names are separated by forward slashes, whatever the zip has.

    Raises:
        zipfile.BadZipFile: it is no zip, cut or damaged.
        OSError: it cannot be read.

    Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.12, 4.3.14 to 4.3.16, 4.4.17 and 4.5.3.
    """
    data, shift = _directory_bytes(file)
    positions = _positions(data)
    names, places = [], [np.zeros(0, PLACE)]
    for first in range(0, len(positions), _AT_ONCE):
        some = positions[first : first + _AT_ONCE]
        table = np.frombuffer(data, np.uint8)[some[:, None] + np.arange(_ENTRY.itemsize)].view(_ENTRY)[:, 0]
        places.append(_places(data, some, table, shift))
        names.append(Names(_names(data, some, table)))
    return FileTable(Names.joined(names), np.concatenate(places))


def _directory_bytes(file: BinaryIO) -> tuple[bytes, int]:
    """The directory, and how much further back its offsets lie in the file: 0 unless something was put before it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 2**16 - _END.size, 0))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    # A comment behind the record can hold what looks like one.
    while at >= 0 and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") > len(tail):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise zipfile.BadZipFile("it has no directory at its end")
    *_, length, start, _ = _END.unpack_from(tail, at)
    end = size - len(tail) + at

    # Large zips say the same again in 64 bits.
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size : at - _LOCATOR.size + 4] == b"PK\6\7":
        _, _, stated, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        for end_64 in (stated, end - _LOCATOR.size - _END_64.size):
            file.seek(min(end_64, size))
            record = file.read(_END_64.size)
            if len(record) == _END_64.size and record[:4] == b"PK\6\6":
                *_, length, start = _END_64.unpack(record)
                end = end_64
                break
    shift = end - length - start
    if shift < 0:
        raise zipfile.BadZipFile("its directory is cut off")
    file.seek(end - length)
    return file.read(length), shift


def _positions(data: bytes) -> np.ndarray:
    """[N] int64, where each entry begins."""
    positions, at, unpack = array("q"), 0, _LENGTHS.unpack_from
    while at + _ENTRY.itemsize <= len(data):
        signature, name_len, extra_len, comment_len = unpack(data, at)
        if signature != b"PK\1\2":
            raise zipfile.BadZipFile("its directory is damaged")
        positions.append(at)
        at += _ENTRY.itemsize + name_len + extra_len + comment_len
    if at != len(data):
        raise zipfile.BadZipFile("its directory is cut off")
    return np.frombuffer(positions, np.int64)


def _names(data: bytes, positions: np.ndarray, table: np.ndarray) -> list[bytes]:
    """Names of entries, in UTF-8."""
    starts = positions + _ENTRY.itemsize
    ends = starts + table["lengths"][:, 0]
    names = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    text = b"".join(names)
    if text.isascii() and b"\0" not in text and b"\\" not in text:
        return names
    is_utf8 = (table["flags"] & _UTF8) != 0
    return [_plain_name(name, utf8) for name, utf8 in zip(names, is_utf8.tolist(), strict=True)]


def _plain_name(name: bytes, is_utf8: bool) -> bytes:
    """A name in UTF-8, up to its first NUL, with forward slashes."""
    name = name.split(b"\0")[0]
    if not is_utf8 and not name.isascii():
        name = name.decode("cp437").encode()
    return name.replace(b"\\", b"/")


def _places(data: bytes, positions: np.ndarray, table: np.ndarray, shift: int) -> np.ndarray:
    """[N] PLACE of entries."""
    places = np.zeros(len(table), PLACE)
    for name in PLACE.names:
        places[name] = table[name]
    large = [(name, table[name] == 0xFFFFFFFF) for name in ("size", "packed", "offset")]  # the order of their field
    for i in np.flatnonzero(large[0][1] | large[1][1] | large[2][1]).tolist():
        name_len, extra_len, _ = table["lengths"][i].tolist()
        start = int(positions[i]) + _ENTRY.itemsize + name_len
        wanted = [name for name, which in large if which[i]]
        for name, value in zip(wanted, _large_numbers(data[start : start + extra_len], len(wanted)), strict=True):
            places[name][i] = value
    places["offset"] += shift
    return places


def _large_numbers(extra: bytes, num: int) -> tuple[int, ...]:
    """The first numbers of the field of large ones."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64 and length >= 8 * num and at + 4 + 8 * num <= len(extra):
            numbers = struct.unpack_from(f"<{num}Q", extra, at + 4)
            if max(numbers) < 2**62:
                return numbers
        at += 4 + length
    raise zipfile.BadZipFile("its directory lacks sizes beyond 32 bits")
