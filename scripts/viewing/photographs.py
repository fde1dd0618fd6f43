# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Anyone's images, as a network could make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ggdr.torch_utils.data.archives import spread
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.convert import Conversion
from ggdr.torch_utils.data.image_files import MAX_FILE, DataError, load_image, read_size
from ggdr.torch_utils.untrusted.regular_files import open_regular, read_regular
from ggdr.torch_utils.untrusted.text import printable, shortened


@dataclass(frozen=True)
class Target:
    """An image as the network could make it.

    Attributes:
        name:  of its own, that files about it begin with.
        where: it came from.
        size:  (width, height) that it had there, upright.
        image: [res, res, C] uint8.
    """

    name: str
    where: str
    size: tuple[int, int]
    image: np.ndarray

    @property
    def short_name(self) -> str:
        """The name, without its middle if it would not fit on a picture."""
        return shortened(self.name)

    def describe(self) -> str:
        """What was done to the image, in a line."""
        (width, height), side, res = self.size, min(self.size), len(self.image)
        parts = [f"{self.where}: {width}x{height}"]
        parts += [f"cropped to its central {side}x{side}"] if width != height else []
        parts += [f"{'shrunk' if side > res else 'enlarged'} to {res}x{res}"] if side != res else []
        return ", ".join(parts)


def read_targets(paths: Sequence[Path], res: int, channels: int, *, most: int | None = None) -> list[Target]:
    """Images from files, and from folders and zips (recursively), cropped to squares and resized to `res` pixels.

    Channels, crop and resize are those of `ggdr dataset --transform center-crop`, which also enlarges here. Of more
    than `most` images as many are taken, evenly spread.

    Raises:
        DataError: a file is no image, or a folder or zip holds none.
    """
    convert = Conversion(resolution=res, transform="center-crop", channels=channels, small="upscale")
    targets: dict[str, Target] = {}
    found = list(image_files(paths))
    for path, where, read, _ in (found[i] for i in spread(len(found), most)):
        raw, name, number = read(), Path(path).stem, 2
        while name in targets:
            name, number = f"{Path(path).stem}-{number}", number + 1
        size = load_image(raw, where).size
        targets[name] = Target(name, where, size, convert(raw, where).reshape(res, res, channels))
    return list(targets.values())


def unread_files(paths: Sequence[Path]) -> list[str]:
    """Which files of folders and zips are not read as images, a line for each that has some."""
    containers = [Container(path) for path in paths if is_container(path)]
    return [f"{container.where()}: {container.left_out()}" for container in containers if container.left_out()]


class ImageFile(NamedTuple):
    """An image file, in a folder or zip or by itself.

    Attributes:
        path:   inside the folder or zip, with forward slashes; of a file by itself as it was given.
        where:  its name for messages.
        read:   gives its bytes; DataError where they cannot be read.
        header: gives ((width, height), Pillow mode), upright, of which only the beginning is read; DataError likewise.
    """

    path: str
    where: str
    read: Callable[[], bytes]
    header: Callable[[], tuple[tuple[int, int], str]]


def image_files(paths: Sequence[Path]) -> Iterator[ImageFile]:
    """All image files among these files, folders and zips; those below a folder recursively."""
    for path in paths:
        if is_container(path):
            container = Container(path)
            for file in container.image_files():
                read, header = partial(container.read, file), partial(container.header, file, upright=True)
                yield ImageFile(file.name, container.where(file.name), read, header)
        else:
            yield ImageFile(str(path), printable(path), partial(_read, path), partial(_header, path))


def is_container(path: Path) -> bool:
    """Whether files are read from it: a folder or a zip."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror or error})") from error


def _header(path: Path) -> tuple[tuple[int, int], str]:
    try:
        with open_regular(path) as file:
            return read_size(file, printable(path), upright=True)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror or error})") from error
