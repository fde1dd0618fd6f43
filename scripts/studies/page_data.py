# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the page of a study shows, from results of which anything may be missing or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.scripts.reports.read_run import as_text
from ggdr.scripts.studies.bands import study_charts
from ggdr.scripts.studies.lenient import MAX_NAME, listed, mapping, mappings, number, text
from ggdr.scripts.studies.outcome import Outcome, decimals_of, outcome, progress

REACH = ("a_last", "b_kimg", "b_hours", "b_last", "a_kimg", "a_hours")
MAX_NAMES = 20  # of regularisers
STATES = ("finished", "running", "stopped", "missing", "failed")


def page_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """All that the page shows but pictures, in a shape that its scripts can rely on.

    Numbers are finite or None, texts are text, and what is no list or mapping where one belongs counts as an empty
    one. Variants and metrics without a name are left out, and so are pairs of variants that are not there.

    Args:
        data: as `results.py` makes it.

    Returns:
        title, generated, command, budget, machine, versions, notes: texts, a number, and lists of them.
        metrics:  [{"name", "better", "decimals"}].
        seeds:    the seeds of all runs, as text, in order.
        variants: [{"name", "options", "command", "model", "regularizers": names or None, "rate", "hours", "gib",
                  "hours_per_kimg", "runs", "summary": [{"mean", "sd", "values": one for each seed}] of each metric}].
        pairs:    [{"a": index, "b": index, "metrics": [{"seeds", "differences", "mean", "low", "high", "reach",
                  "outcome": {"verdict", "text"} or None} or None, of each metric]}].
        outcome:  {"verdict", "text"} of the first pair and metric that has one, or how far the runs are.
        charts:   as of `study_charts`.
    """
    variants = [_variant(entry) for entry in mappings(data.get("variants")) if _name(entry)]
    names = [variant["name"] for variant in variants]
    pairs = [
        {"a": names.index(pair["a"]), "b": names.index(pair["b"]), "metrics": _pair_metrics(pair.get("metrics"))}
        for pair in mappings(data.get("pairs"))
        if pair.get("a") in names and pair.get("b") in names
    ]
    metrics = _metrics(data, variants, pairs)
    found = dict.fromkeys(run["seed"] for variant in variants for run in variant["runs"])
    seeds = sorted(found, key=lambda seed: (not seed.isdecimal(), seed.zfill(20)))
    first = None
    for pair in pairs:
        a, b = names[pair["a"]], names[pair["b"]]
        pair["metrics"] = [pair["metrics"].get(metric["name"]) for metric in metrics]
        for metric, known in zip(metrics, pair["metrics"], strict=True):
            if known is not None:
                told = outcome(a, b, known, metric)
                known["outcome"], first = told and told._asdict(), first or told
    for variant in variants:
        variant["summary"] = [_summary(variant["summary"].get(metric["name"]), seeds) for metric in metrics]
    return {
        "title": text(data.get("title"), MAX_NAME) or "Comparison",
        "generated": text(data.get("generated"), MAX_NAME),
        "command": text(data.get("command"), MAX_NAME),
        "budget": number(data.get("budget_kimg")),
        "metrics": metrics,
        "seeds": seeds,
        "variants": variants,
        "pairs": pairs,
        "outcome": (first or Outcome("none", progress(variants)))._asdict(),
        "charts": study_charts(data, variants, metrics),
        "versions": _facts(data.get("versions")),
        "machine": _facts(data.get("machine")),
        "notes": [text(note) for note in listed(data.get("notes"))],
    }


def _name(entry: Mapping[str, Any]) -> str | None:
    """The name of a variant or metric; None if it has none."""
    name = entry.get("name")
    return name if isinstance(name, str) and name else None


def _metrics(data: Mapping[str, Any], variants: list[dict], pairs: list[dict]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in mappings(data.get("metrics")):
        name = _name(entry)
        if name is None or name in found:
            continue
        means = [variant["summary"].get(name, {}).get("mean") for variant in variants]
        differences = [pair["metrics"].get(name, {}).get("mean") for pair in pairs]
        better = "higher" if entry.get("better") == "higher" else "lower"
        found[name] = {"name": name, "better": better, "decimals": decimals_of(means, differences)}
    return list(found.values())


def _variant(entry: Mapping[str, Any]) -> dict[str, Any]:
    runs = [_run(run) for run in mappings(entry.get("runs"))]
    used = entry.get("regularizers")
    rate, hours = number(entry.get("seconds_per_kimg")), number(entry.get("hours"))
    measured = [(run["hours"], run["kimg"]) for run in runs if run["hours"] and run["kimg"]]
    total_hours, total_kimg = map(sum, zip(*measured, strict=True)) if measured else (0, 0)
    return {
        "name": _name(entry),
        "options": text(entry.get("options")),
        "command": text(entry.get("command")),
        "model": text(entry.get("model"), MAX_NAME),
        "regularizers": [text(name, MAX_NAME) for name in used[:MAX_NAMES]] if isinstance(used, list) else None,
        "rate": rate,
        "hours": hours,
        "gib": number(entry.get("gib")),
        "hours_per_kimg": rate / 3600 if rate else total_hours / total_kimg if total_kimg else None,
        "summary": {
            str(name): {
                "mean": number(value.get("mean")),
                "sd": number(value.get("sd")),
                "values": {str(seed): number(x) for seed, x in mapping(value.get("values")).items()},
            }
            for name, value in mapping(entry.get("summary")).items()
            if isinstance(value, Mapping)
        },
        "runs": runs,
    }


def _summary(found: Mapping[str, Any] | None, seeds: list[str]) -> dict[str, Any]:
    """A variant's mean, spread and value of each seed, of one metric."""
    found = found or {"mean": None, "sd": None, "values": {}}
    return {**found, "values": [found["values"].get(seed) for seed in seeds]}


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    state = run.get("state")
    return {
        "seed": text(run.get("seed"), MAX_NAME),
        "folder": run["folder"] if isinstance(run.get("folder"), str) else "",
        "state": state if state in STATES else "missing",
        "kimg": number(run.get("kimg")),
        "hours": number(run.get("hours")),
        "command": text(run.get("command")),
        "note": text(run.get("note")),
    }


def _pair_metrics(found: Any) -> dict[str, dict[str, Any]]:
    """The paired differences of each metric, those of seeds without a number left out."""
    pairs = {}
    for name, entry in mapping(found).items():
        if not isinstance(entry, Mapping):
            continue
        both = zip(listed(entry.get("seeds")), listed(entry.get("differences")), strict=False)
        known = [(text(seed, MAX_NAME), number(value)) for seed, value in both]
        known = [(seed, value) for seed, value in known if value is not None]
        pairs[str(name)] = {
            "seeds": [seed for seed, _ in known],
            "differences": [value for _, value in known],
            **{key: number(entry.get(key)) for key in ("mean", "low", "high")},
            "reach": {key: number(mapping(entry.get("reach")).get(key)) for key in REACH},
        }
    return pairs


def _facts(facts: Any) -> list[list[str]]:
    """Names and values of a mapping, what is nested in it in a line."""
    return [[text(name, MAX_NAME).replace("_", " "), text(as_text(value))] for name, value in mapping(facts).items()]
