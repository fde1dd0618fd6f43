# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""JSON written by anyone: what Python's reader lets pass, or raises, goes further than its users expect."""

from __future__ import annotations

import json
import sys
from typing import Any

MAX_DEPTH = 64


def parse_json(text: str | bytes) -> Any:
    """The value that JSON text stands for.

    Raises:
        ValueError: no JSON, in no encoding of it, nested more than 64 deep, or with a number of thousands of digits.
    """
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
