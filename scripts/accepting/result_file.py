# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The file of `ggdr accept`: what was found of one machine, written anew after each step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ggdr.scripts.accepting.step import PASSED, STATES
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.untrusted.json_text import parse_json
from ggdr.torch_utils.untrusted.regular_files import read_regular

FORMAT = "ggdr-accept-1"
MAX_BYTES = 2**24


class ResultFileError(ValueError):
    """The file is none of `ggdr accept`, or of another machine; the message names it."""


@dataclass
class Results:
    """What a file holds.

    Attributes:
        device: "cuda" or "cpu".
        cards:  names of the GPUs; on a CPU the processor's.
        about:  versions and machine, of the last start.
        steps:  results by the step's name: `state`, `reason`, `figure`, `details`, `seconds`, `output`, `commit`.
    """

    device: str
    cards: list[str]
    about: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def passed(self, name: str) -> bool:
        return self.steps.get(name, {}).get("state") == PASSED


def write_results(path: Path, results: Results) -> None:
    """Replaces the file at once."""
    content = {"format": FORMAT, **asdict(results)}
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def read_results(path: Path) -> Results:
    """What `write_results` wrote.

    Raises:
        ResultFileError:   it is not such a file.
        FileNotFoundError: there is none.
    """
    try:
        content = parse_json(read_regular(path, MAX_BYTES))
    except ValueError as error:
        raise ResultFileError(f"{path}: not readable: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultFileError(f"{path}: not a file of `ggdr accept` (expected format {FORMAT!r})")
    device, cards, about, steps = (content.get(key) for key in ("device", "cards", "about", "steps"))
    is_whole = device in ("cuda", "cpu") and isinstance(about, dict) and isinstance(steps, dict)
    if not is_whole or not _are_texts(cards) or not all(_is_result(x) for x in steps.values()):
        raise ResultFileError(f"{path}: a file of `ggdr accept`, but damaged")
    return Results(device, cards, about, steps)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, str) for x in values)


def _is_result(x: Any) -> bool:
    texts = ("reason", "figure")
    return (
        isinstance(x, dict)
        and x.get("state") in STATES
        and all(isinstance(x.get(key), str) for key in texts)
        and isinstance(x.get("details"), dict)
        and type(x.get("seconds")) in (int, float)
        and _are_texts(x.get("output"))
    )
