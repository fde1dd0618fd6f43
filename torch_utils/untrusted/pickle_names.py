# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the names in pickles of plain values stand for: a part of every vocabulary of `pickle_reader`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError, Record, as_keys, expect

SCALARS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def ordered_dict(pairs: Any = None) -> OrderedDict:
    """An OrderedDict; old pickles give a list of pairs."""
    items = [(key, value) for key, value in expect(list, pairs or [])]
    as_keys([key for key, _ in items])
    return OrderedDict(items)


def plain_set(items: Any = None) -> set:
    return set(as_keys(expect(list, items or [])))


def encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, which protocols without them write as text."""
    if encoding != "latin1":
        raise InertPickleError("bytes in another encoding than latin1")
    return expect(str, text).encode("latin1")


def no_bytes() -> bytes:
    """How protocols without bytes write b""."""
    return b""


def numpy_scalar(dtype: Any, data: Any) -> float | int | bool:
    """The number in a pickled NumPy scalar, from its little-endian bytes."""
    match dtype:
        case Record(name="numpy.dtype", args=(str(kind), *_), state=(int(), "<" | "|", None, None, None, *_)):
            if kind in SCALARS:
                (number,) = np.frombuffer(expect(bytes, data), f"<{kind}")
                return number.item()
    raise InertPickleError("a NumPy scalar that is no number of at most 8 bytes")


PLAIN = {
    "collections.OrderedDict": ordered_dict,
    "builtins.set": plain_set,
    "builtins.bytes": no_bytes,
    "_codecs.encode": encoded,
}
NUMPY = {"numpy.core.multiarray.scalar": numpy_scalar}
NUMPY_NAMES = ("numpy.ndarray",)
NUMPY_RECORDS = ("numpy.dtype", "numpy.core.multiarray._reconstruct")  # types of numbers, and arrays
