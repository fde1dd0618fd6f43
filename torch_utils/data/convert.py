# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Foreign images to square power-of-two 8-bit PNGs of one size: channels, crop, resize, encode.

Every conversion that loses something is done on purpose and described in docs/datasets.md. Needs no torch:
this is what the converter's worker processes run.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.image_files import DataError, UnreadableImage, load_image

R = TypeVar("R")

TRANSFORMS = ("none", "center-crop", "center-crop-wide")
FILTERS = {
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
}
SMALL_POLICIES = ("error", "upscale", "skip")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PNG_COLOR_TYPE = {1: 0, 3: 2, 4: 6}
_PNG_PALETTE = 3  # color type of numbers of colours
_PNG_UP = 2  # filter type of a row that holds differences from the one above


@dataclass(frozen=True)
class Conversion:
    """How each image becomes a PNG.

    Attributes:
        resolution:    side of the result in pixels; None keeps the images' own size.
        transform:     one of TRANSFORMS.
        filter:        one of FILTERS for every resize; None: box to shrink, bicubic to enlarge.
        channels:      1, 3 or 4.
        small:         one of SMALL_POLICIES, for images that `resolution` would enlarge.
        compress:      zlib level 0..9 of the PNGs; None: 0 up to 64x64 pixels, 1 above.
        expected_size: (width, height) of all images when resolution is None.
    """

    resolution: int | None = None
    transform: str = "none"
    filter: str | None = None
    channels: int = 3
    small: str = "error"
    compress: int | None = None
    expected_size: tuple[int, int] | None = None

    def __call__(self, raw: bytes | np.ndarray, where: str) -> np.ndarray | None:
        """Convert one image.

        Args:
            raw:   an image file's bytes, or pixels uint8 [H, W] or [H, W, 3].
            where: the image's name, for errors.

        Returns:
            uint8 [res, res, channels], without the last axis for one channel; None for an image to skip.

        Raises:
            DataError: the image does not meet what is set here; UnreadableImage where it cannot be decoded.
        """
        return self.convert(decode(raw, where), where)

    def convert(self, img: Image.Image, where: str) -> np.ndarray | None:
        """The same of a decoded image."""
        img = to_channels(img, self.channels, where)
        fitted = self.fit(img, where, bars=(0, 0, 0, 255) if self.channels == 4 else 0)
        return None if fitted is None else np.asarray(fitted)

    def fit(
        self, img: Image.Image, where: str, resample: Image.Resampling | None = None, bars: int | tuple[int, ...] = 0
    ) -> Image.Image | None:
        """The image cropped and resized, or None for one to skip.

        Args:
            resample: how it is resized; None: with `filter`.
            bars:     value of the bars above and below a wide image.

        Raises:
            DataError: it does not meet what is set here.
        """
        if self.transform == "center-crop-wide":
            img = _crop(img, min(img.width, img.height * 4 // 3), min(img.height, img.width * 3 // 4))
        elif self.transform == "center-crop":
            img = _crop(img, min(img.size), min(img.size))
        if self.resolution is None:
            if self.expected_size is not None and img.size != self.expected_size:
                raise DataError(
                    f"{where}: is {_size(img)}, expected {_size(self.expected_size)} like the first image; "
                    "give --resolution to bring all images to one size"
                )
            return img
        if self.transform == "none" and img.width != img.height:
            raise DataError(
                f"{where}: is {_size(img)}, expected a square image; give --transform center-crop to cut one out"
            )
        if img.width < self.resolution and self.small != "upscale":
            if self.small == "skip":
                return None
            raise DataError(
                f"{where}: is {_size(img)} (after cropping), smaller than --resolution {self.resolution}; "
                "give --small upscale to enlarge such images or --small skip to leave them out"
            )
        return self._resize(img, resample, bars)

    def _resize(self, img: Image.Image, resample: Image.Resampling | None, bars: int | tuple[int, ...]) -> Image.Image:
        """To resolution x resolution; a wide image gets bars above and below."""
        res = self.resolution
        wide = self.transform == "center-crop-wide"
        size = (res, res * 3 // 4) if wide else (res, res)
        if img.size != size:
            name = self.filter or ("bicubic" if img.width < res else "box")
            img = img.resize(size, FILTERS[name] if resample is None else resample)
        if wide:
            canvas = Image.new(img.mode, (res, res), bars)
            canvas.paste(img, (0, (res - size[1]) // 2))
            img = canvas
        return img


def decode(raw: bytes | np.ndarray, where: str) -> Image.Image:
    """The image of a file's bytes, or of pixels; raises UnreadableImage."""
    return load_image(raw, where) if isinstance(raw, bytes) else Image.fromarray(raw)


def check_resolution(size: tuple[int, int], where: str) -> None:
    """Raise DataError unless (width, height) is square and a power of two >= 8."""
    width, height = size
    if width != height or width < 8 or width & (width - 1):
        raise DataError(f"{where}: is {_size(size)}, expected a square whose side is a power of two (8, 16, 32, ...)")


def to_channels(img: Image.Image, channels: int, where: str) -> Image.Image:
    """To 8-bit grey (1), RGB (3) or RGBA (4).

    16-bit grey is scaled by 255/65535. Transparency (alpha, or a transparent palette entry or colour) is laid
    over white for 1 and 3 channels and kept for 4. CMYK, YCbCr and the like go through Pillow's conversion,
    colour profiles are not applied.

    Raises:
        DataError: 32-bit integers beyond 16 bits, or floating point, whose range nobody can know.
    """
    mode = _MODES[channels]
    if img.mode == mode and "transparency" not in img.info:
        return img
    if img.mode == "I" or img.mode.startswith("I;16"):
        img = _from_16bit(img, where)
    if img.mode == "F":
        raise DataError(f"{where}: holds floating-point pixels, expected integers of 8 or 16 bits")
    try:
        if not (img.mode in ("RGBA", "LA", "PA") or "transparency" in img.info):
            return img.convert(mode)
        img = img.convert("RGBA")
        if channels == 4:
            return img
        return Image.alpha_composite(Image.new("RGBA", img.size, "white"), img).convert("RGB").convert(mode)
    except ValueError as error:
        raise DataError(f"{where}: cannot be converted from mode {img.mode} to {mode} ({error})") from error


def encode_png(pixels: np.ndarray, compress: int | None = None, palette: np.ndarray | None = None) -> bytes:
    """Encode uint8 [H, W] or [H, W, 3 or 4] as PNG at zlib level `compress` (see Conversion).

    With a palette, uint8 [256, 3], programs show [H, W] in its colours.

    Levels 0 and 1 are written here: 0 unfiltered, in a tenth of the time that Pillow takes, and half of it to
    decode; 1 as differences from the row above, in half of Pillow's time at about its size.
    """
    if compress is None:
        compress = 0 if pixels.shape[0] <= 64 else 1
    if compress > 1:
        file = io.BytesIO()
        img = Image.fromarray(pixels)
        if palette is not None:
            img.putpalette(palette.tobytes())
        img.save(file, "png", compress_level=compress)
        return file.getvalue()
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    values = pixels.reshape(height, -1)
    rows = np.empty((height, 1 + width * channels), dtype=np.uint8)
    rows[:, 0] = _PNG_UP if compress else 0
    rows[:, 1:] = values
    if compress:
        rows[1:, 1:] -= values[:-1]
    color_type = _PNG_COLOR_TYPE[channels] if palette is None else _PNG_PALETTE
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    image = _png_chunk(b"IDAT", zlib.compress(rows, compress) if compress else _zlib_stored(rows.tobytes()))
    colors = b"" if palette is None else _png_chunk(b"PLTE", palette.tobytes())
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + colors + image + _png_chunk(b"IEND", b"")


def convert_or_skip(
    conversion: Conversion, raw: bytes | np.ndarray | DataError, where: str, *, skip_broken: bool
) -> np.ndarray | UnreadableImage | None:
    """What `conversion` makes of an image, or of why there is none; the error of one that is broken.

    Raises:
        DataError: it does not meet what is set there, or is broken and not to be skipped.
    """

    def convert() -> np.ndarray | None:
        if isinstance(raw, DataError):
            raise UnreadableImage(str(raw)) from raw
        return conversion(raw, where)

    return or_skip(convert, skip_broken=skip_broken)


def or_skip(convert: Callable[[], R], *, skip_broken: bool) -> R | UnreadableImage:
    """What `convert` gives, or its UnreadableImage if that is to be skipped, and else an error that says how to."""
    try:
        return convert()
    except UnreadableImage as error:
        if not skip_broken:
            raise DataError(f"{error}; --skip-broken leaves such files out") from error
        return error


def convert_batch(
    conversion: Conversion, batch: list[tuple[str, bytes | np.ndarray | DataError]], *, skip_broken: bool
) -> list[bytes | DataError | None]:
    """PNG files of [(name, raw image or why there is none), ...] in this order; None for images to skip.

    Raises:
        DataError: an image cannot be converted, unless skip_broken: then the errors of those that cannot be read or
            decoded stand in their places.
    """
    pngs: list[bytes | DataError | None] = []
    for where, raw in batch:
        pixels = convert_or_skip(conversion, raw, where, skip_broken=skip_broken)
        pngs.append(encode_png(pixels, conversion.compress) if isinstance(pixels, np.ndarray) else pixels)
    return pngs


def _zlib_stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks, as zlib makes at level 0, without the quarter of a megabyte that it clears first.

    Source: RFC 1950 (stream) and RFC 1951, section 3.2.4 (stored blocks).
    """
    limit = 65535
    blocks = []
    for start in range(0, len(data), limit):
        block = data[start : start + limit]
        is_last = start + limit >= len(data)
        blocks += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([b"\x78\x01", *blocks, struct.pack(">I", zlib.adler32(data))])


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    """Length, type, data and CRC."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _from_16bit(img: Image.Image, where: str) -> Image.Image:
    """16-bit grey (which some Pillow versions open as 32-bit) to 8-bit, 65535 to 255."""
    values = np.asarray(img).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        found = f"{values.min()}..{values.max()}"
        raise DataError(f"{where}: holds values {found}, expected integers of 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _crop(img: Image.Image, width: int, height: int) -> Image.Image:
    """The centred rectangle of this size."""
    if img.size == (width, height):
        return img
    left, top = (img.width - width) // 2, (img.height - height) // 2
    return img.crop((left, top, left + width, top + height))


def _size(img: Image.Image | tuple[int, int]) -> str:
    width, height = img if isinstance(img, tuple) else img.size
    return f"{width}x{height}"
