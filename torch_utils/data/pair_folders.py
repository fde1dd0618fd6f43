# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder or zip belong together, and which of them are label maps. Imports no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import FileTable, shared_folder
from ggdr.torch_utils.data.image_files import JPEG_SUFFIXES, DataError
from ggdr.torch_utils.data.label_maps import CLASS_MODES
from ggdr.torch_utils.data.labels import SPLITS
from ggdr.torch_utils.untrusted.text import printable

MOST_NAMED = 3  # files in a message
# Folders of label maps and of their images, and what their files' names end in besides. Others are left out.
LABEL_FOLDERS = {
    "labels": ("images", "", ""),
    "annotations": ("images", "", ""),  # ADE20K
    "stuffthingmaps": ("images", "", ""),  # COCO-Stuff
    "gtfine": ("leftimg8bit", "_gtFine_labelIds", "_leftImg8bit"),  # Cityscapes
}
SAME_SPLITS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))


@dataclass(frozen=True)
class Pairs:
    """Files that belong together.

    Attributes:
        a, b:    tables of files; the same one where both images lie side by side in each file.
        partner: [len(a)] int64, the row of b that belongs to each row of a.
        labels:  which of "A" and "B" are label maps, as far as the folders say.
        folder:  that of the label maps in LABEL_FOLDERS; None in other layouts.
    """

    a: FileTable
    b: FileTable
    partner: np.ndarray
    labels: frozenset[str] = frozenset()
    folder: str | None = None

    @property
    def is_side_by_side(self) -> bool:
        return self.a is self.b


def find_label_maps(container: Container, split: str = "train") -> Pairs | None:
    """The label maps, as A, and the images of a folder or zip that has one of the layouts of such sets.

    Folders of LABEL_FOLDERS, with folders of splits above or below these; or a JPEG of each image beside a PNG of its
    name that can be a label map. None: it has none of these layouts.

    Raises:
        DataError: some have no partner, or two have one name; it has no images of this split.
    """
    files = container.image_files(label_maps=True)
    if folders_of_split(files, split) is not None:
        inside = [files.take(rows) for rows in top_folders(files).values()]
        if not any(_label_folder(each) for each in inside):
            return None
        files = of_split(container, files, split)
    found = labelled_pairs(container, files, split)
    if found is None and (by_ending := pairs_by_ending(files)) is not None:
        images, maps = by_ending
        if container.header(maps[0])[1] in CLASS_MODES:
            found = matched_endings(container, images, maps)
    return found


def labelled_pairs(container: Container, files: FileTable, split: str) -> Pairs | None:
    """Label maps and their images, if there are folders of such names."""
    maps = _label_folder(files)
    if maps is None:
        return None
    images, map_end, image_end = LABEL_FOLDERS[maps]
    tops = {(name or "").lower(): (name, rows) for name, rows in top_folders(files).items()}
    (a_name, a_rows), (b_name, b_rows) = tops[maps], tops[images]
    a, b = (of_split(container, files.take(rows), split) for rows in (a_rows, b_rows))
    # A folder of label maps may hold other kinds of maps of the same images.
    a_stems = stems(a)
    kept = [i for i, stem in enumerate(a_stems) if stem.endswith(map_end)]
    a, a_stems = a.take(np.array(kept, np.int64)), [a_stems[i].removesuffix(map_end) for i in kept]
    b_stems = [stem.removesuffix(image_end) for stem in stems(b)]
    found = matched(container, (a_name, a, a_stems), (b_name, b, b_stems), frozenset("A"))
    return replace(found, folder=maps)


def _label_folder(files: FileTable) -> str | None:
    """The folder of LABEL_FOLDERS that lies, with that of its images, below the one that all share."""
    tops = {(name or "").lower() for name in top_folders(files)}
    return next((maps for maps, (images, *_) in LABEL_FOLDERS.items() if {maps, images} <= tops), None)


def pairs_by_ending(files: FileTable) -> tuple[FileTable, FileTable] | None:
    """JPEGs and PNGs, if there is nothing else and some have a name in common."""
    endings = [PurePosixPath(name).suffix.lower() for name in files.names]
    images = files.take(np.array([i for i, end in enumerate(endings) if end in JPEG_SUFFIXES], np.int64))
    maps = files.take(np.array([i for i, end in enumerate(endings) if end == ".png"], np.int64))
    if len(images) + len(maps) < len(files) or not {*whole_stems(images)} & {*whole_stems(maps)}:
        return None
    return images, maps


def matched_endings(container: Container, images: FileTable, maps: FileTable) -> Pairs:
    """The pairs of `pairs_by_ending`; raises DataError where one has no partner."""
    sides = [("the PNGs", maps, whole_stems(maps)), ("the JPEGs", images, whole_stems(images))]
    return matched(container, *sides, frozenset("A"))


def of_split(container: Container, files: FileTable, split: str) -> FileTable:
    """Those in the folder of a split (train, training, train2017), if all folders are such of splits.

    Raises:
        DataError: they are, and none is of this one.
    """
    mine = folders_of_split(files, split)
    if mine is None:
        return files
    if not mine:
        found = some_names(list(top_folders(files)))
        raise DataError(f"{container.where()}: expected images in a folder {split}, found {found}")
    return files.take(np.sort(np.concatenate(mine)))


def has_splits(files: FileTable) -> bool:
    """Whether all folders, or all in one of them, are such of splits."""
    inside = (files.take(rows) for rows in top_folders(files).values())
    return any(folders_of_split(table, SPLITS[0]) is not None for table in (files, *inside))


def folders_of_split(files: FileTable, split: str) -> list[np.ndarray] | None:
    """Rows of the files in each folder of a split; None if not all folders are such of splits."""
    tops = top_folders(files)
    plain = {name: re.sub(r"\d+$", "", name or "").lower() for name in tops}
    if not all(name in SPLITS for name in plain.values()):
        return None
    words = next((same for same in SAME_SPLITS if split in same), (split,))
    return [tops[name] for name in tops if plain[name] in words]


def top_folders(files: FileTable, root: str | None = None) -> dict[str | None, np.ndarray]:
    """Rows of the files in each folder below `root`, or the one that all share; None: beside these folders."""
    start = len(shared_folder(files.names) if root is None else root)
    rows: dict[str | None, list[int]] = {}
    for i, name in enumerate(files.names):
        folder, slash, _ = name[start:].partition("/")
        rows.setdefault(folder if slash else None, []).append(i)
    return {name: np.array(its, np.int64) for name, its in rows.items()}


def stems(files: FileTable) -> list[str]:
    """Names below the folder that all share, without endings."""
    start = len(shared_folder(files.names)) if len(files) else 0
    return [stem[start:] for stem in whole_stems(files)]


def whole_stems(files: FileTable) -> list[str]:
    """Names without endings."""
    return [name.removesuffix(PurePosixPath(name).suffix) for name in files.names]


Side = tuple[str, FileTable, list[str]]  # what it is called, its files, and the names that partners share


def differing_sizes(wheres: Sequence[str], sizes: Sequence[tuple[int, int]]) -> str:
    """What to say of a pair whose images are of different sizes."""
    (width, height), (other_width, other_height) = sizes
    return (
        f"{wheres[0]}: is {width}x{height}, and {wheres[1]} is {other_width}x{other_height}; the two images of a pair "
        "have one size"
    )


def matched(container: Container, a: Side, b: Side, labels: frozenset[str] = frozenset()) -> Pairs:
    """The files of two sides by equal names."""
    (a_name, a_files, a_stems), (b_name, b_files, b_stems) = a, b
    for name, _, its_stems in (a, b):
        twice = [stem for stem, num in Counter(its_stems).items() if num > 1]
        if twice:
            raise DataError(f"{container.where()}: two images of {printable(name)} are called {some_names(twice)}")
    rows = {stem: i for i, stem in enumerate(b_stems)}
    alone = (
        (b_name, a_name, [stem for stem in a_stems if stem not in rows]),
        (a_name, b_name, sorted(rows.keys() - set(a_stems))),
    )
    lonely = [f"in {printable(other)} for {some_names(its)} of {printable(name)}" for other, name, its in alone if its]
    if lonely:
        raise DataError(
            f"{container.where()}: no partner {'; none '.join(lonely)}; the two images of a pair have one name"
        )
    return Pairs(a_files, b_files, np.array([rows[stem] for stem in a_stems], np.int64), labels)


def some_names(names: Sequence[str]) -> str:
    """The first names, and how many there are, for messages."""
    shown = ", ".join(printable(name) for name in names[:MOST_NAMED])
    return shown + (f", ... ({len(names)} in all)" if len(names) > MOST_NAMED else "")
