# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a model card says of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.scripts.reports.card_facts import Facts, is_plain
from ggdr.scripts.reports.card_markdown import code, md
from ggdr.scripts.reports.read_run import as_text, finite_number


def metric_values(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result, by their names."""
    return {name: value for name, value in record["results"].items() if finite_number(value) is not None}


def evaluation(facts: Facts) -> str:
    """A table of results, and what to mind."""
    if not facts.metrics:
        return "Not evaluated: no metric was computed of this snapshot."
    lines = ["| metric | value | computed on |", "| --- | --- | --- |"]
    for record in facts.metrics:
        metric = record["metric"]
        values = {name.removeprefix(metric).strip("_"): value for name, value in metric_values(record).items()}
        shown = "; ".join(f"{name} {value:.5g}".strip() for name, value in values.items())
        lines.append(f"| {code(metric)} | {md(shown)} | {_how(record)} |")
    warnings = dict.fromkeys(text for record in facts.metrics for text in record["warnings"])
    notes = "\n".join(f"- {md(text)}" for text in warnings)
    return "\n".join(lines) + (f"\n\nWhat to mind when comparing:\n\n{notes}" if notes else "")


def _how(record: Mapping[str, Any]) -> str:
    """The choices that a result depends on, as its line records them."""
    choices = record["choices"]
    fakes, reals = choices["fakes"], choices["reals"]
    parts = []
    if "num_fakes" in choices:
        parts.append(f"{as_text(choices['num_fakes'])} fakes")
    if fakes.get("psi") is not None:
        parts.append("not truncated" if fakes["psi"] == 1 else f"truncated, psi {as_text(fakes['psi'])}")
    if fakes.get("noise_mode"):
        parts.append(f"{fakes['noise_mode']} noise")
    if fakes.get("labels"):
        parts.append(f"labels {fakes['labels']}")
    if reals:
        num = f"{as_text(choices['num_reals'])} " if "num_reals" in choices else ""
        flips = {"True": " with flips", "False": " without flips"}.get(str(reals.get("flips")), "")
        hashed = f" ({reals['sha256']})" if reals.get("sha256") else ""
        parts.append(f"{num}reals of {reals.get('path', 'stored statistics')}{hashed}{flips}")
    known = {"mode": "mode {}", "resize": "{}", "quantisation": "{}", "seed": "seed {}"}
    parts += [form.format(as_text(choices[key])) for key, form in known.items() if choices.get(key) is not None]
    if choices.get("cov_ddof") is not None:
        parts.append(f"covariance / {'N' if choices['cov_ddof'] == 0 else 'N - 1'}")
    if choices.get("detector"):
        parts.append(f"{choices['detector']} {choices.get('detector_hash', '')}".strip())
    shown = {"mode", "num_fakes", "num_reals", "seed", "quantisation", "fakes", "reals", "versions", "cov_ddof"}
    shown |= {"detector", "detector_hash", "resize"}
    parts += [
        f"{key.replace('_', ' ')} {as_text(value)}"
        for key, value in choices.items()
        if key not in shown and is_plain(value)
    ]
    return md("; ".join(parts))
