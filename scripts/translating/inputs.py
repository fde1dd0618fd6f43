# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Anyone's images and videos to be translated: found, and looked at, before anything is written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.photographs import ImageFile, image_files, is_container
from ggdr.torch_utils.data.image_files import FORMATS, DataError, UnreadableImage
from ggdr.torch_utils.data.video_files import Video, is_video, open_video
from ggdr.torch_utils.untrusted.text import printable

ANIMATED = (".apng", ".gif", ".webp")  # endings of images that may move
MOST_NAMED = 10  # files in a message


@dataclass(frozen=True)
class Input:
    """An image, animation or video.

    Attributes:
        name:   path of what it becomes, below the output folder, with the input's ending.
        where:  its name for messages.
        file:   where it lies on disk, the zip's for one in a zip.
        folder: name of the folder that holds it, or of the zip without ending.
        size:   (width, height), upright.
        frames: of an animation or video about so many; 1 of a still; 0 if a video does not say.
        read:   gives the bytes of an image or animation.
        video:  None for an image or animation.
    """

    name: str
    where: str
    file: str
    folder: str
    size: tuple[int, int]
    frames: int
    read: Callable[[], bytes] | None = None
    video: Video | None = None

    @property
    def is_still(self) -> bool:
        return self.video is None and self.frames == 1


def find_inputs(paths: Sequence[Path], progress: Progress, *, stills: bool = False) -> tuple[list[Input], list[str]]:
    """What is in files, and in folders and zips with all images below them, and notes on it.

    Only headers are read. A file that is given twice is taken once.

    Args:
        stills: take no videos, and of animations the first frame.

    Raises:
        DataError: a folder or zip holds no images, or files cannot be read; all of those are named.
    """
    found: dict[str, tuple[Path, ImageFile | None]] = {}
    repeated = []
    for path in paths:
        files = [None] if is_video(path) and not is_container(path) else image_files([path])
        for file in files:
            inside = f"/{file.path}" if file is not None and is_container(path) else ""
            key = os.path.realpath(path) + inside
            if not path.is_file():  # in a folder the same file may also be given by itself
                key = os.path.realpath(key)
            if key in found:
                repeated.append(printable(path) if file is None else file.where)
            else:
                found[key] = path, file
    inputs, errors = [], []
    for done, (path, file) in enumerate(found.values(), 1):
        try:
            inputs.append(_look_at_video(path, stills) if file is None else _look_at_image(path, file, stills))
        except DataError as error:
            errors.append(str(error))
        progress("files", done, len(found))
    if errors:
        of = f"{len(errors)} of {len(found)} files cannot be translated, and nothing was written: "
        raise DataError((of if len(found) > 1 else "") + joined(errors))
    return inputs, [f"{where}: given twice, taken once" for where in repeated]


def num_frames(data: bytes, where: str) -> int:
    """Of an image file; UnreadableImage if it is damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as img:
            return getattr(img, "n_frames", 1)
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
        text = f"{where}: cannot be decoded, the image is corrupt or truncated ({printable(error)})"
        raise UnreadableImage(text) from error


def _look_at_image(path: Path, file: ImageFile, stills: bool) -> Input:
    size, frames = file.header()[0], 1
    if file.path.lower().endswith(ANIMATED) and not stills:
        frames = num_frames(file.read(), file.where)
    if is_container(path):
        inside = PurePosixPath(file.path)
        folder = inside.parent.name or (path.stem if path.is_file() else path.resolve().name)
        on_disk = path if path.is_file() else path / file.path
        return Input(file.path, file.where, os.path.realpath(on_disk), folder, size, frames, file.read)
    return Input(path.name, file.where, os.path.realpath(path), path.resolve().parent.name, size, frames, file.read)


def _look_at_video(path: Path, stills: bool) -> Input:
    where = printable(path)
    if stills:
        raise DataError(f"{where}: a video; a sheet is made of images")
    video = open_video(path)
    return Input(
        path.name, where, os.path.realpath(path), path.resolve().parent.name, video.size, video.num_frames, video=video
    )


def joined(errors: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = [f"and {len(errors) - MOST_NAMED} more"] if len(errors) > MOST_NAMED else []
    return "; ".join([*errors[:MOST_NAMED], *more])
