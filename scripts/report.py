# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr report`: one HTML page about one run, or several overlaid."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from ggdr.scripts.curves import COLORS, label_option, run_dirs_argument, run_names
from ggdr.scripts.errors import CliError, os_error_text
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.progress import progress_bars
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from ggdr.scripts.reports.page_pictures import Pictures
    from ggdr.scripts.reports.read_run import Run

EXAMPLES = """\b
Examples:
  ggdr report runs/cifar --open
  ggdr report runs/probe runs/ggdr --label "weight 0" --label "weight 10" --out compare.html
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@run_dirs_argument
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Page to write.  [default: report.html in the run folder; of several runs, in the current folder]",
)
@label_option
@click.option(
    "--max-images",
    metavar="N",
    type=click.IntRange(min=2),
    default=60,
    help="Sample grids of each run that are kept: the first, the last, and evenly spaced ones.",
)
@click.option("--open", "open_it", is_flag=True, help="Open the page in the browser.")
def main(run_dirs: tuple[Path, ...], out: Path | None, labels: tuple[str, ...], max_images: int, open_it: bool) -> None:
    """Write one HTML page about one or several training runs.

    Status, curves, sample grids, cluster sheets, snapshots, settings and machine, in a single file that needs no
    server and no network. A run may be going on: its folder is only read.
    """
    from ggdr.scripts.reports.page_html import render
    from ggdr.scripts.reports.read_run import read_run
    from ggdr.torch_utils.atomic_write import atomic_write

    try:
        names = run_names(run_dirs, labels)
    except ValueError as error:
        raise bad_parameter(str(error), "--label") from error
    try:
        runs = [read_run(path, name) for path, name in zip(run_dirs, names, strict=True)]
        _check_number(runs)
    except ValueError as error:
        raise bad_parameter(str(error), "RUN_DIR...") from error
    except OSError as error:
        raise CliError(os_error_text(error)) from error
    if out is None:
        out = (run_dirs[0] if len(run_dirs) == 1 else Path()) / "report.html"

    with progress_bars() as progress:
        data, pictures = report_data(runs, out, max_images, lambda done, total: progress("images", done, total))
        page = render(data).encode(errors="backslashreplace")  # names of files can hold what is no text
    try:
        with atomic_write(out) as file:
            file.write(page)
    except OSError as error:
        raise bad_parameter(f"cannot write {out}: {error.strerror or error}", "--out") from error
    for note in data["notes"]:
        click.echo(f"note: {printable(note, 1000)}", err=True)
    shown = f"{len(pictures.uris)} pictures of {pictures.num_bytes / 2**20:.1f} MB"
    click.echo(f"report of {printable(', '.join(names))} written to {out} ({len(page) / 2**20:.1f} MB, with {shown})")
    if open_it:
        open_in_browser(out)


def open_in_browser(page: Path) -> None:
    """Shows a page, where there is a screen: on a terminal alone a text browser would take it over."""
    import webbrowser

    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not (has_screen and webbrowser.open(page.resolve().as_uri())):
        click.echo(f"no browser to open it in here; open {page.resolve()}")


def report_data(
    runs: Sequence[Run],
    out: Path,
    max_images: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], Pictures]:
    """All that the page shows, as JSON can hold it, and the pictures in it.

    Args:
        out:      the page, which links are relative to.
        progress: called with the number of sample grids done, and of all.
    """
    from ggdr.scripts.reports.page_curves import MAX_POINTS, chart_panels
    from ggdr.scripts.reports.page_pictures import Pictures, clusters, samples
    from ggdr.scripts.reports.read_run import command_line, log_tail, machines, settings, snapshots, status

    def link(path: Path) -> str:
        try:
            return quote(Path(os.path.relpath(path.resolve(), out.resolve().parent)).as_posix())
        except ValueError:  # on another drive of Windows
            return path.resolve().as_uri()

    pictures = Pictures()
    notes = [note for run in runs for note in run.notes]
    grids, grid_notes = samples(runs, pictures, max_images, link=link, progress=progress)
    sheets, sheet_notes = [], []
    for run in runs:
        found, run_notes = clusters(run, pictures, max_images, link=link)
        sheets, sheet_notes = sheets + found, sheet_notes + run_notes
        if not found and any(run.path.glob("network-snapshot-*.safetensors")):
            sheet_notes.append(f"{run.path}: no cluster sheets yet; ggdr clusters --run {run.path} makes them")
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
                "log": log_tail(run),
            }
        )
    data = {
        "title": runs[0].name if len(runs) == 1 else " and ".join(run.name for run in runs[:2]),
        "written": _local_time(time.time()),
        "max_points": MAX_POINTS,
        "runs": shown,
        "panels": chart_panels({run.name: run.lines for run in runs}),
        "samples": grids,
        "clusters": sheets,
        "settings": settings(runs),
        "machines": machines(runs),
        "notes": notes + grid_notes + sheet_notes,
        "pictures": pictures.uris,
    }
    if len(runs) > 2:
        data["title"] = f"{len(runs)} runs"
    return data, pictures


def _check_number(runs: Sequence[Run]) -> None:
    if len(runs) > len(COLORS):
        raise ValueError(f"got {len(runs)} runs, expected {len(COLORS)} at most, told apart by colour")


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else []


def _local_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
