# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr report`: one HTML page about one run, or several overlaid."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ggdr.scripts.errors import write_error_text
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.runs import label_option, open_runs, run_dirs_argument, show_notes
from ggdr.scripts.terminal import say
from ggdr.torch_utils.untrusted.text import printable

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
    type=WholeNumber(min=2),
    default=60,
    help="Pictures of each run and kind that are kept: the first, the last, and evenly spaced ones.",
)
@click.option("--open", "open_it", is_flag=True, help="Open the page in the browser.")
def main(run_dirs: tuple[Path, ...], out: Path | None, labels: tuple[str, ...], max_images: int, open_it: bool) -> None:
    """Write one HTML page about one or several training runs.

    Status, curves, sample grids, cluster sheets, snapshots, settings and machine, in a single file that needs no
    server and no network. A run may be going on: its folder is only read.
    """
    from ggdr.scripts.reports.page_data import report_data
    from ggdr.scripts.reports.page_html import render
    from ggdr.torch_utils.atomic_write import atomic_write

    runs = open_runs(run_dirs, labels)
    if out is None:
        out = (run_dirs[0] if len(run_dirs) == 1 else Path()) / "report.html"
    with progress_bars() as progress:
        data, pictures = report_data(runs, out, max_images, lambda done, total: progress("images", done, total))
        page = render(data).encode(errors="backslashreplace")  # names of files can hold what is no text
    try:
        with atomic_write(out) as file:
            file.write(page)
    except OSError as error:
        raise bad_parameter(write_error_text(out, error), "--out") from error
    show_notes([*data["notes"], *data["hints"]])
    names = printable(", ".join(run.name for run in runs))
    shown = f"{len(pictures.uris)} pictures of {pictures.num_bytes / 2**20:.1f} MB"
    say(f"report of {names} written to {out} ({len(page) / 2**20:.1f} MB, with {shown})")
    if open_it:
        open_in_browser(out)


def open_in_browser(page: Path) -> None:
    """Shows a page, where there is a screen: on a terminal alone a text browser would take it over."""
    import webbrowser

    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not (has_screen and webbrowser.open(page.resolve().as_uri())):
        say(f"no browser to open it in here; open {page.resolve()}")
