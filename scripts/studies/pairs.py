# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The numbers of one variant, and of two compared seed by seed, from the entries that `read_results` makes of runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ggdr.scripts.studies.statistics import count_wins, first_reached, paired_difference, sample_sd

Curves = dict[int, dict[float, float]]  # of one metric: by seed, values by kimg


def summarize(variant: Mapping[str, Any], metrics: Sequence[Mapping[str, str]], notes: list[str]) -> dict[str, Any]:
    """Mean, sample standard deviation and values of each metric over the finished runs of a variant.

    Returns:
        {METRIC: {"mean", "sd": None of one run, "values": {seed as text: value}}}, at the last kimg that all have.
    """
    found = {}
    for name in (metric["name"] for metric in metrics):
        curves = finished_curves(variant, name, notes)
        kimg = _last_common(curves)
        if kimg is not None:
            values = {str(seed): curve[kimg] for seed, curve in curves.items()}
            mean, sd = statistics.fmean(values.values()), sample_sd(list(values.values()))
            found[name] = {"mean": mean, "sd": sd, "values": values}
    return found


def compare_pair(
    a: Mapping[str, Any], b: Mapping[str, Any], metrics: Sequence[Mapping[str, str]], notes: list[str]
) -> dict[str, Any]:
    """Two variants, over the seeds of which both have finished runs.

    Returns:
        {"a", "b", "metrics": {METRIC: {"seeds", "differences": b - a of each, "mean", "low", "high", "wins": seeds in
        which b is better, "reach"}}}; a metric without a pair is not in it. Values are those at the last kimg that all
        these runs have. "reach" is {"a_last", "b_kimg", "b_hours", "b_last", "a_kimg", "a_hours"}: the last means, and
        where the other variant's mean first is as good.
    """
    found = {}
    for metric in metrics:
        name, higher_is_better = metric["name"], metric["better"] == "higher"
        curves_a, curves_b = (finished_curves(variant, name, notes) for variant in (a, b))
        seeds = [seed for seed in curves_a if seed in curves_b]
        curves_a, curves_b = ({seed: curves[seed] for seed in seeds} for curves in (curves_a, curves_b))
        kimg_a = kimg_b = _last_common({**curves_a, **{("b", seed): curve for seed, curve in curves_b.items()}})
        if kimg_a is None:  # of other batch sizes: snapshots lie elsewhere
            kimg_a, kimg_b = _last_common(curves_a), _last_common(curves_b)
            if kimg_a is None or kimg_b is None:
                continue
            notes.append(
                f"{a['name']} and {b['name']} share no snapshot with {name}: compared at {kimg_a:g} and {kimg_b:g} kimg"
            )
        values_a, values_b = ([curves_a[s][kimg_a] for s in seeds], [curves_b[s][kimg_b] for s in seeds])
        difference = paired_difference(values_a, values_b)
        last_a, last_b = statistics.fmean(values_a), statistics.fmean(values_b)
        reach_b = first_reached(_mean_curve(curves_b), last_a, higher_is_better)
        reach_a = first_reached(_mean_curve(curves_a), last_b, higher_is_better)
        found[name] = {
            "seeds": seeds,
            **difference._asdict(),
            "wins": count_wins(difference.differences, higher_is_better),
            "reach": {
                "a_last": last_a, "b_kimg": reach_b, "b_hours": _hours(b, reach_b),
                "b_last": last_b, "a_kimg": reach_a, "a_hours": _hours(a, reach_a),
            },
        }  # fmt: skip
    return {"a": a["name"], "b": b["name"], "metrics": found}


def finished_curves(variant: Mapping[str, Any], name: str, notes: list[str]) -> Curves:
    """A metric's values of a variant's finished runs; a run without any is noted."""
    curves = {}
    for run in variant["runs"]:
        if run["state"] != "finished":
            continue
        points = run["metrics"].get(name)
        if points:
            curves[run["seed"]] = {kimg: value for kimg, value in points}
        else:
            notes.append(f"{run['folder']}: finished without {name}, and left out of it")
    return curves


def _last_common(curves: Mapping[Any, Mapping[float, float]]) -> float | None:
    """The last kimg that all curves have; None if there is none."""
    shared = set.intersection(*map(set, curves.values())) if curves else set()
    return max(shared, default=None)


def _mean_curve(curves: Curves) -> list[tuple[float, float]]:
    """Mean over seeds at each kimg that all of them have."""
    shared = set.intersection(*map(set, curves.values()))
    return [(kimg, statistics.fmean(curve[kimg] for curve in curves.values())) for kimg in sorted(shared)]


def _hours(variant: Mapping[str, Any], kimg: float | None) -> float | None:
    """Hours of training that a variant needs for so many images."""
    rate = variant["seconds_per_kimg"]
    return None if kimg is None or rate is None else kimg * rate / 3600
