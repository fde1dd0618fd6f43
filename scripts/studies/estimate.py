# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How long a study will take, from a few measured training steps of each variant; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import torch

from ggdr.scripts.benches.step_timing import measure_steps
from ggdr.scripts.errors import CliError, OptionError
from ggdr.scripts.options.option_words import HOSTS_OF_COMMANDS, training_command
from ggdr.scripts.options.parameters import join_processes, prepare_ops
from ggdr.scripts.studies.definition import Study, Variant
from ggdr.scripts.studies.machine_shares import thread_share
from ggdr.scripts.studies.run_progress import how_far
from ggdr.scripts.studies.study_folder import StudyFolder, runs_in_order
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import RunSettings
from ggdr.torch_utils.runlog import format_time

ITERATIONS = 8
ADA_P = 0.5  # with ADA steps are timed at this probability, so that every transform is at work


@dataclass(frozen=True)
class Estimate:
    """What one variant will take.

    Attributes:
        sec_per_kimg: measured.
        kimg:         of a run.
        kimg_left:    of all its runs together.
        runs_left:    that are not finished.
    """

    name: str
    sec_per_kimg: float
    kimg: float
    kimg_left: float
    runs_left: int

    @property
    def seconds(self) -> float:
        """One run after the other."""
        return self.sec_per_kimg * self.kimg_left


def estimate_study(study: Study, folder: StudyFolder, jobs: int) -> list[Estimate]:
    """Times some steps of each variant, on drawn images of the dataset's size.

    Raises:
        CliError: a variant's options cannot be used, before anything is timed, or its training fails; names it.
    """
    torch.set_num_threads(min(torch.get_num_threads(), thread_share(jobs)))
    prepared = []
    for variant in study.variants:
        with _naming(variant):
            prepared.append(_prepare(study, variant, folder))
    return [
        _estimate(study, folder, variant, *commands) for variant, commands in zip(study.variants, prepared, strict=True)
    ]


def _prepare(study: Study, variant: Variant, folder: StudyFolder) -> tuple[dict[str, Any], RunSettings]:
    """The options of a variant's runs by parameter name, and the settings that they resolve to."""
    _, *words = study.words(variant, study.seeds[0], folder.path / variant.name)
    command = training_command(study.command).make_context(f"ggdr {study.command}", words).params
    group = join_processes(command["device"])
    prepare_ops(command["ops"], group.device)
    return command, HOSTS[HOSTS_OF_COMMANDS[study.command]].prepare(command, Origin(), group).settings


def _estimate(
    study: Study, folder: StudyFolder, variant: Variant, command: Mapping[str, Any], settings: RunSettings
) -> Estimate:
    """Times a variant's steps, and counts what is left of its runs."""
    timing = {"resolution": settings.G.img_resolution, "iterations": ITERATIONS}
    p = ADA_P if command["p"] is None else command["p"]
    with _naming(variant):
        (result,) = measure_steps([{**command, **timing, "p": p}], join_processes(command["device"]))
    kimg = settings.loop.total_nimg / 1000
    mine = [run for run in runs_in_order(study) if run.variant == variant and not folder.is_finished(run)]
    left = sum(max(kimg - how_far(folder.run_folder(run))[0], 0) for run in mine)
    return Estimate(variant.name, result["sec_per_kimg"], kimg, left, len(mine))


@contextmanager
def _naming(variant: Variant) -> Iterator[None]:
    """Names a variant in messages about its options."""
    try:
        yield
    except click.ClickException as error:
        raise CliError(f"variant {variant.name}: {error.format_message()}") from error
    except OptionError as error:
        raise CliError(f"variant {variant.name}: {error}") from error


def describe(estimates: Sequence[Estimate], jobs: int) -> str:
    """A table, and the sum."""
    width = max(8, *(len(x.name) for x in estimates))
    lines = [f"{'variant':<{width}}{'sec/kimg':>10}{'kimg':>10}{'runs to go':>12}{'hours':>8}"]
    for x in estimates:
        lines.append(f"{x.name:<{width}}{x.sec_per_kimg:>10.2f}{x.kimg:>10g}{x.runs_left:>12}{x.seconds / 3600:>8.2f}")
    total = sum(x.seconds for x in estimates) / jobs
    side = "one at a time" if jobs == 1 else f"{jobs} at a time"
    lines += ["", f"all together: {total / 3600:.2f} hours ({format_time(total)}), {side}; metrics come on top"]
    if jobs > 1:
        lines.append("measured alone, with a run's share of threads; runs side by side may hinder each other")
    return "\n".join(lines)
