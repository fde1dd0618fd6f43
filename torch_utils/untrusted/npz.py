# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Arrays of .npz files written by anyone: none of them carries code, or takes more memory than is in the file.

NumPy reads them, once sizes and types have been checked: by itself it allocates what a header of 100 bytes asks for,
inflates whatever a zip holds, and lets text of no characters pass.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ggdr.torch_utils.untrusted.regular_files import check_regular
from ggdr.torch_utils.untrusted.text import error_text, printable

FREE = 2**28  # bytes that an array may have however small it is on disk, ...
RATIO = 64  # ... and how often its size on disk beyond that; pictures compress to a half
MAX_HEADER = 4096  # bytes
_ERRORS = (
    OSError, EOFError, ValueError, LookupError, RuntimeError, NotImplementedError, OverflowError, SyntaxError,
    TypeError, MemoryError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
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
        check_regular(path)
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise NpzError(f"{path}: no such file") from error
    except _ERRORS as error:
        raise NpzError(f"{path}: no .npz file, or a damaged one ({error_text(error)})") from error
    with archive:
        yield Npz(path, archive)


def _read_array(file: io.BufferedIOBase, size: int, where: str) -> np.ndarray:
    """An array in the .npy format, of as many bytes as it says."""
    shape, dtype = _header(file)
    start = file.tell()
    if dtype.kind not in "biufcUS" or dtype.itemsize == 0:
        raise NpzError(f"{where}: holds {printable(dtype)}, expected numbers or text")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - start:
        raise NpzError(f"{where}: {size - start:,} bytes, of which its header makes {printable(list(shape))} {dtype}")
    file.seek(0)
    array = npy.read_array(file, allow_pickle=False, max_header_size=MAX_HEADER)
    # Reading beyond the end checks the CRC.
    file.read(1)
    if dtype.kind == "U" and array.size and array.ravel("K").view(f"{dtype.byteorder}u4").max() > sys.maxunicode:
        raise NpzError(f"{where}: holds text of no characters")
    return array


def _header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the header says. Version 3 is for names of fields, which are refused."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"it is of version {version}")
    shape, _, dtype = readers[version](file, max_header_size=MAX_HEADER)
    return shape, dtype
