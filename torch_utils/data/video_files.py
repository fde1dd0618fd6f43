# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Frames of video files, decoded by the ffmpeg that imageio brings, with errors that name the file. Needs no torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.untrusted.regular_files import open_regular
from ggdr.torch_utils.untrusted.text import error_text, printable

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
MAX_PIXELS = 2**27  # of a frame: 8K has a quarter of that

# ffmpeg's readers of files that begin like this. It is told which to take: left to itself it also takes playlists,
# whose entries are files elsewhere and addresses in the network.
_READERS = (
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (8, b"AVI ", "avi"),
)


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        size:       (width, height) of its frames, upright.
        fps:        frames a second; those of a video whose frames last differently long are repeated or left out so
                    that they keep their times.
        num_frames: about so many frames; 0 if the file does not say.
        has_sound:  whether there is sound beside the pictures.
    """

    path: Path
    reader: str
    size: tuple[int, int]
    fps: float
    num_frames: int
    has_sound: bool

    def frames(self) -> Iterator[np.ndarray]:
        """All frames in order, [H, W, 3] uint8.

        Raises:
            DataError: there is none, or one cannot be decoded.
        """
        width, height = self.size
        is_empty = True
        with closing(_read(self.path, self.reader)) as stream:
            next(stream)
            try:
                for data in stream:
                    is_empty = False
                    yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
            except (RuntimeError, OSError) as error:
                raise DataError(f"{printable(self.path)}: cannot be decoded ({_first_line(error)})") from error
        if is_empty:
            raise DataError(f"{printable(self.path)}: no frame can be decoded, the video is corrupt or truncated")


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file, by its name, is a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def open_video(path: str | os.PathLike) -> Video:
    """What a video file says about itself.

    Raises:
        DataError: it cannot be read, is no video, or has no frames or frames without end.
    """
    path, where = Path(path), printable(path)
    try:
        with open_regular(path) as file:
            beginning = file.read(16)
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error_text(error)})") from error
    readers = [name for at, mark, name in _READERS if beginning[at : at + len(mark)] == mark]
    if not readers:
        raise DataError(f"{where}: no video of a known kind; expected MP4, QuickTime, WebM, Matroska or AVI")
    try:
        with closing(_read(path, readers[0])) as stream:
            meta = next(stream)
    except Exception as error:  # the text of ffmpeg is taken apart, which fails in many ways
        raise DataError(f"{where}: cannot be decoded, the video is corrupt or truncated") from error
    width, height = meta["size"]
    if not 1 <= width * height <= MAX_PIXELS:
        raise DataError(f"{where}: its frames have {width}x{height} pixels, expected {MAX_PIXELS:,} at most")
    if not 0 < meta["fps"] <= 1000:
        raise DataError(f"{where}: shows {meta['fps']:g} frames a second, expected a number above 0 and up to 1000")
    num_frames = round(meta["duration"] * meta["fps"])
    return Video(path, readers[0], (width, height), meta["fps"], num_frames, "audio_codec" in meta)


def _read(path: Path, reader: str) -> Iterator:
    """What the file says, and then its frames as bytes."""
    import imageio_ffmpeg

    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of videos that it turns upright
    # The whole path, since a name with a colon would be taken for an address.
    params = ["-protocol_whitelist", "file", "-f", reader]
    return imageio_ffmpeg.read_frames(os.path.abspath(path), input_params=params)


def _first_line(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])
