# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The results of a study as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggdr.torch_utils.untrusted.text import printable, visible

MAX_COMMAND = 4000  # characters

Row = Sequence[str]


def markdown(data: Mapping[str, Any]) -> str:
    """What `read_results` returns, as a page of tables.

    What a second start of the same study would change, times and notes, comes after the metrics and their differences.
    """
    variants, metrics = data["variants"], data["metrics"]
    runs = [run for variant in variants for run in variant["runs"]]
    finished = sum(run["state"] == "finished" for run in runs)
    budget = "" if data["budget_kimg"] is None else f", {data['budget_kimg']:g} kimg each"
    blocks = [
        f"# {_text(data['title'])}",
        f"`{data['command']}`: {finished} of {len(runs)} runs finished{budget}.",
        "## Metrics\n\nMean and sample standard deviation over seeds, of finished runs at the last snapshot of all.",
        *(_metric_table(metric, variants) for metric in metrics),
    ]
    if not metrics:
        blocks.append("No run has a metric yet.")
    if data["pairs"]:
        blocks += [_pairs_title(data["pairs"]), _pair_table(data["pairs"], metrics)]
        blocks += ["## To get as far", _reach_table(data["pairs"], metrics)]
    blocks += ["## Cost", _cost_table(variants), "## Runs", _run_table(variants)]
    blocks += ["## Commands", "```\n" + "\n".join(printable(run["command"], MAX_COMMAND) for run in runs) + "\n```"]
    if data["notes"]:
        blocks += ["## Notes", "\n".join(f"* {_text(note)}" for note in data["notes"])]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    blocks.append(f"Written {data['generated']}, with {_text(versions)}.")
    return "\n\n".join(blocks) + "\n"


def _metric_table(metric: Mapping[str, str], variants: Sequence[Mapping[str, Any]]) -> str:
    """Mean, spread and every seed of one metric."""
    name = metric["name"]
    seeds = sorted({run["seed"] for variant in variants for run in variant["runs"]})
    head = ["variant", "mean", "sd", *(f"seed {seed}" for seed in seeds)]
    rows = []
    for variant in variants:
        summary = variant["summary"].get(name, {"mean": None, "sd": None, "values": {}})
        values = [summary["values"].get(str(seed)) for seed in seeds]
        rows.append([_text(variant["name"]), *map(_number, (summary["mean"], summary["sd"], *values))])
    return f"**{name}** ({metric['better']} is better)\n\n{_table(head, rows)}"


def _pairs_title(pairs: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"## Differences from {_text(pairs[0]['a'])}\n\nPaired by seed, with the 95 % interval of Student's t. "
        "An interval without 0 is a difference that these seeds tell from chance."
    )


def _pair_table(pairs: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, str]]) -> str:
    """One row a variant and metric."""
    rows = []
    for pair, metric, found in _each(pairs, metrics):
        interval = "" if found["low"] is None else f"{_number(found['low'])} to {_number(found['high'])}"
        wins = f"{found['wins']} of {len(found['seeds'])}"
        each = ", ".join(map(_number, found["differences"]))
        rows.append([_text(pair["b"]), metric["name"], _number(found["mean"]), interval, wins, each])
    return _table(["variant", "metric", "difference", "95 % interval", "better in seeds", "each seed"], rows)


def _reach_table(pairs: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, str]]) -> str:
    """Images and hours that each variant's mean needs to be as good as the other's last one."""
    rows = []
    for pair, metric, found in _each(pairs, metrics):
        reach = found["reach"]
        for one, other, name, to in (("a", "b", pair["a"], pair["b"]), ("b", "a", pair["b"], pair["a"])):
            kimg, hours = reach[f"{one}_kimg"], reach[f"{one}_hours"]
            target = f"{metric['name']} {_number(reach[f'{other}_last'])} of {_text(to)}"
            rows.append([_text(name), target, "not reached" if kimg is None else f"{kimg:.5g}", _number(hours, 3)])
    return _table(["variant", "to reach", "kimg", "hours"], rows)


def _cost_table(variants: Sequence[Mapping[str, Any]]) -> str:
    """Of training only, without snapshots and metrics."""
    rows = [
        [_text(x["name"]), _number(x["seconds_per_kimg"], 4), _number(x["hours"], 3), _number(x["gib"], 3)]
        for x in variants
    ]
    return _table(["variant", "sec/kimg", "hours a run", "GiB"], rows)


def _run_table(variants: Sequence[Mapping[str, Any]]) -> str:
    """How far each run is."""
    rows = [
        [f"{_text(run['folder'])}", run["state"], f"{run['kimg']:g}", _number(run["hours"], 3), _text(run["note"])]
        for variant in variants
        for run in variant["runs"]
    ]
    return _table(["run", "state", "kimg", "hours", "note"], rows)


def _each(pairs: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, str]]):
    """Every pair with every metric that it has."""
    for pair in pairs:
        for metric in metrics:
            if metric["name"] in pair["metrics"]:
                yield pair, metric, pair["metrics"][metric["name"]]


def _table(head: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return "None yet."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, digits: int = 5) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _text(text: object) -> str:
    """Text that is no Markdown; names and notes come from files."""
    shown = visible(" ".join(str(text).split())).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\|`*_[]#":
        shown = shown.replace(character, f"\\{character}")
    return shown
