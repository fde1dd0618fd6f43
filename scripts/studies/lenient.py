# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reading a nest of which anything may be missing, or something else than it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.torch_utils.untrusted.json_text import is_finite
from ggdr.torch_utils.untrusted.text import printable

MAX_NAME = 80  # characters of a name or title
MAX_TEXT = 4000  # of a command or a note


def listed(value: Any) -> list:
    """The items of a list; none of anything else."""
    return list(value) if isinstance(value, (list, tuple)) else []


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list."""
    return [entry for entry in listed(value) if isinstance(entry, Mapping)]


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    return float(value) if is_finite(value) else None


def text(value: Any, most: int = MAX_TEXT) -> str:
    """The value as one line of text of at most about `most` characters; empty for None."""
    return "" if value is None else printable(value, most)
