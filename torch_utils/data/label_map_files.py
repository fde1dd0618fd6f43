# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The label maps of a dataset of ours: which files they are, what is in them, and reading them. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import CLASSES_FILE, IMAGES, LABEL_MAPS, Container
from ggdr.torch_utils.data.file_table import FileTable, ListedFile, evenly_spread, shared_folder
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.data.label_maps import (
    IGNORED,
    LabelClasses,
    check_label_map,
    classes_from_file,
    find_classes,
    known_classes,
    numbered_classes,
)
from ggdr.torch_utils.data.pair_folders import matched, whole_stems
from ggdr.torch_utils.untrusted.text import printable

MAX_CLASSES_FILE = 2**20  # bytes
_HOW_TO_MAKE = "ggdr dataset makes a dataset with label maps of folders of both, as docs/datasets.md says"
_NUM_CHECKED = 256  # files whose header is read on opening; the rest are checked when they are decoded


@dataclass(frozen=True)
class LabelMapFiles:
    """The label maps of a list of images.

    Attributes:
        files:   they, in an order of their own.
        rows:    [N] int64, the row of `files` that belongs to each image.
        classes: what their values mean.
    """

    files: FileTable
    rows: np.ndarray
    classes: LabelClasses

    def at(self, images: np.ndarray) -> list[ListedFile]:
        """The files of the images of these numbers."""
        return [self.files[i] for i in self.rows[images].tolist()]

    def take(self, images: np.ndarray) -> LabelMapFiles:
        """Those of the images of these numbers."""
        return LabelMapFiles(self.files, self.rows[images], self.classes)


def read_classes(container: Container, root: str = "") -> LabelClasses | None:
    """What classes.json in the folder `root`, "" or "x/", says; None if there is none.

    Raises:
        DataError: it cannot be read, or describes no classes.
    """
    file = container.find(root + CLASSES_FILE)
    if file is None:
        return None
    return classes_from_file(container.read(file, MAX_CLASSES_FILE), container.where(file.name))


def classes_of_maps(
    container: Container,
    folder: str | None,
    files: FileTable,
    num: int | None = None,
    ignored: Sequence[int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelClasses:
    """What the values in label maps mean.

    Without `num` and `ignored`, as classes.json beside its folders says, or as it is known of a published set. Else the
    `num` smallest values that are not ignored, or those that occur, for which all files are looked through.

    Args:
        folder:   that of the label maps in LABEL_FOLDERS; None in other layouts.
        files:    the label maps.
        ignored:  values of pixels that belong to no class; None: 255.
        progress: called with the number of files looked through, and of all.

    Raises:
        DataError: classes.json is damaged, or a file is no label map.
        ValueError: there are no `num` values that are not ignored.
    """
    if num is None and ignored is None:
        found = read_classes(container, shared_folder(container.image_files(label_maps=True).names))
        found = found or known_classes(folder, files)
        if found is not None:
            return found
    ignored = (IGNORED,) if ignored is None else ignored
    if num is not None:
        return numbered_classes(num, ignored)
    return find_classes(container, files, ignored, progress)


def label_maps_of_dataset(container: Container) -> LabelMapFiles | None:
    """The label maps of `container.image_files()`; None if there are none.

    Raises:
        DataError: an image has none, or two, or one has no image; classes.json is damaged.
    """
    images, maps = container.image_files(), container.label_map_files()
    if not len(maps):
        return None
    root = shared_folder([images.names[0], maps.names[-1]])
    sides = [
        (folder, files, [stem.removeprefix(root + folder) for stem in whole_stems(files)])
        for folder, files in ((IMAGES, images), (LABEL_MAPS, maps))
    ]
    return LabelMapFiles(maps, matched(container, *sides).partner, read_classes(container, root))


def no_label_maps(container: Container) -> str:
    """Why a container of which `label_maps_of_dataset` finds none has no label maps, and what to do, in half a line."""
    names = container.image_files().names
    root = shared_folder([names[0], names[-1]])
    if all(any(name.startswith(root + folder) for name in names) for folder in (IMAGES, LABEL_MAPS)):
        command = shlex.join(["ggdr", "dataset", container.path.as_posix(), "NEW.zip"])
        return (
            f"has {IMAGES} and {LABEL_MAPS}, but no {CLASSES_FILE}, which says what label maps mean; make a dataset "
            f"with it: {printable(command, 1000)}"
        )
    return f"has no label maps; {_HOW_TO_MAKE}"


@dataclass(frozen=True)
class LabelMapDecoder:
    """Reads label maps of one size; what worker processes need, and small to pickle.

    Attributes:
        container:  where the files are.
        resolution: side in pixels that all must have, as their images.
        classes:    what their values mean.
    """

    container: Container
    resolution: int
    classes: LabelClasses

    def __call__(self, files: Sequence[ListedFile]) -> np.ndarray:
        """The classes of these files, uint8 [n, 1, H, W]: 0 to classes.num - 1, or label_maps.IGNORED.

        Raises:
            DataError: one cannot be decoded, is no label map, has another size, or a value that is no class.
        """
        numbers = np.empty((len(files), 1, self.resolution, self.resolution), dtype=np.uint8)
        for its_numbers, file in zip(numbers, files, strict=True):
            where = self.container.where(file.name)
            img = load_image(self.container.read(file), where, partial(self._check_image, where))
            self._check_image(where, img)  # decoding can change it
            its_numbers[0] = self.classes.numbers(np.asarray(img), where)
        return numbers

    def check_some(self, files: FileTable) -> None:
        """Raises DataError for a file among some that is no label map of this size, by its header."""
        for i in evenly_spread(len(files), _NUM_CHECKED):
            self._check(self.container.where(files[i].name), *self.container.header(files[i]))

    def _check_image(self, where: str, img: Image.Image) -> None:
        self._check(where, img.size, img.mode)

    def _check(self, where: str, size: tuple[int, int], mode: str) -> None:
        check_label_map(mode, where)
        if size != (self.resolution, self.resolution):
            raise DataError(
                f"{where}: is {size[0]}x{size[1]}, expected {self.resolution}x{self.resolution} as its image has"
            )
