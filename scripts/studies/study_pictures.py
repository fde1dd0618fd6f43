# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a study: the last samples and the cluster sheets of each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ggdr.scripts.reports.page_pictures import Pictures, clusters, picture_or_note
from ggdr.scripts.reports.picture_kinds import PictureKind, read_picture_kinds
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.checkpoint import SnapshotError

MAX_SHEETS = 12  # of a folder of cluster sheets
MAX_BYTES = 48 * 2**20  # of all pictures; the runs after that have none


def study_pictures(
    variants: Sequence[dict[str, Any]], study_folder: Path, pictures: Pictures, *, link: Callable[[Path], str]
) -> dict[str, Any]:
    """The pictures of all runs.

    Args:
        variants: in the shape of `page_data`; of a run whose folder is not inside the study's nothing is read.
        link:     a file's address, as seen from the page.

    Returns:
        samples:       [{"title", "pictures": [{"variant": index, "seed", "kimg", "link", picture's keys}]}]; a picture
                       that all runs have alike, such as of the reals, has None for variant and seed.
        clusters:      the same, by sheet.
        picture_notes: on what could not be read.
    """
    samples: dict[str, list[dict]] = {}
    sheets: dict[str, list[dict]] = {}
    notes, left_out = [], 0
    # Seeds outermost, so that what does not fit is missing of all variants alike.
    runs = [(index, run) for index, variant in enumerate(variants) for run in variant["runs"]]
    seeds = list(dict.fromkeys(run["seed"] for _, run in runs))
    for index, run in sorted(runs, key=lambda item: seeds.index(item[1]["seed"])):
        folder = _inside(study_folder, run["folder"])
        if folder is None:
            continue
        if pictures.num_bytes > MAX_BYTES:
            left_out += 1
            continue
        of_run = {"variant": index, "seed": run["seed"]}
        try:
            _add_samples(samples, folder, of_run, pictures, notes, link)
            _add_sheets(sheets, folder, of_run, pictures, notes, link)
        except OSError as error:
            notes.append(f"{folder}: {error.strerror or error}")
    if left_out:
        notes.append(f"pictures of {left_out} runs are left out: the others have {pictures.num_bytes / 2**20:.0f} MiB")
    found = [[{"title": title, "pictures": own} for title, own in kinds.items()] for kinds in (samples, sheets)]
    return {"samples": found[0], "clusters": found[1], "picture_notes": notes}


def _inside(study_folder: Path, name: str) -> Path | None:
    """A run's folder; None if there is none, or it is not inside the study's."""
    try:
        folder = study_folder / name
        is_inside = bool(name) and study_folder.resolve() in folder.resolve().parents
        return folder if is_inside and folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # what is no path, or links in a circle
        return None


def _add_samples(
    samples: dict[str, list[dict]],
    folder: Path,
    of_run: dict[str, Any],
    pictures: Pictures,
    notes: list[str],
    link: Callable[[Path], str],
) -> None:
    """The last picture of each kind that a run declares."""
    for kind in _kinds(folder):
        own = kind.files(folder)
        if not own:
            continue
        kimg, file = list(own.items())[-1]
        picture = picture_or_note(notes, pictures, file)
        known = samples.setdefault(kind.title, [])
        if picture is None or (kind.once and any(other["image"] == picture["image"] for other in known)):
            continue
        whose = {"variant": None, "seed": None} if kind.once else of_run
        known.append({**whose, "kimg": kimg, "link": link(file), **picture})


def _kinds(folder: Path) -> list[PictureKind]:
    try:
        options = RunFolder(folder).read_options()
    except SnapshotError:
        options = {}  # the files' own names then say what they are
    return read_picture_kinds(options, folder)[0]


def _add_sheets(
    sheets: dict[str, list[dict]],
    folder: Path,
    of_run: dict[str, Any],
    pictures: Pictures,
    notes: list[str],
    link: Callable[[Path], str],
) -> None:
    """The cluster sheets of a run, by their titles."""
    found, sheet_notes = clusters(folder, folder.name, pictures, MAX_SHEETS, link=link, animated=False)
    notes += sheet_notes
    for group in found:
        for sheet in group["sheets"]:
            title = sheet["title"] if len(found) == 1 else f"{group['title']}: {sheet['title']}"
            own = {key: sheet[key] for key in ("note", "link", "image", "width", "height", "enlarged")}
            sheets.setdefault(title, []).append({**of_run, "kimg": None, **own})
