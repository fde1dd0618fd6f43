# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image files of a folder or zip as a source of `ggdr dataset`, with their label maps if it has a layout of such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import ListedFile
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_map_files import classes_of_maps
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.data.labels import FoundLabels, read_labels
from ggdr.torch_utils.data.pair_folders import find_label_maps, has_splits, of_split

# An image file's bytes, uint8 pixels [H, W] or [H, W, 3], or what kept it from being read.
Raw = bytes | np.ndarray | DataError


class FileSource:
    """See `archives.Source`.

    Args:
        path:  of the folder or zip.
        split: "train", "val" or "test": images of folders of this split alone, where all folders are such. None: all,
            but of a set with label maps "train".

    Raises:
        DataError: it holds no images, or lacks the split; some images have a label map, and others none.
    """

    default_resolution = None
    small = "error"

    def __init__(self, path: str | Path, split: str | None = None):
        self._container = Container(path)
        if split is not None and not has_splits(self._container.image_files(label_maps=True)):
            where = self._container.where()
            raise DataError(f"{where}: has no folders such as train and val alone, of which --split names one")
        self._pairs = find_label_maps(self._container, split or "train")
        if self._pairs is None:
            self._files = self._container.image_files()
            if split is not None:
                self._files = of_split(self._container, self._files, split)
        else:
            self._files = self._pairs.b
        self.count = len(self._files)
        self.has_label_maps = self._pairs is not None
        found = self._labels()
        self.labels, self.label_note = found.table, found.note
        self.left_out = self._container.left_out()

    def items(self, indices: Iterable[int]) -> Iterator[tuple[str, Raw]]:
        """(name for messages, bytes) of the given images."""
        return self._read(self._files[i] for i in indices)

    def label_maps(self, indices: Iterable[int]) -> Iterator[tuple[str, Raw]]:
        """(name for messages, bytes) of the label maps of the given images."""
        rows = np.argsort(self._pairs.partner)  # each image is the partner of one
        return self._read(self._pairs.a[int(rows[i])] for i in indices)

    def label_classes(
        self, num: int | None, ignored: Sequence[int] | None, progress: Callable[[int, int], None]
    ) -> LabelClasses:
        """What the values in its label maps mean; see `label_map_files.classes_of_maps`."""
        return classes_of_maps(self._container, self._pairs.folder, self._pairs.a, num, ignored, progress)

    def _read(self, files: Iterable[ListedFile]) -> Iterator[tuple[str, Raw]]:
        for file in files:
            try:
                raw: Raw = self._container.read(file)
            except DataError as error:
                raw = error
            yield self._container.where(file.name), raw

    def _labels(self) -> FoundLabels:
        if self._pairs is not None and self._pairs.folder not in (None, "labels"):
            return FoundLabels(None, "folders of this set are places or parts, not classes")
        return read_labels(self._container, self._files.names, leave_out_strays=True)
