# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Arrays of .npz files written by anyone: none of them carries code, or takes more memory than is in the file."""

from __future__ import annotations

import ast
import io
import math
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ggdr.torch_utils.untrusted.text import printable

FREE = 2**28  # bytes that an array may have however small it is on disk, ...
RATIO = 64  # ... and how often its size on disk beyond that; pictures compress to a half
_ERRORS = (
    OSError, EOFError, ValueError, LookupError, RuntimeError, NotImplementedError, OverflowError, SyntaxError,
    TypeError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class NpzError(ValueError):
    """No .npz file, or a damaged one."""


class Npz:
    """The arrays of an open .npz file by name, each read when it is asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self.names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> np.ndarray:
        """One array, of numbers, truth values or text.

        Raises:
            NpzError: it is missing, damaged, of Python objects, or far larger than the file.
        """
        where = f"{self._path}[{printable(name)}]"
        try:
            info = self._archive.getinfo(name + ".npy")
            if info.file_size > FREE + RATIO * min(info.compress_size, os.path.getsize(self._path)):
                raise NpzError(f"{where}: {info.compress_size:,} bytes say that they hold {info.file_size:,}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NpzError(f"{where}: is compressed by another method than deflate")
            with self._archive.open(info) as file:
                return _read_array(file, info.file_size, where)
        except NpzError:
            raise
        except _ERRORS as error:
            raise NpzError(f"{where}: damaged ({printable(error)})") from error


@contextmanager
def open_npz(path: str | os.PathLike) -> Iterator[Npz]:
    """An .npz file of named arrays.

    Raises:
        NpzError: it is missing, or none.
    """
    path = Path(path)
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise NpzError(f"{path}: no such file") from error
    except _ERRORS as error:
        raise NpzError(f"{path}: no .npz file, or a damaged one ({printable(error)})") from error
    with archive:
        yield Npz(path, archive)


def _read_array(file: io.BufferedIOBase, size: int, where: str) -> np.ndarray:
    """An array in the .npy format, of as many bytes as it says."""
    shape, order, dtype, start = _header(file)
    if dtype.kind not in "biufcUS" or dtype.itemsize == 0:
        raise NpzError(f"{where}: holds {printable(dtype)}, expected numbers or text")
    if math.prod(shape) * dtype.itemsize != size - start:
        raise NpzError(f"{where}: {size - start:,} bytes, of which its header makes {printable(list(shape))} {dtype}")
    array = np.empty(math.prod(shape), dtype)
    view, done = memoryview(array.view(np.uint8)) if array.size else memoryview(b""), 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise NpzError(f"{where}: truncated")
        done += count
    # Reading beyond the end checks the CRC.
    file.read(1)
    if dtype.kind == "U" and array.size and array.view(f"{dtype.byteorder}u4").max() > sys.maxunicode:
        raise NpzError(f"{where}: holds text of no characters")
    return array.reshape(shape, order=order)


def _header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], str, np.dtype, int]:
    """Shape, order ("C" or "F"), type and length of the header.

    Source: NEP 1.
    """
    magic = file.read(8)
    wide = magic[6:7] != b"\x01"
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ValueError("it is no .npy file")
    raw = file.read(4 if wide else 2)
    (length,) = struct.unpack("<I" if wide else "<H", raw)
    if length > 4096:
        raise ValueError(f"a header of {length:,} bytes")
    about = ast.literal_eval(file.read(length).decode("latin1"))
    shape, descr = about["shape"], about["descr"]
    if not isinstance(descr, str) or not all(type(n) is int and 0 <= n < 2**62 for n in shape):
        raise ValueError("a header of other than plain numbers")
    return shape, "F" if about["fortran_order"] else "C", np.dtype(descr), len(magic) + len(raw) + length
