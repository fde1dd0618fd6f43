# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The page of `ggdr compare`: one HTML file about a study."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ggdr.scripts.reports.page_data import address
from ggdr.scripts.reports.page_html import PageFiles, render
from ggdr.scripts.reports.page_pictures import Pictures
from ggdr.scripts.studies.page_data import page_data
from ggdr.scripts.studies.study_pictures import study_pictures
from ggdr.torch_utils.atomic_write import atomic_write

_FOLDER = files(__package__) / "page"
_SCRIPTS = ("outcome.js", "differences.js", "bands.js", "galleries.js", "facts.js", "compare.js")
COMPARISON = PageFiles(
    "GGDR comparison",
    _FOLDER / "compare.html",
    styles=[_FOLDER / "compare.css"],
    scripts=[_FOLDER / name for name in _SCRIPTS],
)


def write_page(path: Path, data: Mapping[str, Any], study_folder: Path) -> None:
    """Writes the page of a study, whole or not at all.

    Args:
        data:         what `results.py` reads from the study's folder; all of it may be missing.
        study_folder: where the folders of `data`'s runs are, whose pictures the page shows.

    Raises:
        OSError: the page cannot be written.
    """
    shown, pictures = page_data(data), Pictures()
    shown |= study_pictures(shown["variants"], study_folder, pictures, link=lambda file: address(file, path))
    shown["notes"] += shown.pop("picture_notes")
    shown["pictures"] = pictures.uris
    page = render(shown, COMPARISON).encode(errors="backslashreplace")  # names of files can hold what is no text
    with atomic_write(path) as file:
        file.write(page)
