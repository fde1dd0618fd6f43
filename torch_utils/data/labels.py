# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Labels of images, from dataset.json or the names of their folders. Needs no torch, as image_files.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import shared_folder
from ggdr.torch_utils.data.image_files import MAX_FILE, DataError
from ggdr.torch_utils.untrusted.json_text import MAX_NESTED, parse_json
from ggdr.torch_utils.untrusted.text import printable

MAX_LABEL = 2**16  # bytes that dataset.json may take for an image,
FREE_TEXT, RATIO_TEXT = 2**23, 64  # and for a zip: so many, and so many for each byte of it
SPLITS = (
    "train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev", "holdout",
)  # fmt: skip
MOST_NAMED = 10  # classes
MAX_CLASSES = 2**16  # labels become one-hot vectors: a stray large number must not fill the memory


@dataclass(frozen=True)
class LabelTable:
    """Labels of a list of images, in its order.

    Attributes:
        values:  [N] int64 class indices, or [N, c_dim] float32 vectors; -1 stands for an image of no class.
        classes: class names, index = label; None when unknown.
    """

    values: np.ndarray
    classes: list[str] | None = None

    @property
    def is_onehot(self) -> bool:
        return self.values.ndim == 1

    @property
    def c_dim(self) -> int:
        if not self.is_onehot:
            return self.values.shape[1]
        return max(int(self.values.max()) + 1, len(self.classes or ()))

    def describe(self) -> str:
        """What labels there are, in half a line."""
        return describe_labels(self.c_dim, self.is_onehot, self.classes)


def describe_labels(c_dim: int, is_onehot: bool, classes: Sequence[str] | None) -> str:
    """What labels there are, in half a line: of many classes the first and the last are named."""
    if not is_onehot:
        return f"labels of length {c_dim}"
    names = [printable(name, 40) for name in classes or ()]
    if len(names) > MOST_NAMED:
        names = [*names[: MOST_NAMED - 2], "...", names[-1]]
    return f"{c_dim} {'class' if c_dim == 1 else 'classes'}" + (f": {', '.join(names)}" if names else "")


@dataclass(frozen=True)
class FoundLabels:
    """What was found out about the labels of images.

    Attributes:
        table:  they, or None.
        note:   why there are none; or what was made of a layout that could mean something else; may be empty.
        remedy: what gives the images labels where there are none.
    """

    table: LabelTable | None
    note: str = ""
    remedy: str = "give labels in dataset.json, or by one sub-folder for each class"


def read_labels(container: Container, names: Sequence[str], *, leave_out_strays: bool = False) -> FoundLabels:
    """Labels from dataset.json, else from the names of the first-level sub-folders, if there are any.

    A folder that holds everything (as archives often have) is looked through, and so are folders called train, val
    and the like, if all are. Sub-folder names count only if there are two or more, at most 65536, and no image lies
    beside them.

    Args:
        container: where dataset.json is.
        names:     all image names, sorted.
        leave_out_strays: images beside the sub-folders get the label -1 if they are few.

    Raises:
        DataError: dataset.json is invalid, or does not fit the images.
    """
    shared = shared_folder(names)
    for root in dict.fromkeys(("", shared)):
        file = container.find(root + "dataset.json")
        if file is not None:
            content = container.read(file, _most_bytes(container, len(names)))
            found, table = _parse_labels(content, container, root, names)
            if found:
                return FoundLabels(table, "" if table else f"{root}dataset.json says that there are none")
    return _folder_labels(names, shared, leave_out_strays)


def _folder_labels(names: Sequence[str], shared: str, leave_out_strays: bool) -> FoundLabels:
    """Labels from folders; names begin with `shared`."""
    depth, notes = shared.count("/"), []
    tops = _folders_at(names, depth)
    if len(tops) >= 2 and all(top.lower() in SPLITS for top in tops):
        notes.append(f"{_listed(tops)} are parts of a set, not classes")
        depth += 1
    classes = _folders_at(names, depth)
    if not 2 <= len(classes) <= MAX_CLASSES:
        expected = f"expected dataset.json, or from 2 to {MAX_CLASSES:,} class folders"
        return FoundLabels(None, "; ".join([*notes, f"{expected}, found {len(classes):,}"]))

    index = {name: i for i, name in enumerate(classes)} | {None: -1}
    values = np.fromiter((index[_folder_at(name, depth)] for name in names), np.int64, len(names))
    strays = np.flatnonzero(values < 0)
    if len(strays):
        more, verb = ("", "lies") if len(strays) == 1 else (f" and {len(strays) - 1} more", "lie")
        beside = f"{verb} beside the class folders"
        which = f"{printable(names[strays[0]])}{more}"
        pronoun, object_ = ("it", "it") if len(strays) == 1 else ("they", "them")
        are_few = len(strays) <= max(len(names) // 100, 1)
        if not (leave_out_strays and are_few):
            remedy = f"expected images in class folders only; move {object_} into one of them or away"
            if are_few:
                remedy += f", or convert the set with ggdr dataset SOURCE DEST, which leaves {object_} out"
            return FoundLabels(None, "; ".join([*notes, f"{which} {beside}"]), remedy)
        notes.append(f"{which} left out, since {pronoun} {beside} (--no-labels keeps all images)")
    return FoundLabels(LabelTable(values, classes), "; ".join(notes))


def _folders_at(names: Sequence[str], depth: int) -> list[str]:
    """The folders so many levels down, sorted."""
    return sorted({folder for name in names if (folder := _folder_at(name, depth)) is not None})


def _folder_at(name: str, depth: int) -> str | None:
    """The folder that a file lies in, so many levels down; None if it does not lie so deep."""
    parts = name.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(printable(name) for name in names[:-1]), printable(names[-1])])


def _most_bytes(container: Container, num_images: int) -> int:
    """How large a dataset.json may be; a little text in a zip can stand for very much."""
    most = min(MAX_FILE, 2**20 + MAX_LABEL * num_images)
    return min(most, FREE_TEXT + RATIO_TEXT * container.num_bytes) if container.is_zip else most


def _parse_labels(
    content: bytes, container: Container, root: str, names: Sequence[str]
) -> tuple[bool, LabelTable | None]:
    """(whether dataset.json speaks of labels, the table or None for "none"); its names start at root."""
    where = container.where(f"{root}dataset.json")
    try:
        in_names = sum(name.count("[") + name.count("{") for name in names)
        meta = parse_json(content, most_nested=MAX_NESTED + in_names + 4 * len(names))
    except ValueError as error:
        raise DataError(f"{where}: invalid JSON ({printable(error)})") from error
    if not isinstance(meta, dict):
        expected = '{"labels": [[name, int], ...]}'
        raise DataError(f"{where}: holds a {type(meta).__name__}; expected an object {expected}")
    if "labels" not in meta:
        return False, None
    if meta["labels"] is None:
        return True, None

    # Entries.
    entries = meta["labels"]
    expected = '"labels" must be null or a list of [name, label] pairs'
    if not isinstance(entries, list):
        raise DataError(f"{where}: {expected}; got a {type(entries).__name__}")
    table = {}
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise DataError(f"{where}: {expected}; got {_shown(entry)}")
        # As the names of a zip's files themselves.
        table[root + (entry[0].replace("\\", "/") if container.is_zip else entry[0])] = entry[1]

    # One label for each image, and no other.
    missing = [name for name in names if name not in table]
    unknown = sorted(table.keys() - set(names)) if missing or len(table) > len(names) else []
    if missing or unknown or len(entries) != len(table):
        detail = "a name occurs twice"
        if missing or unknown:
            detail = f"{printable(missing[0])} has none" if missing else f"there is no {printable(unknown[0])}"
        counts = f"{len(entries)} labels for {len(names)} images"
        raise DataError(f"{where}: {counts} ({detail}); expected one for each")
    return True, _to_table([table[name] for name in names], names, meta.get("classes"), where)


def _to_table(labels: list, names: Sequence[str], classes: object, where: str) -> LabelTable:
    """Check the labels' types and make arrays of them."""
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise DataError(f'{where}: "classes" must be a list of names; got {_shown(classes)}')
    if classes is not None and len(classes) > MAX_CLASSES:
        raise DataError(f'{where}: "classes" has {len(classes):,} names; expected at most {MAX_CLASSES:,}')
    if all(type(label) is int for label in labels):
        for name, label in zip(names, labels, strict=True):
            if not 0 <= label < MAX_CLASSES:
                raise DataError(
                    f"{where}: label of {printable(name)} is {_shown(label)}; expected 0 to {MAX_CLASSES - 1}"
                )
        return LabelTable(np.array(labels, dtype=np.int64), classes)
    width = len(labels[0]) if isinstance(labels[0], list) else 0
    for name, label in zip(names, labels, strict=True):
        # Beyond float32 there is only infinity.
        vector = isinstance(label, list) and all(type(x) in (int, float) and abs(x) < 1e38 for x in label)
        if not (0 < width <= MAX_CLASSES and vector and len(label) == width):
            raise DataError(
                f"{where}: label of {printable(name)} is {_shown(label)}; "
                "expected integers >= 0 for all images, or lists of numbers of one length for all"
            )
    return LabelTable(np.array(labels, dtype=np.float32))


def _shown(value: object) -> str:
    """A part of dataset.json, for messages."""
    return json.dumps(value)[:80]
