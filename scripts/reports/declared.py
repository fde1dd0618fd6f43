# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a run declares in training_options.json for its readers; anyone may have written that file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

MAX_TEXT = 60  # characters of a title, label or unit

T = TypeVar("T")


def read_declared(
    options: Mapping[str, Any],
    key: str,
    read: Callable[[Mapping[str, Any]], T | None],
    otherwise: Callable[[], Iterable[T]],
    most: int,
) -> tuple[list[T], list[str]]:
    """A list of things that a run declares, and notes on what is wrong with it.

    Args:
        options:   training_options.json.
        key:       of the list in it.
        read:      makes a thing of an entry; None if the entry is not as it should be, and then it is left out.
        otherwise: the things of a run that declares none.
        most:      more of them are left out.
    """
    entries, notes = options.get(key), []
    if isinstance(entries, list):
        read_entries = [read(entry) if isinstance(entry, Mapping) else None for entry in entries]
        things = [thing for thing in read_entries if thing is not None]
        if len(things) < len(entries):
            notes.append(f"training_options.json: {len(entries) - len(things)} of {len(entries)} {key} are malformed")
    else:
        if entries is not None:
            notes.append(f"training_options.json: expected a list of {key}, got {type(entries).__name__}")
        things = list(otherwise())
    if len(things) > most:
        notes.append(f"of {len(things)} {key} the first {most} are shown")
    return things[:most], notes
