# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr metrics` measures where no metric is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ggdr.metrics.defaults import default_judge, frechet_metric, has_inception
from ggdr.metrics.evaluate import StoredReals
from ggdr.metrics.extract import MetricError
from ggdr.metrics.image_sets import is_statistics
from ggdr.metrics.names import MetricSpec
from ggdr.scripts.measuring.real_images import open_reals

INCEPTION_DIM = 2048  # of no other detector


def default_metric(given: Mapping[str, str], reals: Path, num_fakes: int | None) -> tuple[MetricSpec, str]:
    """A Frechet distance that these images suffice for, and why this one.

    Args:
        given:     files of detectors that options name, by the option.
        reals:     images, or their stored statistics, whose detector is the one to use.
        num_fakes: how many there are; None for those of a network, which makes as many as are asked for.

    Raises:
        DataError: a file cannot be read.
        MetricError: the statistics' detector cannot be had without a download, or is unknown.
    """
    if is_statistics(reals):
        judge, reason = _judge_of_statistics(open_reals(reals, mirror=False, workers=0, as_stored=False), given)
    else:
        judge, reason = default_judge(given)
    spec = frechet_metric(judge)
    return spec if num_fakes is None else spec.with_num(min(spec.num, num_fakes)), reason


def _judge_of_statistics(reals: StoredReals, given: Mapping[str, str]) -> tuple[str, str]:
    path, told = reals.about["path"], reals.about.get("detector")
    judge = "inception" if told is None and len(reals.gaussian.mean) == INCEPTION_DIM else str(told)
    try:
        frechet_metric(judge)
    except LookupError as error:
        raise MetricError(f"--metrics: {path} does not say on which features it is; name the metric") from error
    if judge == "inception" and "inception" not in given and not has_inception():
        raise MetricError(
            f"--metrics: {path} is on Inception's features, whose weights are not at hand; --metrics fid50k_full "
            "downloads them"
        )
    return judge, f"{path} is on {judge} features"
