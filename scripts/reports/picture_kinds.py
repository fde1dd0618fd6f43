# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which pictures a run folder has: the kinds that the run declares in training_options.json, and their files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggdr.scripts.reports.declared import MAX_TEXT, read_declared
from ggdr.torch_utils.untrusted.text import printable

MAX_KINDS = 20  # of a run
_NAME = re.compile(r"[a-z][\w-]{0,59}", flags=re.ASCII | re.IGNORECASE)
_KIMG = r"(\d{6,12}(?:\.\d{3})?)"


@dataclass(frozen=True)
class PictureKind:
    """NAME.png, once, or NAMEKKKKKK.png at each snapshot."""

    name: str
    title: str
    once: bool = False

    def files(self, folder: Path) -> dict[float | None, Path]:
        """The pictures that are there, by kimg, in order; the one that is made once by None. Links are left out."""
        if self.once:
            path = folder / f"{self.name}.png"
            return {None: path} if _is_own(path) else {}
        pattern = re.compile(re.escape(self.name) + _KIMG + r"\.png")
        found = {
            float(match[1]): path
            for path in folder.iterdir()
            if (match := pattern.fullmatch(path.name)) and _is_own(path)
        }
        return dict(sorted(found.items()))


def _is_own(path: Path) -> bool:
    """Whether it is a file, and none elsewhere that a page must not show."""
    return path.is_file() and not path.is_symlink()


def read_picture_kinds(options: Mapping[str, Any], folder: Path) -> tuple[list[PictureKind], list[str]]:
    """The kinds of pictures of a run, and notes on what is wrong with them.

    A run that declares none has a kind for each NAME of which there is a NAMEKKKKKK.png.

    Args:
        options: training_options.json, which anyone may have written; "pictures" in it declares them.
        folder:  the run's.
    """
    return read_declared(options, "pictures", _kind, lambda: _kinds_of_files(folder), MAX_KINDS)


def _kind(entry: Mapping[str, Any]) -> PictureKind | None:
    """A kind from an entry of training_options.json; None if it is malformed."""
    name, once = entry.get("name"), entry.get("once", False)
    title = entry.get("title", name)
    if not (isinstance(name, str) and _NAME.fullmatch(name) and isinstance(title, str) and isinstance(once, bool)):
        return None
    return PictureKind(name, printable(title, MAX_TEXT), once)


def _kinds_of_files(folder: Path) -> list[PictureKind]:
    pattern = re.compile(rf"([a-z][\w-]*?){_KIMG}\.png", flags=re.ASCII | re.IGNORECASE)
    matches = map(pattern.fullmatch, sorted(path.name for path in folder.iterdir()))
    return [PictureKind(name, name) for name in dict.fromkeys(match[1] for match in matches if match)]
