# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder or zip are the images of a domain, and which two are a pair. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import FileTable, shared_folder
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.labels import read_labels
from ggdr.torch_utils.data.pair_folders import (
    LABEL_FOLDERS,
    Pairs,
    folders_of_split,
    labelled_pairs,
    matched,
    matched_endings,
    of_split,
    pairs_by_ending,
    some_names,
    stems,
    top_folders,
)
from ggdr.torch_utils.untrusted.text import printable

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
    files = of_split(container, files, split)
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
        raise DataError(f"{container.where()}: {some_names(empty)} of its {table.c_dim} domains hold no images")
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
    everything = container.image_files(label_maps=True)
    found = _numbered(everything, split)
    if found:
        if list(found) != ["A", "B"]:
            raise DataError(
                f"{container.where()}: expected pairs in {split}A and {split}B, found images in "
                f"{some_names([split + name for name in found])}{_left_out(container)}"
            )
        a, b = (everything.take(rows) for rows in found.values())
        return matched(container, (f"{split}A", a, stems(a)), (f"{split}B", b, stems(b)))
    files = of_split(container, everything, split)
    labelled = labelled_pairs(container, files, split)
    if labelled is not None:
        return labelled
    tops = top_folders(files)
    if len(tops) == 2 and None not in tops:
        sides = [(name, table, stems(table)) for name, table in ((n, files.take(rows)) for n, rows in tops.items())]
        return matched(container, *sides)
    by_ending = pairs_by_ending(files)
    if by_ending is not None:
        return matched_endings(container, *by_ending)
    if None not in tops:
        raise DataError(
            f"{container.where()}: expected pairs side by side in one image, or two folders with images of equal "
            f"names, found {len(tops)} folders: {some_names(list(tops))}{_left_out(container)}"
        )
    return Pairs(files, files, np.arange(len(files)))


def held_out_split(container: Container) -> str:
    """The split of the images that metrics are measured on: "test", else "val", else "train".

    A split is there if folders SPLITA or SPLIT0 and the like are, or if all folders are such of splits, and one is of
    this; folders of label maps and of their images may have these inside.
    """
    files = container.image_files(label_maps=True)
    tops = {(name or "").lower(): rows for name, rows in top_folders(files).items()}
    inside = [files.take(tops[name]) for name in tops if name in LABEL_FOLDERS]
    for split in ("test", "val"):
        if _numbered(files, split) or any(folders_of_split(table, split) for table in (files, *inside)):
            return split
    return "train"


def _numbered(files: FileTable, split: str) -> dict[str, np.ndarray]:
    """Rows of the folders SPLITA, SPLITB, ... or SPLIT0, SPLIT1, ..., by their letters or numbers, in order."""
    kind = re.compile(rf"{re.escape(split)}([A-Z]|\d{{1,4}})")
    root = shared_folder(files.names)
    if kind.fullmatch(PurePosixPath(root).name):
        # One such folder holds everything; it is named in the error.
        root = root.removesuffix(f"{PurePosixPath(root).name}/")
    found = {m[1]: rows for name, rows in top_folders(files, root).items() if (m := kind.fullmatch(name or ""))}
    return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}


def _left_out(container: Container) -> str:
    left_out = container.left_out()
    return f"; {left_out}" if left_out else ""
