# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What to measure where no metric is named: the best judge whose weights are at hand, so that nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping

from ggdr.metrics.detectors import DETECTORS
from ggdr.metrics.inception import INCEPTION_FILE
from ggdr.metrics.lite import find_lite
from ggdr.metrics.names import MetricSpec, parse_metric
from ggdr.torch_utils.downloads import WeightsError, find_hashed

QUICK = ("lite", "offline")  # detectors of whose metrics 5,000 images say enough; others take the usual 50,000
_DOWNLOAD = f"--metrics fid50k_full downloads Inception's ({INCEPTION_FILE.size / 1e6:.0f} MB)"


def default_judge(given: Mapping[str, str]) -> tuple[str, str]:
    """The detector to measure with, and why.

    Args:
        given: files of detectors that options name, by the option.
    """
    for option, detector in (("detector", "custom"), ("inception", "inception"), ("lite", "lite")):
        if option in given:
            return detector, f"--{option} is given"
    if has_inception():
        return "inception", "Inception's weights are at hand"
    judge = quick_judge()
    if judge == "lite":
        return judge, f"only the weights of EfficientNet-Lite0 are at hand; {_DOWNLOAD}"
    return judge, f"no network's weights are at hand; {_DOWNLOAD}"


def quick_judge() -> str:
    """The better one of QUICK that is at hand: for many measurements, as of each snapshot of many runs."""
    return "offline" if find_lite() is None else "lite"


def has_inception() -> bool:
    """Whether Inception's weights are in a cache."""
    try:
        find_hashed(INCEPTION_FILE, download=False)
    except WeightsError:
        return False
    return True


def frechet_metric(detector: str) -> MetricSpec:
    """The Frechet distance on a detector's features, of the usual number of images.

    Raises:
        LookupError: no such detector, or none with a Frechet distance.
    """
    fronts = [front for front, kind in DETECTORS[detector].fronts.items() if kind == "fid"]
    return parse_metric(f"{fronts[0]}{5 if detector in QUICK else 50}k_full")
