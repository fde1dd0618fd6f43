# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image files below a folder or inside a zip, read with errors that name the file.

Needs no torch, so that worker processes start quickly.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ggdr.torch_utils.data.file_kinds import command_to_convert
from ggdr.torch_utils.data.file_table import FileTable, ListedFile, Names, encode_name, shared_folder
from ggdr.torch_utils.data.image_files import (
    FREE,
    IMAGE_SUFFIXES,
    MAX_FILE,
    RATIO,
    DataError,
    is_hidden,
    is_image,
    read_size,
)
from ggdr.torch_utils.data.zip_directory import read_directory
from ggdr.torch_utils.untrusted.regular_files import open_regular, read_regular
from ggdr.torch_utils.untrusted.text import error_text, printable

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: signature, lengths of its name and of extra fields
_ENCRYPTED = 1  # in a zip's flags
_STORED, _DEFLATED = 0, 8  # ways of compression
_ENCRYPTED_METHOD = 99  # what stands there in zips of newer encryption
_READ_ERRORS = (OSError, EOFError, ValueError, OverflowError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error)

MOST_SUFFIXES = 4  # that a message lists
CLASSES_FILE = "classes.json"  # says that `labels/` beside it holds label maps of the images in `images/`
IMAGES, LABEL_MAPS = "images/", "labels/"
_COMPANIONS = ("dataset.json", CLASSES_FILE, "thumbs.db", "desktop.ini")  # files that nobody takes for images

_seeking = threading.Lock()


@dataclass(frozen=True)
class Listing:
    """What a folder or zip holds: image files, which of them are label maps of a dataset of ours, and all others."""

    pictures: FileTable
    images: FileTable
    label_maps: FileTable
    others: FileTable


class Container:
    """A folder or zip that files are read from, by names with forward slashes.

    Its listing stays with the process that asked for it: a copy in another process reads files by what they are
    listed as, and opens a zip once.

    Raises:
        DataError: path does not exist.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(
                f"{printable(self.path)}: no such file or folder; `ggdr dataset SOURCE DEST` makes datasets"
            )
        self.is_zip = not self.path.is_dir()
        self._listing: Listing | None = None
        self._digests: dict[bytes, str] = {}  # of files of a folder, by their names
        self._file: BinaryIO | None = None
        self._file_pid = -1

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_listing": None, "_file": None, "_file_pid": -1}

    @property
    def listing(self) -> Listing:
        """All files, listed once.

        Raises:
            DataError: the folder cannot be listed, or the zip is damaged.
        """
        if self._listing is None:
            if self.is_zip:
                files = self._zip_files()
            else:
                files = FileTable(Names([encode_name(name) for name in _walk(self.path)]))
            are_images = np.fromiter((is_image(name) for name in files.names), bool, len(files))
            pictures, others = (files.take(np.flatnonzero(which)) for which in (are_images, ~are_images))
            first = _first_label_map(pictures, others)
            images = pictures.take(np.arange(first)) if first < len(pictures) else pictures
            self._listing = Listing(pictures, images, pictures.take(np.arange(first, len(pictures))), others)
        return self._listing

    def image_files(self, *, label_maps: bool = False) -> FileTable:
        """All image files, recursively.

        Args:
            label_maps: with those of a dataset of ours, see `label_map_files`.

        Raises:
            DataError: there is none.
        """
        images = self.listing.pictures if label_maps else self.listing.images
        if not len(images):
            kind = "zip" if self.is_zip else "folder"
            found = [self.left_out(), self._how_to_convert() or f"expected files named {', '.join(IMAGE_SUFFIXES)}"]
            raise DataError("; ".join([f"{self.where()}: no images in this {kind}", *filter(None, found)]))
        return images

    def label_map_files(self) -> FileTable:
        """The image files in `labels/`, if all others are in `images/`, and classes.json lies beside the two."""
        return self.listing.label_maps

    def left_out(self) -> str:
        """Which files beside the images are not read, in half a line; empty if there are none to speak of."""
        found = Counter(PurePosixPath(name).suffix.lower() for name in self._other_names())
        if not found:
            return ""
        kinds = [f"{num} {printable(suffix, 20) or 'without an ending'}" for suffix, num in found.most_common()]
        more = [f"{len(kinds) - MOST_SUFFIXES} more kinds"] if len(kinds) > MOST_SUFFIXES else []
        total = sum(found.values())
        return f"{total} {'file' if total == 1 else 'files'} left out, not read as images: " + ", ".join(
            kinds[:MOST_SUFFIXES] + more
        )

    def _other_names(self) -> Iterator[str]:
        """Names of the files that are no images and that the user put there."""
        for name in self.listing.others.names:
            if not name.endswith("/") and not is_hidden(name) and name.lower().split("/")[-1] not in _COMPANIONS:
                yield name

    def _how_to_convert(self) -> str:
        """What to do about files that other programs make images of, in half a line; empty if there are none."""
        folder = "" if self.is_zip else f"{self.path.as_posix()}/"
        for name in self._other_names():
            command = command_to_convert(printable(folder + name, 1000))
            if command is not None:
                return f"{'unpack it and convert' if self.is_zip else 'convert'} them first, for example: {command}"
        return ""

    def where(self, name: str | None = None) -> str:
        """A file's name as messages show it; None: that of the whole."""
        path = printable(self.path, 1000)
        return path if name is None else f"{path}/{printable(name)}"

    @property
    def num_bytes(self) -> int:
        """The size of a zip."""
        return self.path.stat().st_size

    def find(self, name: str) -> ListedFile | None:
        """The file of this name, or None."""
        if not self.is_zip:
            return ListedFile(name) if (self.path / name).is_file() else None
        return self.listing.others.find(name) or self.listing.pictures.find(name)

    def read(self, file: ListedFile, most: int = MAX_FILE) -> bytes:
        """The bytes of one file, `most` of them at most.

        Raises:
            DataError: it cannot be read, is larger, is encrypted, or its CRC differs from the zip's.
        """
        if not self.is_zip:
            try:
                return read_regular(self.path / file.name, most)
            except OSError as error:
                raise DataError(f"{self.where(file.name)}: {error_text(error)}") from error
        try:
            return self._read_zipped(file, most)
        except DataError:
            raise
        except _READ_ERRORS as error:
            reason = printable(error)
            raise DataError(f"{self.where(file.name)}: cannot be read, the file is damaged ({reason})") from error

    def header(self, file: ListedFile, *, upright: bool = False) -> tuple[tuple[int, int], str]:
        """((width, height), Pillow mode) of one image, without reading its pixels.

        Args:
            upright: the size after the turn that its EXIF orientation asks for.

        Raises:
            DataError: no known image format, or damaged.
        """
        try:
            opened = self._open(file)
        except DataError:
            raise
        except _READ_ERRORS as error:
            raise DataError(f"{self.where(file.name)}: {error_text(error)}") from error
        with opened:
            return read_size(opened, self.where(file.name), upright=upright)

    def _zip_files(self) -> FileTable:
        try:
            with open_regular(self.path) as file:
                return read_directory(file)
        except _READ_ERRORS as error:
            raise DataError(
                f"{self.where()}: no zip, or a corrupt or truncated one ({error_text(error)}); "
                "`ggdr dataset SOURCE DEST` makes datasets from other formats"
            ) from error

    def _read_zipped(self, file: ListedFile, most: int) -> bytes:
        if file.size > most:
            raise DataError(f"{self.where(file.name)}: has {file.size:,} bytes, expected at most {most:,}")
        start = self._start_of(file)
        if file.packed > file.size + file.size // 8 + 1024:
            raise zipfile.BadZipFile(f"{file.packed:,} bytes are said to hold {file.size:,}")
        if file.method == _DEFLATED and file.size > FREE + RATIO * min(file.packed, self.num_bytes):
            raise DataError(
                f"{self.where(file.name)}: {file.packed:,} bytes in the zip say that they hold {file.size:,}; "
                "files that are so even have to be stored without compression"
            )
        data = self._pread(file.packed, start)
        if file.method == _DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, file.size + 1)
        if len(data) != file.size or zlib.crc32(data) != file.crc:
            raise zipfile.BadZipFile("its checksum is another")
        return data

    def _start_of(self, file: ListedFile) -> int:
        """Where in the zip the bytes of a file begin."""
        if file.flags & _ENCRYPTED or file.method == _ENCRYPTED_METHOD:
            raise DataError(f"{self.where(file.name)}: is encrypted; unpack the zip with its password first")
        if file.method not in (_STORED, _DEFLATED):
            raise DataError(f"{self.where(file.name)}: is compressed by another method than deflate")
        header = self._pread(_LOCAL_HEADER.size, file.offset)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise zipfile.BadZipFile("it does not lie where the zip's directory says")
        _, name_len, extra_len = _LOCAL_HEADER.unpack(header)
        return file.offset + _LOCAL_HEADER.size + name_len + extra_len

    def _pread(self, size: int, offset: int) -> bytes:
        """Bytes of the zip, from this process' own opening of it."""
        if self._file is None or self._file_pid != os.getpid():
            self._file, self._file_pid = open_regular(self.path), os.getpid()
        if hasattr(os, "pread"):  # needs no lock between threads
            return os.pread(self._file.fileno(), size, offset)
        with _seeking:
            self._file.seek(offset)
            return self._file.read(size)

    def _open(self, file: ListedFile) -> BinaryIO:
        """A file to read the beginning of."""
        if self.is_zip:
            # Of compressed ones a header might lie anywhere behind gigabytes of zeros.
            if file.method == _DEFLATED:
                return io.BytesIO(self.read(file))
            return io.BufferedReader(_Part(self, self._start_of(file), file.size))
        return open_regular(self.path / file.name)


class _Part(io.RawIOBase):
    """Some bytes of a zip as a file."""

    def __init__(self, container: Container, start: int, size: int) -> None:
        self._container, self._start, self._size, self._at = container, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence], 0)
        return self._at

    def readinto(self, buffer: bytearray) -> int:
        data = self._container._pread(max(min(len(buffer), self._size - self._at), 0), self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def opened(path: str | os.PathLike | Container) -> Container:
    """The container itself, whose files stay listed, or one of this path; raises DataError if there is none."""
    return path if isinstance(path, Container) else Container(path)


def _first_label_map(pictures: FileTable, others: FileTable) -> int:
    """The row from which on all are label maps of those before it; the number of rows where there are none."""
    names = pictures.names
    root = shared_folder(names) if len(names) else ""
    if others.find(root + CLASSES_FILE) is None:
        return len(names)
    if not all(name.startswith((root + IMAGES, root + LABEL_MAPS)) for name in names):
        return len(names)
    # Names are sorted.
    return next((i for i, name in enumerate(names) if name.startswith(root + LABEL_MAPS)), len(names))


def digest(container: Container, files: FileTable) -> str:
    """SHA-256 (hex) of names, sizes and contents of the given files.

    Contents enter as CRCs: those of the zip's directory; for a folder of up to 512 MiB those of all files,
    beyond that those of 1024 files spread evenly. A container reads the same files once.
    """
    if files.places is None:
        key = hashlib.sha256(b"\0".join(files.names.all_raw())).digest()
        if key not in container._digests:
            container._digests[key] = _digest_of_folder(container, files)
        return container._digests[key]
    sha = hashlib.sha256()
    for name, size, crc in zip(
        files.names.all_raw(), files.places["size"].tolist(), files.places["crc"].tolist(), strict=True
    ):
        sha.update(name + f"\0{size}\0{crc}\n".encode())
    return sha.hexdigest()


def _digest_of_folder(container: Container, files: FileTable) -> str:
    """See `digest`."""
    sha = hashlib.sha256()
    try:
        sizes = [(container.path / name).stat().st_size for name in files.names]
    except OSError as error:
        raise DataError(f"{container.where()}: cannot be read ({printable(error)})") from error
    stride = 1 if sum(sizes) <= 512 * 2**20 else -(-len(files) // 1024)
    for i, (file, size) in enumerate(zip(files, sizes, strict=True)):
        crc = zlib.crc32(container.read(file)) if i % stride == 0 else 0
        sha.update(encode_name(file.name) + f"\0{size}\0{crc}\n".encode())
    return sha.hexdigest()


def _walk(root: Path) -> Iterator[str]:
    """Names relative to root, with forward slashes; links to folders are followed, each folder once."""
    visited = set()
    try:
        for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
            real = os.path.realpath(folder)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            subfolders.sort()
            relative = os.path.relpath(folder, root).replace(os.sep, "/")
            yield from (name if relative == "." else f"{relative}/{name}" for name in files)
    except OSError as error:
        raise DataError(f"{printable(root)}: cannot be read ({error.strerror or error})") from error


def _raise(error: OSError) -> None:
    raise error
