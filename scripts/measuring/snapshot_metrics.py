# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics of the snapshots of a run, and its best snapshot."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ggdr.metrics.evaluate import MetricResult
from ggdr.metrics.extract import IsStopped, MetricError, MetricsStopped, PeerFailed
from ggdr.metrics.names import MetricSpec, parse_metric
from ggdr.scripts.errors import memory_error_text, os_error_text
from ggdr.scripts.measuring.judge import SnapshotJudge, measure
from ggdr.scripts.measuring.results import append_results
from ggdr.scripts.terminal import say
from ggdr.scripts.training.snapshot_files import BEST_FILE
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.downloads import WeightsError
from ggdr.torch_utils.runlog import RunLog
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json
from ggdr.torch_utils.untrusted.regular_files import read_lines

MEASURING = "measuring"  # begins the line of the log after which metrics are computed; the next line is the result
# What a metric that fails may raise; training goes on.
FAILURES = (MetricError, WeightsError, DataError, SnapshotError, OSError, torch.OutOfMemoryError)


class SnapshotMetrics:
    """Computes metrics of each snapshot, on all processes together.

    Results go to metric-NAME.jsonl, to the log and to TensorBoard; the snapshot that is best by the first metric is
    kept as network-best.safetensors. A metric that fails is reported, and training goes on; a snapshot of which one
    failed is not among those that the best is chosen from.

    Args:
        names:    of the metrics; the first one chooses the best snapshot.
        judge:    what measures.
        folder:   of the run.
        patience: snapshots in a row of which none is better than the best one before, after which `is_over`; None:
                  any number.

    Raises:
        MetricError, WeightsError: one cannot be computed on these images, or its weights are missing.
    """

    def __init__(
        self,
        names: Sequence[str],
        judge: SnapshotJudge,
        folder: Path,
        group: ProcessGroup,
        patience: int | None = None,
    ) -> None:
        self.specs: list[MetricSpec] = [parse_metric(name) for name in names]
        self.judge, self.folder, self.group, self.patience = judge, folder, group, patience
        judge.check(self.specs)

    def forget_after(self, nimg: int) -> None:
        """Drops results beyond the state that a resumed run goes on from: they come again; and damaged lines."""
        for path in self.folder.glob("metric-*.jsonl") if self.group.is_main else ():
            if path.is_file():
                kept = [line for line in read_lines(path) if _nimg(line) <= nimg]
                with atomic_write(path) as file:
                    file.write(b"".join(kept))

    def __call__(self, snapshot: Path, nimg: int, log: RunLog, is_stopped: IsStopped = lambda: False) -> bool:
        """Computes the metrics of one snapshot that its run has not; to be called on every process.

        Returns:
            False if they were given up since `is_stopped` said so on a process; the same on all.

        Raises:
            OSError: the results cannot be written.
        """
        start = time.monotonic()
        specs = self._missing(snapshot, nimg)
        if not specs:
            return True
        log.info(f"{MEASURING} {', '.join(spec.name for spec in specs)} at kimg {nimg / 1000:g}")
        failure: BaseException | None = None
        try:
            results = measure(self.judge, specs, snapshot, self.group, is_stopped=is_stopped)
        except (*FAILURES, MetricsStopped) as error:
            failure = error
        if self.group.any(isinstance(failure, MetricsStopped)):
            log.info(f"metrics of {snapshot.name} given up; a resumed run computes them first")
            return False
        if self.group.any(failure is not None):
            self._report_failure(snapshot, failure, log)
        elif self.group.is_main:
            self._store(snapshot, nimg, results, log, seconds=time.monotonic() - start)
        return True

    def _missing(self, snapshot: Path, nimg: int) -> list[MetricSpec]:
        """Those that the first process finds no result of; the snapshot is written by then."""
        names = missing_metrics([spec.name for spec in self.specs], snapshot, nimg) if self.group.is_main else []
        is_missing = torch.tensor([float(spec.name in names) for spec in self.specs], device=self.group.device)
        self.group.broadcast_([is_missing])
        return [spec for spec, flag in zip(self.specs, is_missing.tolist(), strict=True) if flag]

    def is_over(self, log: RunLog) -> bool:
        """Whether training is to end, since no snapshot has been better than the best one for `patience` of them.

        To be called on every process; the same on all.
        """
        is_over, text = self._impatience() if self.group.is_main and self.patience is not None else (False, "")
        if is_over:
            log.info(text)
        return self.group.any(is_over)

    def _impatience(self) -> tuple[bool, str]:
        """Whether it is over, and what to say then."""
        first = self.specs[0]
        values = values_by_nimg(self.folder / f"metric-{first.name}.jsonl")
        if not values:
            return False, ""
        best = (max if first.higher_is_better else min)(values, key=values.__getitem__)  # the first of equal ones
        later = sum(nimg > best for nimg in values)
        text = (
            f"{first.name} has not been better than {values[best]:.5g} at kimg {best / 1000:g} for {later} snapshots: "
            f"training ends (--patience {self.patience})"
        )
        return later >= self.patience, text

    def _report_failure(self, snapshot: Path, failure: BaseException | None, log: RunLog) -> None:
        """Says why in the log; the cause on another process, which has no log, on its standard error."""
        failure = failure or PeerFailed()
        reason = os_error_text(failure) if isinstance(failure, OSError) else failure
        reason = memory_error_text(failure) if isinstance(failure, torch.OutOfMemoryError) else reason
        text = f"metrics of {snapshot.name} failed: {reason}; {BEST_FILE} is chosen without it; training goes on"
        log.info(text)
        if not self.group.is_main and not isinstance(failure, PeerFailed):
            say(f"process {self.group.rank}: {text}", err=True)

    def _store(
        self, snapshot: Path, nimg: int, results: Sequence[MetricResult], log: RunLog, *, seconds: float
    ) -> None:
        """Keeps the best snapshot, and then writes results: with these the metrics of a snapshot are done."""
        first = [result for result in results if result.name == self.specs[0].name]
        about = {"snapshot": snapshot.name, "nimg": nimg, "kimg": nimg / 1000, "time": round(time.time(), 3)}
        values = {name: value for result in results for name, value in result.values.items()}
        log.scalars(nimg, {f"metric/{name}": value for name, value in values.items()} | {"time/metrics_sec": seconds})
        shown = ", ".join(f"{name} {value:.5g}" for name, value in values.items())
        try:
            is_best = any([self._keep_best(snapshot, nimg, result) for result in first])
            append_results(self.folder, results, about)
            note = " (the best so far)" if is_best else ""
        except (OSError, SnapshotError) as error:
            note = f" (not kept: {error}; training goes on)"
        log.info(f"{shown}{note} in {seconds:.1f} s")

    def _keep_best(self, snapshot: Path, nimg: int, result: MetricResult) -> bool:
        """Whether this is the best snapshot so far by its first metric; then it is copied."""
        path, name = self.folder / BEST_FILE, self.specs[0].name
        sign = -1 if self.specs[0].higher_is_better else 1
        if path.exists():
            best = load_snapshot(path).config.get("best", {})
            if best.get("metric") == name and not sign * result.value < sign * best.get("value", math.nan):
                return False
        network = load_snapshot(snapshot)
        config = network.config | {"best": {"metric": name, "value": result.value, "nimg": nimg}}
        save_snapshot(path, network.networks, config)
        return True


def missing_metrics(names: Sequence[str], snapshot: Path, nimg: int) -> list[str]:
    """Those that a snapshot of a run, made after `nimg` images, has no result of; none if it is not there."""
    if not snapshot.exists():
        return []
    return [name for name in names if not _has_result(snapshot.parent / f"metric-{name}.jsonl", nimg)]


def values_by_nimg(path: Path) -> dict[float, float]:
    """The value that ranks snapshots, by the images that they were trained on, rising; of a run's file of results.

    What `ggdr metrics` added, which may be of other images, is left out, and so is what is damaged or no number.
    """
    found = {}
    try:
        lines = read_lines(path)
    except OSError:
        return {}
    for line in lines:
        nimg = _nimg(line)
        if is_finite(nimg):
            record = parse_json(line)
            results = record.get("results") if "snapshot" in record else None
            value = next(iter(results.values()), None) if isinstance(results, dict) else None
            if is_finite(value):
                found[nimg] = value
    return dict(sorted(found.items()))


def _has_result(path: Path, nimg: int) -> bool:
    """Whether a file of results has one of a snapshot; one that cannot be read has none."""
    try:
        return nimg in map(_nimg, read_lines(path))
    except OSError:
        return False


def _nimg(line: bytes) -> float:
    """The images of one line of metric-NAME.jsonl; of a damaged one more than any, of images of no run none."""
    try:
        nimg = parse_json(line).get("nimg", 0)
    except (ValueError, AttributeError):
        return math.inf
    return nimg if line.endswith(b"\n") and is_finite(nimg) else math.inf
