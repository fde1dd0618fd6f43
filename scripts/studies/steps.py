# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is left to do of a run of a study: training, metrics that its snapshots lack, cluster maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggdr.scripts.measuring.snapshot_metrics import missing_metrics
from ggdr.scripts.options.option_words import measured_data, option_value
from ggdr.scripts.studies.definition import Study
from ggdr.scripts.studies.study_folder import StudyFolder, StudyRun
from ggdr.scripts.training.snapshot_files import snapshots_in
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import DataError

CLUSTERED = ("train",)  # commands whose snapshots `ggdr clusters` reads
MAPS, SCORES = "clusters", "judged"  # folders in a run's: cluster maps, and clusters judged by true label maps


@dataclass(frozen=True)
class Unmeasured:
    """A snapshot of a run without a result of some metrics."""

    snapshot: Path
    nimg: int
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.metrics)} at kimg {self.nimg / 1000:g}"


@dataclass(frozen=True)
class Step:
    """A process of a run: `ggdr WORDS`, which trains, or measures a snapshot, or makes cluster maps.

    Attributes:
        measures: what it measures; None if it does not.
        fills:    the folder of sheets that it makes, in the study's; None if it makes none.
    """

    words: list[str]
    trains: bool = False
    measures: Unmeasured | None = None
    fills: str | None = None


def next_step(
    study: Study, folder: StudyFolder, run: StudyRun, *, clusters: bool, left_out: Collection[Path] = ()
) -> Step | None:
    """The first thing to do of a run; None if it is complete.

    Args:
        clusters: whether the sheets that the folder's record asks for are to be made.
        left_out: snapshots that are not to be measured.
    """
    path = folder.run_folder(run)
    if not folder.is_finished(run):
        return Step([*study.words(run.variant, run.seed, path), "--resume", "latest"], trains=True)
    for found in unmeasured(study, path):
        if found.snapshot not in left_out:
            return Step(_metric_words(study, run, path, found), measures=found)
    snapshots = snapshots_in(path)
    for sheets in (MAPS, SCORES) if clusters and snapshots else ():
        if (fills := f"{run.name}/{sheets}") in folder.without_sheets:
            return Step(_cluster_words(study, run, snapshots[-1], path / sheets), fills=fills)
    return None


def sheets_to_make(study: Study, run: StudyRun) -> list[str]:
    """Folders of sheets, in the study's, that a run is to have when it has come to its end."""
    if study.command not in CLUSTERED:
        return []
    try:
        data = ImageDataset(option_value(study.command, study.options_of(run.variant), "data"))
    except (DataError, OSError):  # it has gone since
        return [f"{run.name}/{MAPS}"]
    return [f"{run.name}/{sheets}" for sheets in (MAPS, SCORES)[: 1 if data.label_classes is None else 2]]


def unmeasured(study: Study, run_folder: Path) -> list[Unmeasured]:
    """The snapshots of a run that lack some of the study's metrics, the longest trained first.

    Those that are not there any more, and files that are no snapshots, are left out.
    """
    if not study.metrics:
        return []
    found = []
    for path in reversed(snapshots_in(run_folder)):
        try:
            nimg = load_snapshot(path, tensors=False).nimg
        except SnapshotError:
            continue
        names = missing_metrics(study.metrics, path, nimg) if nimg is not None else []
        found += [Unmeasured(path, nimg, tuple(names))] if names else []
    return found


def _metric_words(study: Study, run: StudyRun, path: Path, found: Unmeasured) -> list[str]:
    """As the run measures its snapshots itself."""
    options = study.options_of(run.variant)
    words = ["--network", str(found.snapshot), "--metrics", ",".join(found.metrics), "--outdir", str(path)]
    data = ["--data", str(measured_data(study.command, options))]
    return ["metrics", *words, *_hardware_words(study.command, options), *data]


def _cluster_words(study: Study, run: StudyRun, snapshot: Path, outdir: Path) -> list[str]:
    """Cluster maps of a snapshot, or how well its clusters agree with the label maps of the data."""
    options = study.options_of(run.variant)
    words = ["--network", str(snapshot), "--outdir", str(outdir), *_hardware_words(study.command, options)]
    labels = ["--labels", option_value(study.command, options, "data")] if outdir.name == SCORES else []
    return ["clusters", *words, *labels]


def _hardware_words(command: str, options: Mapping[str, Any]) -> list[str]:
    """What a run's options say of where and how to compute."""
    given = {name: option_value(command, options, name) for name in ("device", "ops")}
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
