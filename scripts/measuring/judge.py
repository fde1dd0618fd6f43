# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What measures snapshots: of each kind of model its own, for training and for `ggdr metrics` alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.directions import merge_directions
from ggdr.metrics.evaluate import Job, MetricResult, check_beside, evaluate, load_detectors
from ggdr.metrics.extract import MetricError, together
from ggdr.metrics.feature_cache import FeatureCache
from ggdr.metrics.image_sets import FileImages, GeneratedImages
from ggdr.metrics.names import MetricSpec
from ggdr.metrics.resize import MODES
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.distributed import ProcessGroup

MODE = "stylegan"  # of the metrics of runs
BATCH = 64


class SnapshotJudge(Protocol):
    """Measures the snapshots of one kind of model on data that it has opened.

    Attributes:
        about:    what is measured on what, in one line; may be empty.
        defaults: metrics for whoever names none; empty where it does not know any.
    """

    about: str
    defaults: str

    def check(self, specs: Sequence[MetricSpec]) -> None:
        """Whether these metrics can be computed, before there is a snapshot; loads detectors; on every process.

        Raises:
            MetricError, WeightsError: one cannot.
        """

    def jobs(self, snapshot: Path, specs: Sequence[MetricSpec]) -> Mapping[str, Job]:
        """What is to be compared for these metrics: one job, or one for each direction of translation, by its name.

        Raises:
            SnapshotError, MetricError: the snapshot makes no images that can be compared.
        """


def measure(
    judge: SnapshotJudge, specs: Sequence[MetricSpec], snapshot: Path, group: ProcessGroup, **changes: Any
) -> list[MetricResult]:
    """A snapshot's metrics; to be called on every process, and empty on others than the first.

    Args:
        changes: in each job, as `progress` and `is_stopped`.

    Raises:
        What `evaluate` and the judge raise.
    """
    with together(group):
        jobs = judge.jobs(snapshot, specs)
    return merge_directions({name: evaluate(specs, replace(job, **changes)) for name, job in jobs.items()})


def training_job(group: ProcessGroup, given: Mapping[str, str] | None = None) -> Job:
    """What the metrics of runs have in common.

    Args:
        given: files of detectors, by the option; see DetectorFiles.
    """
    files, cache = DetectorFiles(MODES[MODE], group.device, given or {}), FeatureCache(cache_folder("metrics"))
    return Job(files, cache=cache, group=group, batch=BATCH)


class SnapshotImages(Protocol):
    """What is measured of a snapshot of a generator."""

    def images(self, num: int) -> GeneratedImages:
        """Its first `num` images."""

    def measure_paths(self, spec: MetricSpec, numbers: Sequence[int], distance: Callable[..., Tensor]) -> Tensor:
        """Lengths [n] float64 of the paths of these numbers."""


class GeneratorJudge:
    """Measures generators, whose images are compared with all real ones; see SnapshotJudge.

    Args:
        data:        the real images.
        job:         how to compare.
        open_images: open_images(snapshot, device, labels of the real images or None) gives what is measured of a
                     snapshot.

    Raises:
        DataError: the real images cannot be read.
    """

    about = defaults = ""

    def __init__(
        self,
        data: Path | Container,
        job: Job,
        open_images: Callable[[Path, torch.device, LabelTable | None], SnapshotImages],
    ) -> None:
        self.reals, self.open_images = FileImages(data), open_images
        self.job = replace(job, reals=self.reals)

    def check(self, specs: Sequence[MetricSpec]) -> None:
        for spec in specs:
            if spec.needs_labels and self.reals.labels is None:
                raise MetricError(f"{spec.name}: needs the classes of the images; {self.reals.container.path} has none")
        check_beside(specs, replace(self.job, fakes=GeneratedImages(lambda numbers: torch.empty(0))))
        load_detectors(specs, self.job.detectors, self.job.group)

    def jobs(self, snapshot: Path, specs: Sequence[MetricSpec]) -> dict[str, Job]:
        made = self.open_images(snapshot, self.job.group.device, self.reals.label_table)
        fakes = made.images(max(spec.num for spec in specs))
        return {"": replace(self.job, fakes=fakes, measure_paths=made.measure_paths)}
