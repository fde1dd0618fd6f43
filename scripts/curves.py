# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr curves`: training curves of one run, or of several overlaid, as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import write_error_text
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.runs import label_option, open_runs, run_dirs_argument, show_notes
from ggdr.scripts.terminal import say
from ggdr.torch_utils.untrusted.text import printable

FORMATS = (".png", ".pdf", ".svg")

EXAMPLES = """\b
Examples:
  ggdr curves runs/digits --out digits.png --smooth
  ggdr curves runs/probe runs/ggdr --label "weight 0" --label "weight 10" --out ggdr.pdf
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@run_dirs_argument
@click.option(
    "--out",
    metavar="FILE",
    default="curves.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture to write: .png, .pdf or .svg.",
)
@label_option
@click.option("--smooth", is_flag=True, help="Draw a moving average over the raw curves.")
def main(run_dirs: tuple[Path, ...], out: Path, labels: tuple[str, ...], smooth: bool) -> None:
    """Draw training curves from the stats.jsonl and metric-*.jsonl of one or more run folders.

    What each run declares in its training_options.json (losses, scores, ...) and every metric, over kimg; of a run that
    declares nothing every value. Plots that no run has numbers for are left out.
    """
    from ggdr.scripts.reports.plot_runs import plot_runs

    if out.suffix.lower() not in FORMATS:
        raise bad_parameter(f"{out}: expected a name ending in .png, .pdf or .svg", "--out")
    runs = open_runs(run_dirs, labels)
    try:
        plot_runs(runs, out, smooth=smooth)
    except ValueError as error:
        raise bad_parameter(str(error), "RUN_DIR...") from error
    except OSError as error:
        raise bad_parameter(write_error_text(out, error), "--out") from error
    show_notes(note for run in runs for note in run.notes)
    say(f"curves of {printable(', '.join(run.name for run in runs))} written to {out}")
