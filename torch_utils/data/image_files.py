# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Decoding of image files, with errors that name the file and what is wrong with it.

Shared by training, metrics and the converter. Needs no torch, so that worker processes start quickly.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image

from ggdr.torch_utils.data.file_kinds import kind_of
from ggdr.torch_utils.untrusted.text import printable

IMAGE_SUFFIXES = (
    ".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip

JPEG_SUFFIXES = (".jfif", ".jpe", ".jpeg", ".jpg")
MAX_FILE = 2**29  # bytes of an image or dataset.json: small ones in a zip may claim to be of any size

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
_LYING = tuple(_UPRIGHT[number] for number in (5, 6, 7, 8))  # those that swap width and height

# What Pillow may try. Others of its formats start programs (Ghostscript for PostScript), whatever a file is called.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What small files may become, compressed ones in a zip and images in memory: so many bytes, and so many for each of
# theirs. A JPEG of a photograph becomes about 8 times its size.
FREE = 2**26
RATIO = 128

# Pillow warns of more than half the pixels that it refuses, which the user can do nothing about.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class DataError(ValueError):
    """A dataset or source image is unusable; the message names the file, what it is and what was expected."""


class UnreadableImage(DataError):
    """A file cannot be decoded as an image."""


def is_image(name: str) -> bool:
    """Whether a file, by names of folders and its own, is one of the images of a set."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a file is none of the user's: __MACOSX/._x.jpg carries an image's suffix but holds none."""
    return name.startswith((".", "__MACOSX/")) or "/." in name or "/__MACOSX/" in name


def read_size(file: BinaryIO, where: str, *, upright: bool = False) -> tuple[tuple[int, int], str]:
    """((width, height), Pillow mode) of an image file, of which only the beginning is read.

    Args:
        upright: the size after the turn that its EXIF orientation asks for, not that of the stored pixels.

    Raises:
        UnreadableImage: as `load_image`.
    """
    try:
        with Image.open(file, formats=FORMATS) as img:
            # Pillow turns TIFF by itself, and says so at once.
            is_lying = upright and img.format != "TIFF" and _turn(img) in _LYING
            return img.size[::-1] if is_lying else img.size, img.mode
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
        file.seek(0)
        raise _undecodable(where, error, file.read(4096)) from error


def load_image(
    data: bytes, where: str, check: Callable[[Image.Image], None] | None = None, *, as_stored: bool = False
) -> Image.Image:
    """Decode an image file (the first frame of several), turned upright as its EXIF orientation says.

    Args:
        data:      the file's bytes.
        where:     its name, for the error.
        check:     called with the image before its pixels are decoded, which takes the memory that the file says.
        as_stored: do not turn it.

    Raises:
        UnreadableImage: no known image format, damaged or truncated, or of more pixels than images of its size have.
        What `check` raises.
    """
    try:
        img = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
        raise _undecodable(where, error, data) from error
    if check is not None:
        check(img)
    num_bytes = img.width * img.height * (1 if img.mode in ("1", "L", "P") else 4)  # Pillow's own
    if num_bytes > FREE + RATIO * len(data):
        raise UnreadableImage(
            f"{where}: {len(data):,} bytes hold {img.width}x{img.height} pixels, far more than a photograph's; "
            f"expected {(FREE + RATIO * len(data)) // 2**20:,} MiB of pixels at most, got {num_bytes // 2**20:,}"
        )
    try:
        img.load()
    except Exception as error:
        raise _undecodable(where, error, data) from error
    turn = None if as_stored else _turn(img)
    return img if turn is None else img.transpose(turn)


def _undecodable(where: str, error: Exception, data: bytes) -> UnreadableImage:
    """What is wrong with an image file that begins with `data`."""
    if isinstance(error, Image.DecompressionBombError):
        pixels, most = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        return UnreadableImage(f"{where}: has {pixels:,} pixels, more than the {most:,} that are read: shrink it first")
    kind = kind_of(data)
    if kind is not None:
        return UnreadableImage(f"{where}: cannot be decoded, it is {kind}")
    # Pillow's own text for unknown formats names an in-memory file, not this one.
    reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({printable(error)})"
    return UnreadableImage(f"{where}: cannot be decoded, the image is corrupt or truncated{reason}")


def _turn(img: Image.Image) -> Image.Transpose | None:
    """What brings an image upright; None if it is, or where the EXIF block is unreadable, as the pixels are sound."""
    if "exif" not in img.info and img.format != "TIFF":
        return None
    try:
        return _UPRIGHT.get(int(img.getexif().get(0x0112, 1)))
    except Exception:  # as wide as what Pillow raises on a malformed EXIF block
        return None
