# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""All that the page of `ggdr report` shows, as plain data."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ggdr.scripts.reports.page_curves import MAX_POINTS, chart_plots
from ggdr.scripts.reports.page_pictures import Pictures, clusters, samples
from ggdr.scripts.reports.read_run import Run, command_line, machines, settings, snapshots, status
from ggdr.scripts.training.snapshot_files import snapshots_in


def report_data(
    runs: Sequence[Run],
    out: Path,
    max_images: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], Pictures]:
    """All that the page shows, as JSON can hold it, and the pictures in it.

    Its "notes" are faults: files that are missing or cannot be read. Its "hints" are what could be made besides.

    Args:
        out:      the page, which links are relative to.
        progress: called with the number of pictures done, and of all.
    """

    def link(path: Path) -> str:
        return address(path, out)

    pictures = Pictures()
    notes = [note for run in runs for note in run.notes]
    grids, grid_notes = samples(runs, pictures, max_images, link=link, progress=progress)
    sheets, sheet_notes, hints = [], [], []
    for run in runs:
        found, run_notes = clusters(run.path, run.name, pictures, max_images, link=link)
        sheets, sheet_notes = sheets + found, sheet_notes + run_notes
        if not found and run.options.get("host", "stylegan2") == "stylegan2" and snapshots_in(run.path):
            command = shlex.join(["ggdr", "clusters", "--run", str(run.path)])
            hints.append(f"{run.path}: no cluster sheets yet; {command} makes them")
    shown = []
    for run in runs:
        files, metrics = snapshots(run)
        shown.append(
            {
                "name": run.name,
                "folder": str(run.path),
                "status": {**status(run), "written": _local_time(run.written)},
                "snapshots": [{**file, "link": link(run.path / file["file"])} for file in files],
                "metrics": metrics,
                "command": command_line(run),
                "history": [str(entry) for entry in _listed(run.options.get("history"))],
                "log": run.log,
            }
        )
    data = {
        "title": runs[0].name if len(runs) == 1 else " and ".join(run.name for run in runs[:2]),
        "written": _local_time(time.time()),
        "max_points": MAX_POINTS,
        "runs": shown,
        "plots": chart_plots(runs),
        "samples": grids,
        "clusters": sheets,
        "settings": settings(runs),
        "machines": machines(runs),
        "notes": notes + grid_notes + sheet_notes,
        "hints": hints,
        "pictures": pictures.uris,
    }
    if len(runs) > 2:
        data["title"] = f"{len(runs)} runs"
    return data, pictures


def address(path: Path, page: Path) -> str:
    """Where a file is, as seen from a page."""
    try:
        return quote(Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix())
    except ValueError:  # on another drive of Windows
        return path.resolve().as_uri()


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else []


def _local_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
