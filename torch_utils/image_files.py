# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image files below a folder or inside a zip, their labels, and decoding with errors that name the file.

Shared by training (data.py) and by the converter (sources.py, conversion.py). Needs no torch, so that
worker processes of the converter start quickly.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

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

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a file in a zip: signature, lengths of its name and of extra fields
_ENCRYPTED = 1  # in a zip's flags

MAX_CLASSES = 2**16  # labels become one-hot vectors: a stray large number must not fill the memory


class DataError(ValueError):
    """A dataset or source image is unusable; the message names the file, what it is and what was expected."""


@dataclass(frozen=True)
class LabelTable:
    """Labels of a list of images, in its order.

    Attributes:
        values:  [N] int64 class indices >= 0, or [N, c_dim] float32 vectors.
        classes: class names, index = label; None when unknown.
    """

    values: np.ndarray
    classes: list[str] | None = None

    @property
    def is_onehot(self) -> bool:
        return self.values.ndim == 1

    @property
    def c_dim(self) -> int:
        if not self.is_onehot:
            return self.values.shape[1]
        return max(int(self.values.max()) + 1, len(self.classes or ()))


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
                self._archive = zipfile.ZipFile(self.path)
            except (OSError, EOFError, NotImplementedError, ValueError, zipfile.BadZipFile) as error:
                raise DataError(
                    f"{self.path}: no zip, or a corrupt or truncated one ({error}); `ggdr dataset SOURCE DEST` makes "
                    "datasets from other formats"
                ) from error
            self._archive_pid = os.getpid()
        return self._archive

    def where(self, name: str) -> str:
        """A file's name as messages show it."""
        return f"{self.path}/{name}"

    def has(self, name: str) -> bool:
        return name in self.archive.NameToInfo if self.is_zip else (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            DataError: it cannot be read, or its CRC differs from the zip's.
        """
        try:
            if not self.is_zip:
                return (self.path / name).read_bytes()
            data = self._read_stored(name)
            return self.archive.read(name) if data is None else data
        except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.where(name)}: cannot be read, the file is damaged ({error})") from error

    def _read_stored(self, name: str) -> bytes | None:
        """A file that lies in the zip as it is, in a quarter of zipfile's time; None if it does not, or is damaged."""
        info = self.archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED or not hasattr(os, "pread"):
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
            with self.archive.open(name) if self.is_zip else open(self.path / name, "rb") as file:
                with Image.open(file) as img:
                    return img.size, img.mode
        except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
            raise _undecodable(self.where(name), error) from error

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


def read_labels(container: Container, names: Sequence[str]) -> LabelTable | None:
    """Labels from dataset.json, else from the names of the first-level sub-folders, else None.

    A folder that holds everything (as archives often have) is looked through. Sub-folder names count only if
    there are two or more and no image lies beside them.

    Args:
        container: where dataset.json is.
        names:     all image names, sorted.

    Raises:
        DataError: dataset.json is invalid, or does not fit the images.
    """
    shared = _shared_folder(names)
    for root in dict.fromkeys(("", shared)):
        if container.has(root + "dataset.json"):
            content = container.read(root + "dataset.json")
            found, table = _parse_labels(content, container.where(root + "dataset.json"), root, names)
            if found:
                return table
    folders = [name[len(shared) :].split("/")[0] for name in names if "/" in name[len(shared) :]]
    classes = sorted(set(folders))
    if len(classes) < 2 or len(folders) < len(names):
        return None
    index = {name: i for i, name in enumerate(classes)}
    return LabelTable(np.array([index[name] for name in folders], dtype=np.int64), classes)


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


def load_image(data: bytes, where: str) -> Image.Image:
    """Decode an image file (the first frame of several), turned upright as its EXIF orientation says.

    Args:
        data:  the file's bytes.
        where: its name, for the error.

    Raises:
        DataError: no known image format, or damaged or truncated.
    """
    try:
        img = Image.open(io.BytesIO(data))
        img.load()
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
        raise _undecodable(where, error) from error
    if "exif" in img.info or img.format == "TIFF":
        turn = _UPRIGHT.get(_orientation(img))
        if turn is not None:
            img = img.transpose(turn)
    return img


def _undecodable(where: str, error: Exception) -> DataError:
    # Pillow's own text names an in-memory file, not this one.
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
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


def _shared_folder(names: Sequence[str]) -> str:
    """'x/' (or 'x/y/', ...) if every name lies below it, else ''."""
    first, last = names[0].split("/")[:-1], names[-1].split("/")[:-1]  # names are sorted
    return "".join(f"{part}/" for part in _common_prefix(first, last))


def _common_prefix(a: Sequence[str], b: Sequence[str]) -> Iterator[str]:
    for x, y in zip(a, b, strict=False):
        if x != y:
            return
        yield x


def _parse_labels(content: bytes, where: str, root: str, names: Sequence[str]) -> tuple[bool, LabelTable | None]:
    """(whether dataset.json speaks of labels, the table or None for "none"); its names start at root."""
    try:
        meta = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where}: invalid JSON ({error})") from error
    if not isinstance(meta, dict):
        expected = '{"labels": [[name, int], ...]}'
        raise DataError(f"{where}: holds a {type(meta).__name__}; expected an object {expected}")
    if "labels" not in meta:
        return False, None
    if meta["labels"] is None:
        return True, None

    # Entries.
    entries = meta["labels"]
    expected = '"labels" must be null or a list of [name, label] pairs'
    if not isinstance(entries, list):
        raise DataError(f"{where}: {expected}; got a {type(entries).__name__}")
    table = {}
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise DataError(f"{where}: {expected}; got {json.dumps(entry)[:80]}")
        table[root + entry[0]] = entry[1]

    # One label for each image, and no other.
    missing = [name for name in names if name not in table]
    unknown = sorted(table.keys() - set(names))
    if missing or unknown or len(entries) != len(table):
        detail = "a name occurs twice"
        if missing or unknown:
            detail = f"{missing[0]} has none" if missing else f"there is no {unknown[0]}"
        counts = f"{len(entries)} labels for {len(names)} images"
        raise DataError(f"{where}: {counts} ({detail}); expected one for each")
    return True, _to_table([table[name] for name in names], names, meta.get("classes"), where)


def _to_table(labels: list, names: Sequence[str], classes: object, where: str) -> LabelTable:
    """Check the labels' types and make arrays of them."""
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise DataError(f'{where}: "classes" must be a list of names; got {json.dumps(classes)[:80]}')
    if all(type(label) is int for label in labels):
        for name, label in zip(names, labels, strict=True):
            if not 0 <= label < MAX_CLASSES:
                raise DataError(f"{where}: label of {name} is {label}; expected 0 to {MAX_CLASSES - 1}")
        return LabelTable(np.array(labels, dtype=np.int64), classes)
    width = len(labels[0]) if isinstance(labels[0], list) else 0
    for name, label in zip(names, labels, strict=True):
        vector = isinstance(label, list) and all(type(x) in (int, float) for x in label)
        if not (width and vector and len(label) == width and np.isfinite(label).all()):
            raise DataError(
                f"{where}: label of {name} is {json.dumps(label)[:80]}; "
                "expected integers >= 0 for all images, or lists of numbers of one length for all"
            )
    return LabelTable(np.array(labels, dtype=np.float32))
