# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What files are that cannot be read as images, by how they begin or by their endings, and what to do about it."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

CONVERT = "convert it to PNG or JPEG first"
DOWNLOAD = "download it again"

# Brands of ISO media files (ISO/IEC 14496-12, section 4.3).
_BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC",
    b"hevc": "HEIC", b"hevx": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"crx ": "Canon raw",
}  # fmt: skip
_BEGINNINGS = (
    (b"\xff\x0a", "JPEG XL", CONVERT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", CONVERT),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", CONVERT),
    (b"\xff\x4f\xff\x51", "JPEG 2000", CONVERT),
    (b"8BPS", "a Photoshop file", CONVERT),
    (b"\x76\x2f\x31\x01", "OpenEXR", CONVERT),
    (b"#?RADIANCE", "Radiance HDR", CONVERT),
    (b"DDS ", "a DDS texture", CONVERT),
    (b"\0\0\1\0", "an icon (ICO)", CONVERT),
    (b"gimp xcf", "a GIMP file", CONVERT),
    (b"%PDF", "PDF", CONVERT),
    (b"%!PS", "PostScript", CONVERT),
    (b"PK\3\4", "a zip", "unpack it first"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"\x1aE\xdf\xa3", "a video", "take single frames from it"),
    (b"version https://git-lfs", "a pointer to a file in Git LFS", "get the file itself with git lfs pull"),
    (b"Salted__", "encrypted", "decrypt it first"),
    (b"-----BEGIN PGP MESSAGE", "encrypted", "decrypt it first"),
    (b"age-encryption.org/", "encrypted", "decrypt it first"),
)

# Programs that make PNGs of all files of an ending, or of one file.
_PROGRAMS = {
    "magick mogrify -format png {folder}*{suffix}": (
        ".avif", ".heic", ".heif", ".hif", ".ico", ".j2k", ".jp2", ".jxl", ".psd", ".svg", ".tga",
    ),
    "darktable-cli {file} {stem}.png": (
        ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ),
    "pdftoppm -png {file} {stem}": (".pdf",),
    "ffmpeg -i {file} -vf fps=1 {stem}-%05d.png": (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm", ".wmv"),
}  # fmt: skip


def command_to_convert(path: str) -> str | None:
    """A command that makes PNGs of a file with the ending of pictures or videos that are not read; None for others.

    Args:
        path: of the file, with forward slashes.

    >>> command_to_convert("my photos/IMG_1.HEIC")
    "magick mogrify -format png 'my photos'/*.HEIC"
    """
    file = PurePosixPath(path)
    program = next((each for each, suffixes in _PROGRAMS.items() if file.suffix.lower() in suffixes), None)
    if program is None:
        return None
    folder = "" if str(file.parent) == "." else f"{shlex.quote(str(file.parent))}/"
    stem = shlex.quote(str(file.with_suffix("")))
    return program.format(folder=folder, suffix=file.suffix, file=shlex.quote(str(file)), stem=stem)


def kind_of(data: bytes) -> str | None:
    """What a file is that begins with `data`, and what to do about it; None for what may be a damaged image.

    >>> kind_of(b"<!DOCTYPE html><title>404</title>")
    'a web page: download it again'
    """
    if not data:
        return f"an empty file: {DOWNLOAD}"
    if data[4:8] == b"ftyp":
        # The main brand, and those that the file is compatible with.
        brands = [data[8:12], *(data[i : i + 4] for i in range(16, min(len(data), 64), 4))]
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        specific = [name for name in found if name != "HEIF"] or found
        return f"{specific[0]}: {CONVERT}" if specific else "a video: take single frames from it"
    for beginning, name, remedy in _BEGINNINGS:
        if data.startswith(beginning):
            return f"{name}: {remedy}"
    return _kind_of_text(data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _kind_of_text(text: bytes) -> str | None:
    if re.match(rb"<!doctype html|<html|<head|<body", text):
        return f"a web page: {DOWNLOAD}"
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        if b"<svg" in text or b"doctype svg" in text:
            return f"a vector graphic (SVG): {CONVERT}"
        return f"a web page: {DOWNLOAD}" if b"<html" in text else f"XML, an error of a server perhaps: {DOWNLOAD}"
    if re.match(rb'[{\[]\s*["{\[\]}]', text):
        return f"JSON, an error of a server perhaps: {DOWNLOAD}"
    return None
