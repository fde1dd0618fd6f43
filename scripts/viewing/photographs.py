# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Anyone's images, as a network could make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ggdr.torch_utils.data.archives import spread
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.convert import Conversion
from ggdr.torch_utils.data.image_files import MAX_FILE, DataError, load_image
from ggdr.torch_utils.untrusted.regular_files import read_regular
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
    for path, where, read in (found[i] for i in spread(len(found), most)):
        raw, name, number = read(), Path(path).stem, 2
        while name in targets:
            name, number = f"{Path(path).stem}-{number}", number + 1
        size = load_image(raw, where).size
        targets[name] = Target(name, where, size, convert(raw, where).reshape(res, res, channels))
    return list(targets.values())


def unread_files(paths: Sequence[Path]) -> list[str]:
    """Which files of folders and zips are not read as images, a line for each that has some."""
    containers = [Container(path) for path in paths if _is_container(path)]
    return [f"{container.where()}: {container.left_out()}" for container in containers if container.left_out()]


def image_files(paths: Sequence[Path]) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Path, name for messages, and what reads the content, of each image file."""
    for path in paths:
        if _is_container(path):
            container = Container(path)
            for file in container.image_files():
                yield file.name, container.where(file.name), partial(container.read, file)
        else:
            yield str(path), printable(path), partial(_read, path)


def _is_container(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".zip"


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror or error})") from error
