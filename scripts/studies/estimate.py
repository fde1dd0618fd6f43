# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How long a study will take, from a few training steps and images of each variant; writes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from ggdr.metrics.evaluate import Job
from ggdr.metrics.names import MetricSpec, parse_metric
from ggdr.scripts.benches.report import progress
from ggdr.scripts.benches.step_timing import WARM_UP, step_timer
from ggdr.scripts.errors import CliError, OptionError, metric_errors
from ggdr.scripts.measuring.judge import SnapshotJudge, training_job
from ggdr.scripts.options.option_words import host_name, measured_data, training_command
from ggdr.scripts.options.parameters import join_processes, prepare_ops
from ggdr.scripts.studies.definition import Study, Variant
from ggdr.scripts.studies.machine_shares import thread_share
from ggdr.scripts.studies.metric_times import (
    NUM_TIMED,
    DetectorTimes,
    ImageTimes,
    evaluation_seconds,
    time_detectors,
    time_images,
)
from ggdr.scripts.studies.run_progress import how_far
from ggdr.scripts.studies.steps import unmeasured
from ggdr.scripts.studies.study_folder import StudyFolder, runs_in_order
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.run import tune_process
from ggdr.scripts.training.settings import RunSettings
from ggdr.scripts.training.settings_stylegan2 import StyleGAN2Settings, with_every_transform
from ggdr.torch_utils.checkpoint import save_snapshot
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import GANTask
from ggdr.torch_utils.loop import LoopConfig, NonFiniteError
from ggdr.torch_utils.runlog import format_time

ITERATIONS = 8


@dataclass(frozen=True)
class Estimate:
    """What one variant will take.

    Attributes:
        sec_per_kimg:   measured.
        kimg:           of a run.
        kimg_left:      of all its runs together.
        runs_left:      that are not finished.
        snapshots_left: of all its runs that have to be measured.
        metric_seconds: for all of these.
    """

    name: str
    sec_per_kimg: float
    kimg: float
    kimg_left: float
    runs_left: int
    snapshots_left: int = 0
    metric_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Of training, one run after the other."""
        return self.sec_per_kimg * self.kimg_left


@dataclass(frozen=True)
class StudyEstimate:
    """What a study will take: its variants, and the detectors of its metrics."""

    variants: list[Estimate]
    metrics: list[MetricSpec]
    detectors: DetectorTimes


@dataclass(frozen=True)
class _Ready:
    """A variant whose options can be used."""

    variant: Variant
    settings: RunSettings
    data: Any
    group: ProcessGroup
    judge: SnapshotJudge | None  # None without metrics


def estimate_study(study: Study, folder: StudyFolder, jobs: int) -> StudyEstimate:
    """Times some steps of each variant, and some images of its network and of the dataset.

    Raises:
        CliError: a variant's options cannot be used, before anything is timed, or its training fails; names it.
        DataError: an image cannot be read.
    """
    torch.set_num_threads(min(torch.get_num_threads(), thread_share(jobs)))
    ready = []
    for variant in study.variants:
        with _naming(variant):
            ready.append(_prepare(study, variant, folder))
    specs = [parse_metric(name) for name in study.metrics]
    found, detectors = [], None
    for one in ready:
        with _naming(one.variant):
            rate, task = _time_steps(one)
        images = ImageTimes()
        if one.judge is not None:
            with _snapshot_jobs(one, task, specs) as jobs:
                # Of all variants alike: they have one data set.
                detectors = detectors or time_detectors(specs, next(iter(jobs.values())))
                images = time_images(specs, jobs, detectors)
        detectors = detectors or DetectorTimes()
        found.append(_count_left(study, folder, one, rate, detectors, images))
    return StudyEstimate(found, specs, detectors)


def _prepare(study: Study, variant: Variant, folder: StudyFolder) -> _Ready:
    """A variant's data and settings, as its host makes them of its options."""
    words = study.words(variant, study.seeds[0], folder.path / variant.name)[len(study.command.split()) :]
    command = training_command(study.command).make_context(f"ggdr {study.command}", words).params
    group = join_processes(command["device"])
    host = HOSTS[host_name(study.command, study.options_of(variant))]
    if group.device.type in host.compiled_on:
        prepare_ops(command["ops"], group.device)
    prepared = host.prepare(command, Origin(), group)
    settings, judge = prepared.settings, None
    if settings.metrics:
        with metric_errors():
            data = prepared.measured or Path(measured_data(study.command, study.options_of(variant)))
            judge = host.open_judge(settings.to_json(), data, training_job(group, settings.detector_files))
    if isinstance(settings, StyleGAN2Settings):
        settings = with_every_transform(settings)
    return _Ready(variant, settings, prepared.data, group, judge)


def _time_steps(one: _Ready) -> tuple[float, GANTask]:
    """Seconds per kimg of a variant's steps, and what was trained."""
    tune_process(one.group.device, one.settings.precision)
    try:
        with (
            step_timer(one.settings, one.data, one.group) as timer,
            progress(one.variant.name, WARM_UP + ITERATIONS) as advance,
        ):
            for i in range(WARM_UP + ITERATIONS):
                timer.run(warm_up=i < WARM_UP)
                advance()
            return sum(timer.seconds().values()) * 1000 / one.settings.loop.batch, timer.task
    except NonFiniteError as error:
        raise CliError(str(error)) from error


@contextmanager
def _snapshot_jobs(one: _Ready, task: GANTask, specs: Sequence[MetricSpec]) -> Iterator[Mapping[str, Job]]:
    """What is measured of a variant's network, by way of a snapshot, as its runs do."""
    networks, config = task.snapshot()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "network-snapshot-000000.safetensors"
        save_snapshot(path, networks, config | {"nimg": 0})
        yield one.judge.jobs(path, specs)


def _count_left(
    study: Study, folder: StudyFolder, one: _Ready, rate: float, detectors: DetectorTimes, images: ImageTimes
) -> Estimate:
    """What is left of a variant's runs."""
    loop, kimg_left, runs_left, evaluations = one.settings.loop, 0.0, 0, []
    for run in (run for run in runs_in_order(study) if run.variant == one.variant):
        path = folder.run_folder(run)
        evaluations += [found.metrics for found in unmeasured(study, path)]
        if not folder.is_finished(run):
            done = how_far(path)[0]
            kimg_left += max(loop.total_nimg / 1000 - done, 0)
            runs_left += 1
            to_come = snapshots_to_come(loop, round(done * 1000)) if study.metrics else 0
            evaluations += [study.metrics] * to_come
    seconds = sum(
        evaluation_seconds([parse_metric(name) for name in names], detectors, images) for names in evaluations
    )
    kimg = loop.total_nimg / 1000
    return Estimate(one.variant.name, rate, kimg, kimg_left, runs_left, len(evaluations), seconds)


def snapshots_to_come(loop: LoopConfig, nimg: int) -> int:
    """How many snapshots a run makes that goes on from `nimg` images: at whole multiples, and at its end."""
    if nimg >= loop.total_nimg:
        return 0
    every, end = loop.tick_nimg * loop.snap_ticks, -(-loop.total_nimg // loop.batch) * loop.batch
    is_last_between = end // every == (end - loop.batch) // every
    return end // every - nimg // every + is_last_between


@contextmanager
def _naming(variant: Variant) -> Iterator[None]:
    """Names a variant in messages about its options."""
    try:
        yield
    except click.ClickException as error:
        raise CliError(f"variant {variant.name}: {error.format_message()}") from error
    except OptionError as error:
        raise CliError(f"variant {variant.name}: {error}") from error


def describe(estimate: StudyEstimate, jobs: int) -> str:
    """A table, the sum, and what was measured and what was not."""
    variants, detectors = estimate.variants, estimate.detectors
    width = max(8, *(len(x.name) for x in variants))
    head = f"{'variant':<{width}}{'sec/kimg':>10}{'kimg':>10}{'runs to go':>12}{'hours':>8}"
    lines = [f"{head}{'snapshots to measure':>22}{'hours':>8}"]
    for x in variants:
        training = f"{x.sec_per_kimg:>10.2f}{x.kimg:>10g}{x.runs_left:>12}{x.seconds / 3600:>8.3f}"
        lines.append(f"{x.name:<{width}}{training}{x.snapshots_left:>22}{x.metric_seconds / 3600:>8.3f}")
    training, metrics = sum(x.seconds for x in variants), sum(x.metric_seconds for x in variants)
    reals = detectors.reals if metrics else 0.0  # while one run computes their features, the others wait for it
    total = (training + metrics) / jobs + reals
    side = "one at a time" if jobs == 1 else f"{jobs} at a time"
    lines += ["", f"all together: at least {total / 3600:.3f} hours ({format_time(total)}), {side}"]
    lines.append(f"timed: {ITERATIONS} training steps of each variant{_what_was_timed(estimate, reals)}")
    lines.append("not timed: the start of processes, pictures, snapshots, cluster maps" + _not_timed(estimate))
    for name, why in detectors.missing.items():
        names = ", ".join(spec.name for spec in estimate.metrics if spec.detector == name)
        lines.append(f"not in it: {names}: detector {name}: {why}")
    if jobs > 1:
        lines.append("measured alone, with a run's share of threads; runs side by side may hinder each other")
    return "\n".join(lines)


def _what_was_timed(estimate: StudyEstimate, reals: float) -> str:
    """Of the metrics, at the end of a list."""
    if not estimate.detectors.an_image:
        return ""
    names = ", ".join(estimate.detectors.an_image)
    once = f"; {format_time(reals)} for those of all reals, once" if reals else ""
    return f"; {NUM_TIMED} images of each and their features ({names}), scaled to the numbers that metrics take{once}"


def _not_timed(estimate: StudyEstimate) -> str:
    return ", the distances between features" if estimate.metrics else ""
