# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a study: the last samples and the cluster sheets of each run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggdr.scripts.reports.page_pictures import Pictures, clusters, picture_or_note
from ggdr.scripts.reports.picture_kinds import PictureKind, read_picture_kinds
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.checkpoint import SnapshotError

MAX_SHEETS = 24  # of a folder of cluster sheets
MAX_BYTES = 48 * 2**20  # of all pictures; the runs after that have none


@dataclass
class Gallery:
    """Pictures of all runs by kind, and why runs lack some.

    Attributes:
        kinds: by a name that runs share: {"title": of the first picture, "pictures"}.
        whys:  why a run, (variant, seed), lacks each kind of which it has no picture, but for kinds that it still is
               to have.
    """

    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)
    whys: dict[tuple[int, str], tuple[str, Collection[str]]] = field(default_factory=dict)

    def pictures(self, name: str, title: str) -> list[dict[str, Any]]:
        """Those of a kind, to be added to."""
        return self.kinds.setdefault(name, {"title": title, "pictures": []})["pictures"]

    def shown(self) -> list[dict[str, Any]]:
        """For the page, in the shape of `study_pictures`."""
        found: list[dict[str, Any]] = []
        for name, kind in self.kinds.items():
            is_taken = any(other["title"] == kind["title"] for other in found)
            title = f"{kind['title']} ({name})" if is_taken else kind["title"]
            owners = {(picture["variant"], picture["seed"]) for picture in kind["pictures"]}
            missing = [
                {"variant": run[0], "seed": run[1], "why": why}
                for run, (why, awaited) in self.whys.items()
                if run not in owners and name not in awaited
            ]
            found.append({"title": title, "pictures": kind["pictures"], "missing": missing})
        return found


def study_pictures(
    variants: Sequence[dict[str, Any]], study_folder: Path, pictures: Pictures, *, link: Callable[[Path], str]
) -> dict[str, Any]:
    """The pictures of all runs.

    Args:
        variants: in the shape of `page_data`; of a run whose folder is not inside the study's nothing is read.
        link:     a file's address, as seen from the page.

    Returns:
        samples:       [{"title", "pictures": [{"variant": index, "seed", "title", "kimg", "link", picture's keys}],
                       "missing": [{"variant", "seed", "why"}]}] by what runs call a kind of pictures. A picture's own
                       title tells how models differ in what they draw. A picture that all runs have alike, such as of
                       the reals, has None for variant and seed. A run that has neither is still to have one.
        clusters:      the same, by sheet.
        picture_notes: on what could not be read.
    """
    samples, sheets = Gallery(), Gallery()
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
            why = ("left out: the page has too many pictures", ())
            samples.whys[index, run["seed"]] = sheets.whys[index, run["seed"]] = why
            continue
        of_run = {"variant": index, "seed": run["seed"]}
        try:
            declared = _add_samples(samples, folder, of_run, pictures, notes, link)
            samples.whys[index, run["seed"]] = (f"{variants[index]['model'] or 'this run'} draws none", declared)
            has_sheets = _add_sheets(sheets, folder, of_run, pictures, notes, link)
        except OSError as error:
            notes.append(f"{folder}: {error.strerror or error}")
            continue
        if has_sheets or run["state"] == "finished":
            sheets.whys[index, run["seed"]] = (_why_no_sheet(variants[index]["regularizers"], has_sheets), ())
    if left_out:
        notes.append(f"pictures of {left_out} runs are left out: the others have {pictures.num_bytes / 2**20:.0f} MiB")
    return {"samples": samples.shown(), "clusters": sheets.shown(), "picture_notes": notes}


def _why_no_sheet(regularizers: Sequence[str] | None, has_sheets: bool) -> str:
    """Why a run lacks a sheet that another one has."""
    if not has_sheets:
        return "no cluster maps of this run"
    return "no decoder, whose predictions this shows" if regularizers == [] else "no such sheet of this run"


def _inside(study_folder: Path, name: str) -> Path | None:
    """A run's folder; None if there is none, or it is not inside the study's."""
    try:
        folder = study_folder / name
        is_inside = bool(name) and study_folder.resolve() in folder.resolve().parents
        return folder if is_inside and folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # what is no path, or links in a circle
        return None


def _add_samples(
    samples: Gallery,
    folder: Path,
    of_run: dict[str, Any],
    pictures: Pictures,
    notes: list[str],
    link: Callable[[Path], str],
) -> list[str]:
    """The last picture of each kind that a run declares; their names."""
    kinds = _kinds(folder)
    for kind in kinds:
        own = kind.files(folder)
        if not own:
            continue
        kimg, file = list(own.items())[-1]
        picture = picture_or_note(notes, pictures, file)
        if picture is None:
            continue
        known = samples.pictures(kind.name, kind.title)
        if kind.once and any(other["image"] == picture["image"] for other in known):
            continue
        whose = {"variant": None, "seed": None} if kind.once else of_run
        known.append({**whose, "title": kind.title, "kimg": kimg, "link": link(file), **picture})
    return [kind.name for kind in kinds]


def _kinds(folder: Path) -> list[PictureKind]:
    try:
        options = RunFolder(folder).read_options()
    except SnapshotError:
        options = {}  # the files' own names then say what they are
    return read_picture_kinds(options, folder)[0]


def _add_sheets(
    sheets: Gallery,
    folder: Path,
    of_run: dict[str, Any],
    pictures: Pictures,
    notes: list[str],
    link: Callable[[Path], str],
) -> bool:
    """The cluster sheets of a run, by titles, behind those of their folders where two have one; whether it has some."""
    found, sheet_notes = clusters(folder, folder.name, pictures, MAX_SHEETS, link=link, animated=False)
    notes += sheet_notes
    counts = Counter(sheet["title"] for group in found for sheet in group["sheets"])
    for group in found:
        for sheet in group["sheets"]:
            title = sheet["title"] if counts[sheet["title"]] == 1 else f"{group['title']}: {sheet['title']}"
            own = {key: sheet[key] for key in ("note", "link", "image", "width", "height", "enlarged")}
            sheets.pictures(title, title).append({**of_run, "title": title, "kimg": None, **own})
    return any(group["sheets"] for group in found)
