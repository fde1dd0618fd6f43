# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""JSON written by anyone: what Python's reader lets pass, or raises, goes further than its users expect."""

from __future__ import annotations

import json
import sys
from typing import Any

MAX_DEPTH = 64
MAX_BYTES = 2**22  # of a file of settings
MAX_NESTED = 2**16  # lists and objects: an empty one takes 3 characters, and 64 bytes of memory


def parse_json(text: str | bytes, *, most_nested: int = MAX_NESTED) -> Any:
    """The value that JSON text stands for, in memory of some ten times the text.

    Args:
        most_nested: lists and objects that there may be.

    Raises:
        ValueError: no JSON, in no encoding of it, nested more than 64 deep, of more lists and objects, or with a number
            of thousands of digits.
    """
    openings = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, openings)) > most_nested:
        raise ValueError(f"more than {most_nested:,} lists and objects")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, (dict, list))]
        if not level:
            return value
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold, and no truth value."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
