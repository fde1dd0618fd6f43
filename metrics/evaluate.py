# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics by name: one pass over reals and one over fakes, then results that say what was computed on what."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ggdr.metrics.compute import Compared, Values, compute
from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DETECTORS, DetectorFiles
from ggdr.metrics.extract import (
    Extracted,
    FeatureRequest,
    IsStopped,
    MetricError,
    OutOfMemory,
    Progress,
    extract,
    smaller_batch,
    together,
)
from ggdr.metrics.feature_cache import FeatureCache
from ggdr.metrics.image_sets import ImageSource
from ggdr.metrics.names import MetricSpec
from ggdr.metrics.ppl import EPSILON, ppl_summary
from ggdr.metrics.stats import Gaussian
from ggdr.torch_utils.distributed import ProcessGroup

# (spec, path numbers, distance) to the lengths of a generator's paths, [n].
PathLengths = Callable[[MetricSpec, Sequence[int], Callable[[Tensor, Tensor], Tensor]], Tensor]
# What may be missing beside the fakes; see DetectorEntry.
MISSING = {
    "target": "compares translations with what they should be: expected pairs of images",
    "labels": "compares images with label maps: expected a translator of label maps",
    "cycle": "compares images with what comes back of them: expected a translator that has a way back",
}


@dataclass(frozen=True)
class StoredReals:
    """Mean and covariance of reals that somebody stored, in place of the images.

    Attributes:
        gaussian: its covariance is divided by N - 1; N may be 0: unknown.
        about:    what the file says of itself; "path" is always there.
    """

    gaussian: Gaussian
    about: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be compared, and how.

    Attributes:
        detectors:     loads them on demand; has the mode and the device.
        reals:         images, or stored statistics; None where no metric needs them.
        fakes:         images; None where only path lengths are asked for.
        measure_paths: of the generator that makes the fakes, if one does.
        beside:        what lies beside the fakes in channels, in this order: "target", "labels", "cycle"; see
                       DetectorEntry.
        batch:         images at once in one process; fewer where they do not fit a GPU's memory.
        seed:          of KID's and FID-infinity's subsets.
        warnings:      for every result.
        is_stopped:    asked between batches, on every process; once it says so the work ends in MetricsStopped.
    """

    detectors: DetectorFiles
    reals: ImageSource | StoredReals | None = None
    fakes: ImageSource | None = None
    measure_paths: PathLengths | None = None
    beside: tuple[str, ...] = ()
    cache: FeatureCache = FeatureCache(None)
    group: ProcessGroup = ProcessGroup()
    batch: int = 64
    seed: int = 0
    progress: Progress | None = None
    warnings: tuple[str, ...] = ()
    is_stopped: IsStopped | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric's values, and everything that they depend on.

    Attributes:
        name:     of the metric, as fid50k_full.
        values:   by name, as {"kid50k_full_mean": .., "kid50k_full_std": ..}; the first one ranks models.
        choices:  what was computed on what, and how.
        warnings: why the values may mislead.
        seconds:  for the metric itself, without images and features.
    """

    name: str
    values: dict[str, float]
    choices: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def value(self) -> float:
        """The value that ranks models."""
        return next(iter(self.values.values()))

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "results": self.values,
            "choices": self.choices,
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
        }


def check(specs: Sequence[MetricSpec], job: Job) -> None:
    """Whether all of it can be computed, before any work; loads the detectors.

    Raises:
        MetricError: images, labels or a generator are missing for a metric.
        WeightsError: a detector's weights are.
    """
    check_beside(specs, job)
    for spec in _sized(specs, job):
        if spec.kind == "ppl":
            if job.measure_paths is None:
                raise MetricError(f"{spec.name}: measures a generator, not images")
            continue
        if spec.needs_reals and job.reals is None:
            raise MetricError(f"{spec.name}: needs real images to compare with")
        if spec.num < spec.min_fakes:
            raise MetricError(f"{spec.name}: at least {spec.min_fakes} fakes are needed, got {spec.num}")
        num_reals = spec.min_reals if isinstance(job.reals, StoredReals) or not spec.needs_reals else job.reals.num
        if num_reals < spec.min_reals:
            raise MetricError(f"{spec.name}: at least {spec.min_reals} reals are needed, got {num_reals}")
        if job.fakes.num is not None and spec.num > job.fakes.num:
            raise MetricError(
                f"{spec.name}: needs {spec.num} fakes, got {job.fakes.num}; ask for as many as there are: "
                f"{spec.with_num(job.fakes.num).name}"
            )
        if isinstance(job.reals, StoredReals) and spec.needs_reals and spec.kind not in ("fid", "fidinf"):
            raise MetricError(f"{spec.name}: needs real images, got only their mean and covariance")
        if spec.needs_labels:
            for which, images in (("reals", job.reals), ("fakes", job.fakes)):
                if images.labels is None:
                    raise MetricError(f"{spec.name}: needs the classes of reals and fakes; the {which} have none")
    load_detectors(specs, job.detectors, job.group)
    if isinstance(job.reals, StoredReals):
        for spec in specs:
            if spec.needs_reals:
                _check_stored(job.reals, job.detectors.get(spec.detector))


def check_beside(specs: Sequence[MetricSpec], job: Job) -> None:
    """MetricError where a metric needs other images beside the fakes, or their number; before there are any fakes."""
    for spec in specs:
        beside = DETECTORS[spec.detector].beside
        if beside and beside not in job.beside:
            raise MetricError(f"{spec.name}: {MISSING[beside]}")
        if spec.takes_all and job.fakes is not None and job.fakes.num is None:
            raise MetricError(
                f"{spec.name}: a network makes as many images as are asked for; say how many, as in "
                f"{spec.with_num(5000).name}"
            )


def load_detectors(specs: Sequence[MetricSpec], detectors: DetectorFiles, group: ProcessGroup) -> None:
    """Loads what the metrics need, on rank 0 first: what has to be downloaded is, once, or fails for all.

    Raises:
        WeightsError: weights are missing, or others than they should be.
        MetricError: another process could not load its own.
    """
    for turn in (group.is_main, not group.is_main):
        with together(group):
            for name in {spec.detector for spec in specs} if turn else ():
                detectors.get(name)


def _check_stored(reals: StoredReals, detector: Detector) -> None:
    """MetricError unless stored statistics are this detector's, as far as they say."""
    ours = detector.describe()
    theirs = {key: reals.about.get(key, value) for key, value in ours.items()}
    if theirs != ours:
        raise MetricError(f"{reals.about['path']}: was made with {theirs}, this metric needs {ours}")


def evaluate(specs: Sequence[MetricSpec], job: Job) -> list[MetricResult]:
    """Computes metrics; on other ranks than 0 the list is empty.

    Raises:
        MetricError, WeightsError: as `check`; too few images, features that are not finite.
        DataError: an image cannot be read.
        OutOfMemory: a single image does not fit a GPU's memory.
        PeerFailed, MetricsStopped: as `extract.together`.
    """
    check(specs, job)
    specs = _sized(specs, job)
    sampled = [spec for spec in specs if spec.kind != "ppl"]
    # All that processes do together comes first, so that an error of rank 0 alone leaves nobody waiting.
    reals = real_features([spec for spec in sampled if spec.needs_reals], job)
    fakes = _fake_features(sampled, job)
    lengths = {spec: _all_lengths(spec, job) for spec in specs if spec.kind == "ppl"}
    results = []
    for spec in specs if job.group.is_main else ():
        start = time.monotonic()
        if spec.kind == "ppl":
            values = Values({"": ppl_summary(lengths[spec])}, {"epsilon": EPSILON})
        else:
            values = _compare(spec, reals.get(spec.detector), fakes[spec.detector], job)
        named = {f"{spec.name}{suffix}": value for suffix, value in values.values.items()}
        choices = _choices(spec, job) | job.detectors.get(spec.detector).describe() | values.choices
        warnings = [*job.warnings, *values.warnings]
        results.append(MetricResult(spec.name, named, choices, warnings, time.monotonic() - start))
    return results


def _sized(specs: Sequence[MetricSpec], job: Job) -> list[MetricSpec]:
    """The metrics, with the number of all fakes where they take all of them."""
    return [spec.of_all(None if job.fakes is None else job.fakes.num) for spec in specs]


def real_features(specs: Sequence[MetricSpec], job: Job) -> dict[str, Extracted | Gaussian]:
    """By detector, from the cache where it has them."""
    if isinstance(job.reals, StoredReals):
        return {spec.detector: job.reals.gaussian for spec in specs}
    wants: dict[str, FeatureRequest] = {}
    for spec in specs:
        keep = min(spec.max_reals or job.reals.num, job.reals.num) if spec.takes_rows else 0
        wants[spec.detector] = wants.get(spec.detector, FeatureRequest()) | FeatureRequest(keep)
    found: dict[str, Extracted | Gaussian] = {}
    with ExitStack() as stack:
        with together(job.group):
            if job.group.is_main:
                found |= _stored_features(wants, job)
                if len(found) < len(wants):
                    stack.enter_context(job.cache.alone(job.reals, job.is_stopped))
                    found |= _stored_features(wants, job)  # another process may have made them meanwhile
        wants = {name: want for name, want in wants.items() if not job.group.any(name in found)}
        if wants:
            made = _extract("reals", job.reals, job.reals.num, wants, job)
            with together(job.group):
                for name, entry in made.items():
                    job.cache.save(job.reals, job.detectors.get(name), entry)
            found |= made
    return found


def _stored_features(wants: Mapping[str, FeatureRequest], job: Job) -> dict[str, Extracted]:
    """Those that the cache holds, by detector."""
    loaded = {name: job.cache.load(job.reals, job.detectors.get(name), want) for name, want in wants.items()}
    return {name: entry for name, entry in loaded.items() if entry is not None}


def _fake_features(specs: Sequence[MetricSpec], job: Job) -> dict[str, Extracted]:
    """By detector, of as many fakes as the largest metric takes."""
    if not specs:
        return {}
    num = max(spec.num for spec in specs)
    wants: dict[str, FeatureRequest] = {}
    for spec in specs:
        # Mean and covariance of a part need its rows too.
        of_a_part = spec.kind in ("fid", "colourfulness_gap") and spec.num < num
        by_rows = spec.takes_rows or spec.kind == "fidinf" or of_a_part
        want = FeatureRequest(spec.num if by_rows else 0, spec.num if spec.kind == "is" else 0)
        wants[spec.detector] = wants.get(spec.detector, FeatureRequest()) | want
    return _extract("fakes", job.fakes, num, wants, job)


def _extract(
    what: str, source: ImageSource, num: int, wants: dict[str, FeatureRequest], job: Job
) -> dict[str, Extracted]:
    return extract(
        source,
        {name: (job.detectors.get(name), want) for name, want in wants.items()},
        num=num,
        batch=job.batch,
        device=job.detectors.device,
        group=job.group,
        progress=job.progress,
        what=what,
        is_stopped=job.is_stopped,
    )


def _all_lengths(spec: MetricSpec, job: Job) -> Tensor:
    """Lengths of all paths, [num] float64, shared among the processes; as many at once as `extract` takes images."""
    group, batch = job.group, job.batch
    distance = job.detectors.get(spec.detector)
    lengths = []
    start = 0
    while start < spec.num:
        numbers = range(start, min(start + batch * group.world, spec.num))
        mine = numbers[group.rank :: group.world]
        try:
            with together(group, job.is_stopped):
                share = job.measure_paths(spec, mine or numbers[:1], distance)[: len(mine)]
        except OutOfMemory:
            batch = smaller_batch(batch, "paths")
            continue
        lengths.append(group.gather_rows(share, len(numbers)).cpu())
        start = numbers.stop
        if job.progress is not None and group.is_main:
            job.progress("paths", start, spec.num)
    return torch.cat(lengths)


def _compare(spec: MetricSpec, real: Extracted | Gaussian | None, fake: Extracted, job: Job) -> Values:
    """One metric's values; on the CPU where the features do not fit the GPU's memory."""
    by_class = spec.needs_labels
    compared = Compared(
        spec,
        real,
        fake,
        real_labels=job.reals.labels if by_class else None,
        fake_labels=job.fakes.labels if by_class else None,
        mode=job.detectors.mode,
        seed=job.seed,
        device=job.detectors.device,
    )
    with suppress(torch.OutOfMemoryError):
        return compute(compared)
    return compute(replace(compared, device=torch.device("cpu")))


def _choices(spec: MetricSpec, job: Job) -> dict[str, Any]:
    """What every result line says."""
    choices: dict[str, Any] = {"mode": job.detectors.mode.name, "num_fakes": spec.num, "seed": job.seed}
    choices["quantisation"] = "none: paths are shorter than a grey level" if spec.kind == "ppl" else "uint8"
    if job.fakes is not None:
        choices["reading"] = job.detectors.mode.reading
        choices["fakes"] = job.fakes.describe()
        if spec.kind != "ppl" and job.fakes.num is not None and spec.num < job.fakes.num:
            choices["fakes_chosen_from"] = job.fakes.num
    if spec.needs_reals:
        if spec.max_reals is not None and spec.max_reals < job.reals.num:
            choices["reals_chosen_from"] = job.reals.num
        choices["reals"] = job.reals.about if isinstance(job.reals, StoredReals) else job.reals.describe()
        if not isinstance(job.reals, StoredReals):
            choices["reals"]["sha256"] = (job.reals.fingerprint() or "")[:16]
    choices["versions"] = {"torch": torch.__version__, "python": platform.python_version()}
    return choices
