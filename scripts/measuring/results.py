# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What becomes of metrics: lines for people, lines of metric-NAME.jsonl, and stored statistics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ggdr.metrics.evaluate import Job, MetricResult, StoredReals, real_features
from ggdr.metrics.extract import MetricError
from ggdr.metrics.image_sets import save_statistics
from ggdr.metrics.names import MetricSpec
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.appended_file import append_line
from ggdr.torch_utils.atomic_write import check_writable
from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.torch_utils.untrusted.regular_files import open_no_link


def append_results(folder: Path, results: Sequence[MetricResult], about: dict[str, Any]) -> None:
    """One line more in each metric-NAME.jsonl; raises OSError if one is a link, or cannot be written to."""
    for result in results:
        append_line(_results_file(folder, result.name), json.dumps({**result.to_json(), **about}))


def check_appendable(folder: Path, specs: Sequence[MetricSpec]) -> None:
    """Makes the folder; raises OSError where `append_results` would."""
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder)
    for path in (_results_file(folder, spec.name) for spec in specs):
        if path.exists():
            open_no_link(path, "ab").close()


def _results_file(folder: Path, name: str) -> Path:
    return folder / f"metric-{name}.jsonl"


def describe_result(result: MetricResult) -> str:
    """A result as lines for people."""
    c = result.choices
    lines = [f"{name:<28} {value:.5g}" for name, value in result.values.items()]
    images = [_count(c, which) for which in ("fakes", "reals") if f"num_{which}" in c]
    ddof = "" if "cov_ddof" not in c else f", covariance / {'N' if c['cov_ddof'] == 0 else 'N - 1'}"
    reading = f"files {c['reading']}, " if "reading" in c else ""
    how = f"mode {c['mode']}: {reading}{c.get('resize', 'LPIPS')}, {c['quantisation']}{ddof}"
    lines.append(f"  {', '.join(images)}; {how}; {c['detector']} {c['detector_hash']}")
    lines += [f"  warning: {warning}" for warning in result.warnings]
    return "\n".join(lines)


def _count(choices: Mapping[str, Any], which: str) -> str:
    """How many fakes or reals were compared, and whether there are more."""
    chosen_from = choices.get(f"{which}_chosen_from")
    return f"{choices[f'num_{which}']} {which}" + ("" if chosen_from is None else f" (at random from {chosen_from})")


def results_folder(outdir: Path | None, network: Path | None) -> Path | None:
    """Where results go: to `outdir`, else to the run folder that the network lies in, else nowhere."""
    if outdir is None and network is not None and RunFolder(network.parent).has_options():
        return network.parent
    return outdir


def store_results(folder: Path, results: Sequence[MetricResult], network: Path | None) -> None:
    """Results of a snapshot, or of images of no network, with how long it was trained and with the time of now.

    Raises:
        OSError: the folder cannot be written to.
        SnapshotError: the snapshot is not there any more.
    """
    about: dict[str, Any] = {"time": round(time.time(), 3)}
    nimg = None if network is None else load_snapshot(network).nimg
    if nimg is not None:
        about |= {"nimg": nimg, "kimg": nimg / 1000}
    append_results(folder, results, about)


def save_real_statistics(path: Path, specs: Sequence[MetricSpec], job: Job) -> int | None:
    """Stores mean and covariance of the reals' features, by the one detector that the metrics name.

    Returns:
        How many images they are of; None on other processes than the first.

    Raises:
        MetricError: there is more than one detector or none, or the reals are statistics themselves.
    """
    with_reals = [spec for spec in specs if spec.needs_reals]
    names = sorted({spec.detector for spec in with_reals})
    if len(names) != 1 or isinstance(job.reals, StoredReals):
        raise MetricError(f"--save-stats: expected real images and metrics of one detector, got {', '.join(names)}")
    features = real_features(with_reals, job).get(names[0])
    if features is None:
        return None
    detector = job.detectors.get(names[0])
    about = detector.describe() | {"reading": job.detectors.mode.reading} | job.reals.describe()
    save_statistics(path, features.stats, json.dumps(about))
    return features.num
