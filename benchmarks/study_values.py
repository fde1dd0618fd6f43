# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics of the snapshots of a study, as a small file that can be kept, and the tables of docs/study.md from it."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ggdr.metrics.names import parse_metric
from ggdr.scripts.studies.statistics import count_wins, paired_difference

KEYS = ("variant", "seed", "kimg")  # of a row; all else in it are metrics

Row = dict[str, Any]


def rows_of_study(study: Path) -> list[Row]:
    """One for each snapshot of each run, by variant, seed and kimg."""
    rows: dict[tuple[str, int, float], Row] = {}
    for path in sorted(study.glob("*/seed*/metric-*.jsonl")):
        variant, seed = path.parent.parent.name, int(path.parent.name.removeprefix("seed"))
        for text in path.read_text().splitlines():
            line = json.loads(text)
            row = rows.setdefault(
                (variant, seed, line["kimg"]), dict(zip(KEYS, (variant, seed, line["kimg"]), strict=True))
            )
            row.update({name: round(value, 5) for name, value in line["results"].items() if "_std" not in name})
    return [rows[key] for key in sorted(rows)]


def read_rows(path: Path) -> list[Row]:
    """As `rows_of_study` gives them, from a study's folder or from a file of them."""
    return rows_of_study(path) if path.is_dir() else [json.loads(line) for line in path.read_text().splitlines()]


def values_by_seed(rows: Sequence[Row], metric: str, variant: str, *, last: bool) -> dict[int, float]:
    """Of the last snapshot, or the mean over all."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if row["variant"] == variant:
            by_seed.setdefault(row["seed"], []).append(row[metric])
    return {seed: values[-1] if last else statistics.fmean(values) for seed, values in by_seed.items()}


def is_higher_better(metric: str) -> bool:
    """Of the name of a value, also of one direction of a translator, as "cycle_mae_AtoB"."""
    return parse_metric(re.sub(r"(_mean|_reals)?(_[A-Z0-9]+to[A-Z0-9]+)?$", "", metric)).higher_is_better


def table(rows: Sequence[Row], a: str, b: str, *, last: bool) -> str:
    """Markdown: each metric's means, and the difference b - a, paired by seed."""
    lines = [f"| metric | {a} | {b} | difference | 95 % interval | better in seeds |", "| --- " * 6 + "|"]
    for metric in sorted(rows[0].keys() - set(KEYS)):
        of_a, of_b = (values_by_seed(rows, metric, name, last=last) for name in (a, b))
        seeds = sorted(of_a.keys() & of_b.keys())
        found = paired_difference([of_a[seed] for seed in seeds], [of_b[seed] for seed in seeds])
        means = [statistics.fmean(values[seed] for seed in seeds) for values in (of_a, of_b)]
        interval = "" if found.low is None else f"{found.low:+.3g} to {found.high:+.3g}"
        wins = f"{count_wins(found.differences, is_higher_better(metric))} of {len(seeds)}"
        cells = [f"`{metric}`", *(f"{mean:.4g}" for mean in means), f"{found.mean:+.3g}", interval, wins]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def wins_by_snapshot(rows: Sequence[Row], metric: str, a: str, b: str) -> tuple[int, int]:
    """In how many pairs of snapshots b is better, and of how many."""
    found = {tuple(row[key] for key in KEYS): row[metric] for row in rows}
    pairs = [(value, found.get((b, *at))) for (variant, *at), value in found.items() if variant == a]
    whole = [(x, y) for x, y in pairs if y is not None]
    return sum(y > x if is_higher_better(metric) else y < x for x, y in whole), len(whole)


def _chosen(text: str, known: set[str]) -> list[str]:
    """Two variants that there are values of; click.UsageError for others."""
    names = text.split(",")
    if len(names) != 2 or not known.issuperset(names):
        raise click.UsageError(f"--variants: expected two of {', '.join(sorted(known)) or 'none'}, got {text}")
    return names


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--variants", metavar="A,B", default="none,ggdr", show_default=True, help="Baseline and the other one.")
@click.option("--out", metavar="FILE.jsonl", type=click.Path(path_type=Path), help="Where to keep a study's values.")
def main(source: Path, variants: str, out: Path | None) -> None:
    """Prints tables of SOURCE, a folder of `ggdr compare` or a file that this script kept of one.

    \b
    Example:
      python -m benchmarks.study_values studies/ggdr --out benchmarks/studies/cifar10.jsonl
    """
    rows = read_rows(source)
    if out is not None:
        out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, b = _chosen(variants, {row["variant"] for row in rows})
    click.echo(f"At the last snapshot:\n\n{table(rows, a, b, last=True)}\n")
    click.echo(f"Mean over all snapshots:\n\n{table(rows, a, b, last=False)}\n")
    for metric in sorted(rows[0].keys() - set(KEYS)):
        wins, num = wins_by_snapshot(rows, metric, a, b)
        click.echo(f"{metric}: {b} is better in {wins} of {num} pairs of snapshots")


if __name__ == "__main__":
    main()
