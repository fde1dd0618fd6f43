# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image files below a folder or inside a zip, and decoding with errors that name the file.

Shared by training (data.py) and by the converter (sources.py, conversion.py). Needs no torch, so that
worker processes of the converter start quickly.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from ggdr.torch_utils.untrusted.regular_files import check_regular, open_regular, read_regular
from ggdr.torch_utils.untrusted.text import error_text, printable

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# EXIF tag 0x0112: how the stored pixels must be turned to stand upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow may try. Others of its formats start programs (Ghostscript for PostScript), whatever a file is called.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: signature, lengths of its name and of extra fields
_ENCRYPTED = 1  # in a zip's flags
_READ_ERRORS = (
    OSError, EOFError, LookupError, RuntimeError, NotImplementedError, ValueError, OverflowError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip

MAX_FILE = 2**29  # bytes of an image or dataset.json: small ones in a zip may claim to be of any size
# What small files may become, compressed ones in a zip and images in memory: so many bytes, and so many for each of
# theirs. A JPEG of a photograph becomes about 8 times its size.
FREE = 2**26
RATIO = 128


class DataError(ValueError):
    """A dataset or source image is unusable; the message names the file, what it is and what was expected."""


class Container:
    """A folder or zip that files are read from, by names with forward slashes.

    A zip is opened once per process on first use, so that instances survive fork and pickling.

    Raises:
        DataError: path does not exist.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{self.path}: no such file or folder; `ggdr dataset SOURCE DEST` makes datasets")
        self.is_zip = not self.path.is_dir()
        self._archive: zipfile.ZipFile | None = None
        self._archive_pid = -1

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_archive": None, "_archive_pid": -1}

    @property
    def archive(self) -> zipfile.ZipFile:
        """The open zip of this process."""
        if self._archive is None or self._archive_pid != os.getpid():
            try:
                check_regular(self.path)
                self._archive = zipfile.ZipFile(self.path)
            except (OSError, EOFError, NotImplementedError, ValueError, struct.error, zipfile.BadZipFile) as error:
                raise DataError(
                    f"{self.path}: no zip, or a corrupt or truncated one ({error_text(error)}); "
                    "`ggdr dataset SOURCE DEST` makes datasets from other formats"
                ) from error
            self._archive_pid = os.getpid()
        return self._archive

    @property
    def num_bytes(self) -> int:
        """The size of a zip."""
        return self.path.stat().st_size

    def where(self, name: str) -> str:
        """A file's name as messages show it."""
        return f"{self.path}/{printable(name)}"

    def has(self, name: str) -> bool:
        return name in self.archive.NameToInfo if self.is_zip else (self.path / name).is_file()

    def read(self, name: str, most: int = MAX_FILE) -> bytes:
        """The bytes of one file, `most` of them at most.

        Raises:
            DataError: it cannot be read, is larger, or its CRC differs from the zip's.
        """
        try:
            if not self.is_zip:
                return read_regular(self.path / name, most)
            info = self.archive.getinfo(name)
            if info.file_size > most:
                raise DataError(f"{self.where(name)}: has {info.file_size:,} bytes, expected at most {most:,}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{self.where(name)}: is compressed by another method than deflate")
            if info.file_size > FREE + RATIO * min(info.compress_size, self.num_bytes):
                raise DataError(
                    f"{self.where(name)}: {info.compress_size:,} bytes in the zip say that they hold "
                    f"{info.file_size:,}; files that are so even have to be stored without compression"
                )
            data = self._read_stored(info)
            return self.archive.read(info) if data is None else data
        except DataError:
            raise
        except _READ_ERRORS as error:
            if self.is_zip:
                reason = f"cannot be read, the file is damaged ({printable(error)})"
            else:
                reason = error_text(error)
            raise DataError(f"{self.where(name)}: {reason}") from error

    def _read_stored(self, info: zipfile.ZipInfo) -> bytes | None:
        """A file that lies in the zip as it is, in a quarter of zipfile's time; None if it does not, or is damaged."""
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED or not hasattr(os, "pread"):
            return None
        if info.compress_size != info.file_size:
            return None
        # Unlike seek and read, pread needs no lock between threads.
        file = self.archive.fp.fileno()
        header = os.pread(file, _LOCAL_HEADER.size, info.header_offset)
        if len(header) < _LOCAL_HEADER.size:
            return None
        signature, name_len, extra_len = _LOCAL_HEADER.unpack(header)
        data = os.pread(file, info.file_size, info.header_offset + _LOCAL_HEADER.size + name_len + extra_len)
        return data if signature == b"PK\3\4" and zlib.crc32(data) == info.CRC else None

    def header(self, name: str) -> tuple[tuple[int, int], str]:
        """((width, height), Pillow mode) of one image, without reading its pixels.

        Raises:
            DataError: no known image format, or damaged.
        """
        try:
            with self._open(name) as file, Image.open(file, formats=FORMATS) as img:
                return img.size, img.mode
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
            raise _undecodable(self.where(name), error) from error

    def _open(self, name: str) -> IO[bytes]:
        """A file to read the beginning of."""
        if self.is_zip:
            # Of compressed ones a header might lie anywhere behind gigabytes of zeros.
            info = self.archive.getinfo(name)
            return self.archive.open(info) if info.compress_type == zipfile.ZIP_STORED else io.BytesIO(self.read(name))
        try:
            return open_regular(self.path / name)
        except OSError as error:
            raise DataError(f"{self.where(name)}: {error_text(error)}") from error

    def image_names(self) -> list[str]:
        """The names of all image files, recursively, sorted.

        Raises:
            DataError: there is none.
        """
        try:
            names = self.archive.namelist() if self.is_zip else _walk(self.path)
            images = sorted({name for name in names if _is_image(name)})
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if not images:
            kind = "zip" if self.is_zip else "folder"
            raise DataError(f"{self.path}: no images in this {kind}; expected files named {', '.join(IMAGE_SUFFIXES)}")
        return images


def digest(container: Container, names: Sequence[str]) -> str:
    """SHA-256 (hex) of names, sizes and contents of the given files.

    Contents enter as CRCs: those of the zip's directory; for a folder of up to 512 MiB those of all files,
    beyond that those of 1024 files spread evenly.
    """
    sha = hashlib.sha256()
    if container.is_zip:
        for name in names:
            info = container.archive.getinfo(name)
            sha.update(f"{name}\0{info.file_size}\0{info.CRC}\n".encode())
        return sha.hexdigest()
    try:
        sizes = [(container.path / name).stat().st_size for name in names]
    except OSError as error:
        raise DataError(f"{container.path}: cannot be read ({error})") from error
    stride = 1 if sum(sizes) <= 512 * 2**20 else -(-len(names) // 1024)
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        crc = zlib.crc32(container.read(name)) if i % stride == 0 else 0
        sha.update(f"{name}\0{size}\0{crc}\n".encode())
    return sha.hexdigest()


def load_image(data: bytes, where: str, check: Callable[[Image.Image], None] | None = None) -> Image.Image:
    """Decode an image file (the first frame of several), turned upright as its EXIF orientation says.

    Args:
        data:  the file's bytes.
        where: its name, for the error.
        check: called with the image before its pixels are decoded, which takes the memory that the file says.

    Raises:
        DataError: no known image format, damaged or truncated, or of more pixels than images of its size have.
    """
    try:
        img = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
        raise _undecodable(where, error) from error
    if check is not None:
        check(img)
    num_bytes = img.width * img.height * (1 if img.mode in ("1", "L", "P") else 4)  # Pillow's own
    if num_bytes > FREE + RATIO * len(data):
        raise DataError(
            f"{where}: {len(data):,} bytes hold {img.width}x{img.height} pixels, far more than a photograph's; "
            f"expected {(FREE + RATIO * len(data)) // 2**20:,} MiB of pixels at most, got {num_bytes // 2**20:,}"
        )
    try:
        img.load()
    except Exception as error:
        raise _undecodable(where, error) from error
    if "exif" in img.info or img.format == "TIFF":
        turn = _UPRIGHT.get(_orientation(img))
        if turn is not None:
            img = img.transpose(turn)
    return img


def _undecodable(where: str, error: Exception) -> DataError:
    # Pillow's own text names an in-memory file, not this one.
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({printable(error)})"
    return DataError(f"{where}: cannot be decoded, the image is corrupt or truncated{reason}")


def _orientation(img: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) where the EXIF block is unreadable, as the pixels are sound."""
    try:
        return int(img.getexif().get(0x0112, 1))
    except Exception:  # as wide as what Pillow raises on a malformed EXIF block
        return 1


def _is_image(name: str) -> bool:
    parts = name.split("/")
    # Hidden files and __MACOSX/._x.jpg carry an image's suffix but hold none.
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return name.lower().endswith(IMAGE_SUFFIXES) and not hidden


def _walk(root: Path) -> Iterator[str]:
    """Names relative to root, with forward slashes; links to folders are followed, each folder once."""
    visited = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        yield from (name if relative == "." else f"{relative}/{name}" for name in files)


def _raise(error: OSError) -> None:
    raise error
