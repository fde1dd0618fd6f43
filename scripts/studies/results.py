# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What came of a study: its run folders as plain data, for the table and the page."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Sequence
from typing import Any

from ggdr.metrics.names import parse_metric
from ggdr.scripts.options.option_words import option_value, options_to_words
from ggdr.scripts.reports.page_curves import series
from ggdr.scripts.reports.panels import METRIC
from ggdr.scripts.reports.read_run import Run, finite_number, read_run, status
from ggdr.scripts.studies.definition import Study
from ggdr.scripts.studies.pairs import compare_pair, summarize
from ggdr.scripts.studies.study_folder import StudyFolder, StudyRun, runs_in_order
from ggdr.torch_utils.runlog import STATS_FILE
from ggdr.torch_utils.untrusted.json_text import is_finite
from ggdr.torch_utils.untrusted.text import printable

MAX_POINTS = 400  # of a run's curve


def read_results(study: Study, folder: StudyFolder) -> dict[str, Any]:
    """All that the table and the page show but pictures; JSON can hold it.

    Returns:
        title, command, budget_kimg, generated, versions, machine.
        metrics:  [{"name", "better": "lower" or "higher"}], each value of each metric; keys of what follows.
        panels:   [{"key", "title", "unit", "group"}], curves as the runs declare them, details left out.
        variants: [{"name", "options", "command", "model", "regularizers", "seconds_per_kimg", "hours", "gib",
                  "summary", "runs"}].
        pairs:    [{"a", "b", "metrics"}], the first variant and each other one.
        notes:    what readers should know.

        "summary" is {METRIC: {"mean", "sd", "values": {seed: value}}} of the finished runs, at the last kimg that all
        of them have; a metric without a value is not in it. Of "hours" and "seconds_per_kimg" metrics and snapshots are
        no part. "model" is what the variant's runs train, "regularizers" the names of those that they use; None where
        no run says it. `summarize` and `compare_pair` tell more.
    """
    notes: list[str] = []
    opened = {run: _open(run, folder, notes) for run in runs_in_order(study)}
    runs = [run for run in opened.values() if run is not None]
    metrics = _metrics(study, runs)
    by_variant: dict[str, list[tuple[StudyRun, Run | None]]] = {variant.name: [] for variant in study.variants}
    for run, found in opened.items():
        by_variant[run.variant.name].append((run, found))
    variants = []
    for variant in study.variants:
        mine = by_variant[variant.name]
        records = [_record(study, folder, run, found, metrics, notes) for run, found in mine]
        variants.append(
            {
                "name": variant.name,
                "options": shlex.join(options_to_words(study.command, variant.options)),
                "command": records[0]["command"],
                **_trained([found for _, found in mine]),
                **_costs(records, [found for _, found in mine]),
                "runs": records,
            }
        )
    for variant in variants:
        variant["summary"] = summarize(variant, metrics, notes)
    pairs = [compare_pair(variants[0], variant, metrics, notes) for variant in variants[1:]]
    notes += _differing_machines(runs)
    budget = finite_number(option_value(study.command, study.options, "kimg"))
    if budget is None:
        totals = {status(run)["total"] for run in runs} - {None}
        budget = totals.pop() if len(totals) == 1 else None
    return {
        "title": ", ".join(variant.name for variant in study.variants),
        "command": f"ggdr {study.command}",
        "budget_kimg": budget,
        "generated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": folder.versions,
        "machine": _part(runs, "hardware"),
        "metrics": metrics,
        "panels": _panels(runs),
        "variants": variants,
        "pairs": pairs,
        "notes": list(dict.fromkeys(notes)),
    }


def _open(run: StudyRun, folder: StudyFolder, notes: list[str]) -> Run | None:
    """The run's folder as far as it can be read; None if there is nothing yet."""
    path = folder.run_folder(run)
    if not (path / STATS_FILE).is_file():
        return None
    try:
        found = read_run(path, run.name)
    except (ValueError, OSError) as error:
        notes.append(f"{run.name}: {printable(error)}")
        return None
    notes += [f"{run.name}: {note}" for note in found.notes]
    return found


def _metrics(study: Study, runs: Sequence[Run]) -> list[dict[str, str]]:
    """The values of the study's metrics that some run has, in the study's order."""
    found = {}
    for panel in (panel for run in runs for panel in run.metrics):
        if panel.group in study.metrics:
            better = "higher" if parse_metric(panel.group).higher_is_better else "lower"
            found[panel.name.removeprefix(METRIC)] = (study.metrics.index(panel.group), better)
    ordered = sorted(found, key=lambda name: found[name][0])  # stable
    return [{"name": name, "better": found[name][1]} for name in ordered]


def _record(
    study: Study, folder: StudyFolder, run: StudyRun, found: Run | None, metrics: Sequence[dict], notes: list[str]
) -> dict[str, Any]:
    """One entry of "runs"."""
    words = study.words(run.variant, run.seed, folder.run_folder(run))
    record = {
        "seed": run.seed,
        "folder": run.name,
        "state": "failed" if folder.has_failed(run) else "missing",
        "kimg": 0.0,
        "hours": 0.0,
        "metrics": {},
        "curves": {},
        "command": shlex.join(["ggdr", *words]),
        "note": "",
    }
    if record["state"] == "failed":
        record["note"] = f"ended with exit code {folder.ended[run.name]}: {folder.last_line(run)}"
        notes.append(f"{run.name} {record['note']}")
    if found is None:
        return record
    now = status(found)
    if folder.is_finished(run):
        record["state"] = "finished"
    elif record["state"] != "failed":
        record["state"] = "running" if now["state"] == "running" else "stopped"
    record |= {"kimg": now["kimg"], "hours": now["spent"] / 3600}
    for name in (metric["name"] for metric in metrics):
        points = [(line["kimg"], line[METRIC + name]) for line in found.lines if METRIC + name in line]
        record["metrics"][name] = [[kimg, value] for kimg, value in points if is_finite(value)]
        lost = [f"{kimg:g}" for kimg, value in points if not is_finite(value)]
        if lost:
            notes.append(f"{run.name}: {name} is no number at {', '.join(lost)} kimg, and left out")
    for panel in found.panels:
        line = None if panel.detail else series(found.lines, panel.name, MAX_POINTS)
        if line is not None:
            points = zip(line["x"], line["y"], strict=True)
            record["curves"][panel.name] = [[kimg, value] for kimg, value in points if value is not None]
    return record


def _trained(found: Sequence[Run | None]) -> dict[str, Any]:
    """What a variant's runs train, as the first of them says that says it."""
    options = [run.options for run in found if run is not None]
    models = [mine["host"] for mine in options if isinstance(mine.get("host"), str)]
    used = [list(mine["regularizers"]) for mine in options if isinstance(mine.get("regularizers"), dict)]
    return {"model": next(iter(models), None), "regularizers": next(iter(used), None)}


def _costs(records: Sequence[dict[str, Any]], found: Sequence[Run | None]) -> dict[str, float | None]:
    """Means over a variant's runs; hours over those that are finished."""
    rates = [record["hours"] * 3600 / record["kimg"] for record in records if record["kimg"] and record["hours"]]
    hours = [record["hours"] for record in records if record["state"] == "finished"]
    gib = [peak for run in found if run is not None for peak in [_peak_gib(run)] if peak is not None]
    means = {"seconds_per_kimg": rates, "hours": hours, "gib": gib}
    return {name: statistics.fmean(values) if values else None for name, values in means.items()}


def _peak_gib(run: Run) -> float | None:
    """The most memory that a run reported: of the GPU if it trained on one, else of the process."""
    for key in ("memory/gpu_gib", "memory/cpu_gib"):
        values = [line[key] for line in run.lines if is_finite(line.get(key)) and line[key] > 0]
        if values:
            return max(values)
    return None


def _panels(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Curves that some run has numbers for."""
    panels = {}
    for run in runs:
        for panel in run.panels:
            if not panel.detail and any(is_finite(line.get(panel.name)) for line in run.lines):
                panels.setdefault(panel.name, panel)
    return [{"key": key, "title": x.label, "unit": x.unit, "group": x.group} for key, x in panels.items()]


def _part(runs: Sequence[Run], name: str) -> dict[str, Any]:
    """A part of the first run's settings that has it."""
    return next((run.options[name] for run in runs if isinstance(run.options.get(name), dict)), {})


def _differing_machines(runs: Sequence[Run]) -> list[str]:
    """Notes where runs were computed with other versions or on other machines: their costs do not compare then."""
    notes = []
    for name, what in (("versions", "versions of software"), ("hardware", "machines")):
        known = [run for run in runs if isinstance(run.options.get(name), dict)]
        others = [run.name for run in known if run.options[name] != known[0].options[name]]
        if others:
            notes.append(f"{what} differ: {', '.join(others)} from {known[0].name}")
    return notes
