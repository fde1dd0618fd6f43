# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Lists of millions of files in little memory: about 40 bytes a file beside its name. Needs no torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

# Of a file in a zip: where its local header is, bytes in the zip and unpacked, CRC-32, compression, flags.
PLACE = np.dtype(
    [("offset", "<i8"), ("packed", "<i8"), ("size", "<i8"), ("crc", "<u4"), ("method", "<u2"), ("flags", "<u2")]
)
_AT_ONCE = 2**16  # names that are Python's objects at a time


class ListedFile(NamedTuple):
    """A file of a folder, by its name, or of a zip, with all that reading it takes (see PLACE)."""

    name: str
    offset: int = 0
    packed: int = 0
    size: int = 0
    crc: int = 0
    method: int = 0
    flags: int = 0


class Names(Sequence[str]):
    """Names as one piece of UTF-8, bytes that are none escaped as Python does (surrogateescape).

    Args:
        parts: the names as bytes.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._text = b"".join(parts)
        self._ends = np.fromiter(map(len, parts), np.int64, len(parts)).cumsum()

    @classmethod
    def joined(cls, pieces: Sequence[Names]) -> Names:
        """The names of several lists, one list after the other."""
        names = cls([])
        names._text = b"".join(piece._text for piece in pieces)
        starts = np.cumsum([0] + [len(piece._text) for piece in pieces])
        names._ends = np.concatenate([names._ends, *(p._ends + s for p, s in zip(pieces, starts, strict=False))])
        return names

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, i: int) -> bytes:
        """The bytes of a name; i from 0 up."""
        return self._text[self._ends[i - 1] if i else 0 : self._ends[i]]

    def all_raw(self) -> Iterator[bytes]:
        """The bytes of each name."""
        start = 0
        for first in range(0, len(self), _AT_ONCE):
            for end in self._ends[first : first + _AT_ONCE].tolist():
                yield self._text[start:end]
                start = end

    def __getitem__(self, i: int) -> str:
        return decode_name(self.raw(range(len(self))[i]))

    def __iter__(self) -> Iterator[str]:
        return map(decode_name, self.all_raw())

    def take(self, rows: np.ndarray) -> Names:
        """The names at these indices."""
        # In pieces: a list of all would take three times the memory of the names.
        pieces = np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
        return Names.joined([Names([self.raw(i) for i in piece.tolist()]) for piece in pieces])


class FileTable(Sequence[ListedFile]):
    """Files in the order of their names, which are unequal.

    Args:
        names:  in any order; of equal ones the last counts, as in a zip.
        places: [N] of dtype PLACE, for files of a zip; None: for those of a folder.

    Attributes:
        names:  sorted by their bytes.
        places: as given, in the order of names.
    """

    def __init__(self, names: Names, places: np.ndarray | None = None) -> None:
        order = None if _is_rising(names.all_raw()) else _order(names)
        self.names = names if order is None else names.take(order)
        self.places = places if order is None or places is None else places[order]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> ListedFile:
        return ListedFile(self.names[i], *(() if self.places is None else self.places[i].item()))

    def take(self, rows: np.ndarray) -> FileTable:
        """The files at these rising indices."""
        part = copy(self)
        part.names, part.places = self.names.take(rows), None if self.places is None else self.places[rows]
        return part

    def find(self, name: str) -> ListedFile | None:
        """The file of this name, or None."""
        raw = encode_name(name)
        i = bisect_left(range(len(self)), raw, key=self.names.raw)
        return self[i] if i < len(self) and self.names.raw(i) == raw else None


def encode_name(name: str) -> bytes:
    """A name's bytes, as the system or the zip has them."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(raw: bytes) -> str:
    """A name as Python shows it; bytes that are no UTF-8 are escaped."""
    return raw.decode("utf-8", "surrogateescape")


def _order(names: Names) -> np.ndarray:
    """[M] indices that sort names, the last of equal ones."""
    last = {raw: i for i, raw in enumerate(names.all_raw())}
    return np.array([last[raw] for raw in sorted(last)], np.int64)


def _is_rising(values: Iterable[bytes]) -> bool:
    previous = None
    for value in values:
        if previous is not None and value <= previous:
            return False
        previous = value
    return True


def evenly_spread(count: int, most: int) -> list[int]:
    """Indices of up to `most` of `count` files, from the first to the last: those to look at before the others."""
    return np.linspace(0, count - 1, min(count, most)).astype(int).tolist()


def shared_folder(names: Sequence[str]) -> str:
    """'x/' (or 'x/y/', ...) if every name lies below it, else ''."""
    first, last = names[0].split("/")[:-1], names[-1].split("/")[:-1]  # names are sorted
    return "".join(f"{part}/" for part in _common_prefix(first, last))


def _common_prefix(a: Sequence[str], b: Sequence[str]) -> Iterator[str]:
    for x, y in zip(a, b, strict=False):
        if x != y:
            return
        yield x
