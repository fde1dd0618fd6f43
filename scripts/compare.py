# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr compare`: variants times seeds on the same data, as one study."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.errors import EXIT_STOPPED, CliError, cli_errors
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.terminal import say

if TYPE_CHECKING:
    from ggdr.scripts.studies.definition import Request, Study
    from ggdr.scripts.studies.study_folder import StudyFolder

EXIT_FAILED = 1

EXAMPLES = """\b
Examples:
  ggdr compare study.yaml --outdir studies/ggdr --dry-run
  ggdr compare --outdir studies/ggdr --seeds 0-2 --variant none=--no-ggdr --variant ggdr=--ggdr \\
    -- --data cifar10.zip --cfg cpu --kimg 60
"""


@click.command(epilog=EXAMPLES, no_args_is_help=True, context_settings={"max_content_width": 110})
@click.option(
    "--outdir",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the study, made if missing; a study that is there goes on.",
)
@click.option(
    "--variant",
    "variants",
    metavar="NAME=OPTIONS",
    multiple=True,
    help="What to compare, once for each: a name, and options of `ggdr train`. The first one is the baseline.",
)
@click.option(
    "--command",
    metavar="COMMAND",
    show_default="train",
    help="What each run is, where no STUDY.yaml says it: train, or 'translate train'.",
)
@click.option("--seeds", metavar="LIST", help="Seeds of each variant, as 0-2 or 0,3,5.")
@click.option(
    "--metrics",
    metavar="LIST",
    help="Metrics of every snapshot.  [default: fd_lite5k_full,kd_lite5k_full,mind_lite5k_full where these weights are "
    "installed, else fd_offline5k_full]",
)
@click.option(
    "--jobs",
    type=WholeNumber(min=1),
    metavar="N",
    help="Runs side by side.  [default: one a GPU; one a processor without GPUs]",
)
@click.option(
    "--clusters/--no-clusters",
    default=True,
    show_default=True,
    help="Make cluster maps of each run's last snapshot, for the page.",
)
@click.option("--dry-run", is_flag=True, help="Say how long it will take, from measured steps; write nothing.")
@click.option("--page-only", is_flag=True, help="Write page and table of what there is; start no run.")
@click.argument("words", metavar="[STUDY.yaml] [-- OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def main(
    outdir: Path,
    variants: tuple[str, ...],
    command: str | None,
    seeds: str | None,
    metrics: str | None,
    jobs: int | None,
    clusters: bool,
    dry_run: bool,
    page_only: bool,
    words: tuple[str, ...],
) -> None:
    """Compare variants of training over several seeds, on the same data.

    The study comes from STUDY.yaml, or from --variant, --seeds and, after --, the options of every run. Each run is a
    `ggdr train` in DIR/VARIANT/seedN. Ctrl-C lets all runs save; after any end, even kill -9, `ggdr compare --outdir
    DIR` goes on. Variants, seeds and metrics can be added later: only what is missing is done. Results:
    DIR/compare.html and DIR/compare.md, written anew after each run.
    """
    with cli_errors():
        from ggdr.scripts.studies.definition import check_data_is_there, combine
        from ggdr.scripts.studies.study_folder import StudyFolder

        folder = StudyFolder(outdir)
        stored = folder.read()
        known = "train" if stored is None else stored.command
        request = _request(words, variants, command, known, seeds, metrics)
        study = combine(stored, request)
        if page_only and stored is None:
            raise CliError(f"--page-only: no study in {outdir}")
        if page_only:
            _write_results(study, folder)
            say(f"written: {folder.page}, {folder.table}")
            return
        check_data_is_there(study)
        num_jobs, gpus = _share_machine(study, jobs)
        if dry_run:
            from ggdr.scripts.studies.estimate import describe, estimate_study

            say(describe(estimate_study(study, folder, num_jobs), num_jobs))
            return
        with folder.locked():
            study = combine(folder.read(), request)  # anew: another start may have added to it
            _run(study, folder, num_jobs, gpus, clusters=clusters)


def _request(
    words: tuple[str, ...],
    variants: tuple[str, ...],
    command: str | None,
    known: str,
    seeds: str | None,
    metrics: str | None,
) -> Request:
    """What the command line asks for; CliError if it cannot be used.

    Args:
        known: the command of the runs, where the command line does not name it.
    """
    from dataclasses import replace

    from ggdr.scripts.studies.definition import parse_metric_list, parse_seed_list, read_words, read_yaml

    if words and not words[0].startswith("-"):
        if variants or command is not None or len(words) > 1:
            rule = "command, variants and options of runs belong into"
            raise CliError(f"{rule} {words[0]}, or all of them on the command line")
        request = read_yaml(Path(words[0]))
    else:
        request = read_words(words, variants, command or known)
        request = request if command is None else replace(request, command=command)
    if seeds is not None:
        request = replace(request, seeds=parse_seed_list(seeds, "--seeds"))
    if metrics is not None:
        request = replace(request, metrics=parse_metric_list(metrics, "--metrics"))
    return request


def _share_machine(study: Study, jobs: int | None) -> tuple[int, list[str]]:
    """Runs side by side, and the GPUs that they share."""
    from ggdr.scripts.options.option_words import option_value
    from ggdr.scripts.studies.machine_shares import default_jobs, find_gpus
    from ggdr.scripts.studies.study_folder import runs_in_order

    devices = {option_value(study.command, study.options_of(variant), "device") for variant in study.variants}
    gpus = find_gpus(devices.pop()) if len(devices) == 1 else []
    return jobs or default_jobs(len(runs_in_order(study)), gpus), gpus


def _run(study: Study, folder: StudyFolder, jobs: int, gpus: list[str], *, clusters: bool) -> None:
    """Runs what is missing; ends with exit code 1 if a run failed, 130 if a signal stopped it."""
    from ggdr.scripts.studies.run_progress import RunProgress
    from ggdr.scripts.studies.runner import StudyRunner

    folder.write(study)
    with RunProgress() as progress:
        runner = StudyRunner(
            study,
            folder,
            jobs,
            gpus,
            clusters=clusters,
            on_end=partial(_write_results, study, folder),
            progress=progress,
        )
        outcome = runner.run()
    _write_results(study, folder)
    if outcome.signal is not None and outcome.left:
        count = "1 run is" if len(outcome.left) == 1 else f"{len(outcome.left)} runs are"
        go_on = f"ggdr compare --outdir {shlex.quote(str(folder.path))}"
        say(f"stopped by {outcome.signal.name}, {count} not complete; go on with: {go_on}")
        raise click.exceptions.Exit(EXIT_STOPPED)
    say(f"results: {folder.page}, {folder.table}")
    for what, runs in (("failed", outcome.failed), ("not measured", outcome.unmeasured)):
        if runs:
            say(
                f"{len(runs)} {what}: {', '.join(run.name for run in runs)}; their logs are beside their folders",
                err=True,
            )
    if outcome.failed or outcome.unmeasured:
        raise click.exceptions.Exit(EXIT_FAILED)


def _write_results(study: Study, folder: StudyFolder) -> None:
    """compare.html and compare.md."""
    from ggdr.scripts.studies.page import write_page
    from ggdr.scripts.studies.results import read_results
    from ggdr.scripts.studies.table import markdown
    from ggdr.torch_utils.atomic_write import atomic_write

    data = read_results(study, folder)
    with atomic_write(folder.table) as file:
        file.write(markdown(data).encode(errors="backslashreplace"))
    write_page(folder.page, data, folder.path)
