# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder or zip are the images of a domain, and which two are a pair. Imports no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import FileTable
from ggdr.torch_utils.data.image_files import JPEG_SUFFIXES, DataError
from ggdr.torch_utils.data.labels import SPLITS, read_labels, shared_folder
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
DOMAINS_EXPECTED = (
    "expected folders trainA and trainB, or train0, train1 and so on, or a folder for each domain, or dataset.json "
    "with classes"
)


@dataclass(frozen=True)
class Domain:
    """Images of one kind.

    Attributes:
        name:  the folder's, without "train"; or the class'.
        files: they.
    """

    name: str
    files: FileTable


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


def find_domains(container: Container, split: str = "train") -> list[Domain]:
    """The domains of unpaired images.

    These are, in this order: folders SPLITA, SPLITB or SPLIT0, SPLIT1, ...; the classes of dataset.json; folders.
    A folder that holds everything is looked through, and so is one that is called as the split.

    Raises:
        DataError: there are no images, or not two domains, or a domain is empty.
    """
    files = container.image_files()
    found = _numbered(files, split)
    if len(found) == 1:
        (name,) = found
        raise DataError(
            f"{container.where()}: only {split}{printable(name)} holds images; {DOMAINS_EXPECTED}{_left_out(container)}"
        )
    if found:
        return [Domain(name, files.take(rows)) for name, rows in found.items()]
    files = _of_split(container, files, split)
    labels = read_labels(container, files.names)
    table = labels.table
    if table is None or not table.is_onehot:
        reason = labels.note or "its labels are numbers, not classes"
        raise DataError(f"{container.where()}: holds no domains ({reason}); {DOMAINS_EXPECTED}{_left_out(container)}")
    # Classes may have fewer names than there are.
    names = [*(table.classes or []), *map(str, range(len(table.classes or []), table.c_dim))]
    counts = np.bincount(table.values, minlength=table.c_dim)
    empty = [names[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(f"{container.where()}: {_some(empty)} of its {table.c_dim} domains hold no images")
    if len(names) < 2:
        raise DataError(f"{container.where()}: holds one domain alone, {printable(names[0])}; {DOMAINS_EXPECTED}")
    rows = np.split(table.values.argsort(kind="stable"), counts.cumsum()[:-1])
    return [Domain(name, files.take(its)) for name, its in zip(names, rows, strict=True)]


def find_pairs(container: Container, split: str = "train") -> Pairs:
    """The pairs of a folder or zip.

    These are, in this order: files of equal names in folders SPLITA and SPLITB; in a folder of images and one of label
    maps (LABEL_FOLDERS), the maps as A; in two folders; a JPEG and a PNG of one name, the PNG as label map A; else
    each file holds both images side by side. Names are compared without their endings.

    Raises:
        DataError: there are no images; some have no partner, or two have one name.
    """
    everything = container.image_files()
    found = _numbered(everything, split)
    if found:
        if list(found) != ["A", "B"]:
            raise DataError(
                f"{container.where()}: expected pairs in {split}A and {split}B, found images in "
                f"{_some([split + name for name in found])}{_left_out(container)}"
            )
        a, b = (everything.take(rows) for rows in found.values())
        return _matched(container, (f"{split}A", a, _stems(a)), (f"{split}B", b, _stems(b)))
    files = _of_split(container, everything, split)
    labelled = _labelled(container, files, split)
    if labelled is not None:
        return labelled
    tops = _tops(files)
    if len(tops) == 2 and None not in tops:
        sides = [(name, table, _stems(table)) for name, table in ((n, files.take(rows)) for n, rows in tops.items())]
        return _matched(container, *sides)
    by_ending = _by_ending(files)
    if by_ending is not None:
        images, maps = by_ending
        sides = [("the PNGs", maps, _whole_stems(maps)), ("the JPEGs", images, _whole_stems(images))]
        return _matched(container, *sides, frozenset("A"))
    if None not in tops:
        raise DataError(
            f"{container.where()}: expected pairs side by side in one image, or two folders with images of equal "
            f"names, found {len(tops)} folders: {_some(list(tops))}{_left_out(container)}"
        )
    return Pairs(files, files, np.arange(len(files)))


def held_out_split(container: Container) -> str:
    """The split of the images that metrics are measured on: "test", else "val", else "train".

    A split is there if folders SPLITA or SPLIT0 and the like are, or if all folders are such of splits, and one is of
    this; folders of label maps and of their images may have these inside.
    """
    files = container.image_files()
    tops = {(name or "").lower(): rows for name, rows in _tops(files).items()}
    inside = [files.take(tops[name]) for name in tops if name in LABEL_FOLDERS]
    for split in ("test", "val"):
        if _numbered(files, split) or any(_folders_of(table, split) for table in (files, *inside)):
            return split
    return "train"


def _numbered(files: FileTable, split: str) -> dict[str, np.ndarray]:
    """Rows of the folders SPLITA, SPLITB, ... or SPLIT0, SPLIT1, ..., by their letters or numbers, in order."""
    kind = re.compile(rf"{re.escape(split)}([A-Z]|\d{{1,4}})")
    root = shared_folder(files.names)
    if kind.fullmatch(PurePosixPath(root).name):
        # One such folder holds everything; it is named in the error.
        root = root.removesuffix(f"{PurePosixPath(root).name}/")
    found = {m[1]: rows for name, rows in _tops(files, root).items() if (m := kind.fullmatch(name or ""))}
    return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}


def _labelled(container: Container, files: FileTable, split: str) -> Pairs | None:
    """Label maps and their images, if there are folders of such names."""
    tops = {(name or "").lower(): (name, rows) for name, rows in _tops(files).items()}
    for maps, (images, map_end, image_end) in LABEL_FOLDERS.items():
        if maps in tops and images in tops:
            (a_name, a_rows), (b_name, b_rows) = tops[maps], tops[images]
            a, b = (_of_split(container, files.take(rows), split) for rows in (a_rows, b_rows))
            # A folder of label maps may hold other kinds of maps of the same images.
            a_stems = _stems(a)
            kept = [i for i, stem in enumerate(a_stems) if stem.endswith(map_end)]
            a, a_stems = a.take(np.array(kept, np.int64)), [a_stems[i].removesuffix(map_end) for i in kept]
            b_stems = [stem.removesuffix(image_end) for stem in _stems(b)]
            found = _matched(container, (a_name, a, a_stems), (b_name, b, b_stems), frozenset("A"))
            return replace(found, folder=maps)
    return None


def _by_ending(files: FileTable) -> tuple[FileTable, FileTable] | None:
    """JPEGs and PNGs, if there is nothing else and some have a name in common."""
    endings = [PurePosixPath(name).suffix.lower() for name in files.names]
    images = files.take(np.array([i for i, end in enumerate(endings) if end in JPEG_SUFFIXES], np.int64))
    maps = files.take(np.array([i for i, end in enumerate(endings) if end == ".png"], np.int64))
    if len(images) + len(maps) < len(files) or not {*_whole_stems(images)} & {*_whole_stems(maps)}:
        return None
    return images, maps


def _of_split(container: Container, files: FileTable, split: str) -> FileTable:
    """Those in the folder of a split (train, training, train2017), if all folders are such of splits.

    Raises:
        DataError: they are, and none is of this one.
    """
    mine = _folders_of(files, split)
    if mine is None:
        return files
    if not mine:
        raise DataError(f"{container.where()}: expected images in a folder {split}, found {_some(list(_tops(files)))}")
    return files.take(np.sort(np.concatenate(mine)))


def _folders_of(files: FileTable, split: str) -> list[np.ndarray] | None:
    """Rows of the files in each folder of a split; None if not all folders are such of splits."""
    tops = _tops(files)
    plain = {name: re.sub(r"\d+$", "", name or "").lower() for name in tops}
    if not all(name in SPLITS for name in plain.values()):
        return None
    words = next((same for same in SAME_SPLITS if split in same), (split,))
    return [tops[name] for name in tops if plain[name] in words]


def _tops(files: FileTable, root: str | None = None) -> dict[str | None, np.ndarray]:
    """Rows of the files in each folder below `root`, or the one that all share; None: beside these folders."""
    start = len(shared_folder(files.names) if root is None else root)
    rows: dict[str | None, list[int]] = {}
    for i, name in enumerate(files.names):
        folder, slash, _ = name[start:].partition("/")
        rows.setdefault(folder if slash else None, []).append(i)
    return {name: np.array(its, np.int64) for name, its in rows.items()}


def _stems(files: FileTable) -> list[str]:
    """Names below the folder that all share, without endings."""
    start = len(shared_folder(files.names)) if len(files) else 0
    return [stem[start:] for stem in _whole_stems(files)]


def _whole_stems(files: FileTable) -> list[str]:
    return [name.removesuffix(PurePosixPath(name).suffix) for name in files.names]


Side = tuple[str, FileTable, list[str]]  # what it is called, its files, and the names that partners share


def _matched(container: Container, a: Side, b: Side, labels: frozenset[str] = frozenset()) -> Pairs:
    """The files of two sides by equal names."""
    (a_name, a_files, a_stems), (b_name, b_files, b_stems) = a, b
    for name, _, stems in (a, b):
        twice = [stem for stem, num in Counter(stems).items() if num > 1]
        if twice:
            raise DataError(f"{container.where()}: two images of {printable(name)} are called {_some(twice)}")
    rows = {stem: i for i, stem in enumerate(b_stems)}
    alone = (
        (b_name, a_name, [stem for stem in a_stems if stem not in rows]),
        (a_name, b_name, sorted(rows.keys() - set(a_stems))),
    )
    lonely = [f"in {printable(other)} for {_some(stems)} of {printable(name)}" for other, name, stems in alone if stems]
    if lonely:
        raise DataError(
            f"{container.where()}: no partner {'; none '.join(lonely)}; the two images of a pair have one name"
        )
    return Pairs(a_files, b_files, np.array([rows[stem] for stem in a_stems], np.int64), labels)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:MOST_NAMED])
    return shown + (f", ... ({len(names)} in all)" if len(names) > MOST_NAMED else "")


def _left_out(container: Container) -> str:
    left_out = container.left_out()
    return f"; {left_out}" if left_out else ""
