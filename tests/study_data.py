# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr compare` knows of a study, made up, and folders with pictures for it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ggdr.torch_utils.pictures.images import save_image
from tests.report_runs import add_clusters, grid

FD, KD = "fd_lite5k_full", "kd_lite5k_full_mean"
MIND = "mind_lite5k_full"
SEEDS = (0, 1, 2)
# Of each variant and metric: value at the end, by seed.
LAST = {
    "none": {FD: (66.9, 68.4, 68.7), KD: (0.0512, 0.0529, 0.0548), MIND: (4.11, 3.87, 4.02)},
    "ggdr": {FD: (50.1, 52.9, 53.3), KD: (0.0371, 0.0402, 0.0388), MIND: (3.52, 4.06, 3.71)},
}
PANELS = [
    {"key": "loss/D", "title": "D", "unit": "loss", "group": "Losses"},
    {"key": "loss/G", "title": "G", "unit": "loss", "group": "Losses"},
    {"key": "ggdr/distance", "title": "GGDR", "unit": "1 - cosine similarity", "group": "GGDR cosine distance"},
    {"key": "ada/p", "title": "p", "unit": "augmentation p", "group": "ADA probability"},
]
T95 = 4.303  # Student's t of two degrees of freedom


def study(
    last: Mapping[str, Mapping[str, Sequence[float]]] = LAST,
    *,
    seeds: Sequence[int | str] = SEEDS,
    kimg: float = 60.0,
    **changes: Any,
) -> dict[str, Any]:
    """A finished study of two variants; the first one is the baseline."""
    base = {"none": ("--no-ggdr", 48.1, 0.71), "ggdr": ("--ggdr", 50.3, 0.84)}
    variants = []
    for name, values in last.items():
        options, rate, gib = base.get(name, ("--ggdr-weight 30", 50.9, 0.84))
        command = f"ggdr train --data cifar10.zip --cfg cpu --kimg {kimg:g} --mirror {options} --outdir study/{name}"
        runs = [
            {
                "seed": seed,
                "folder": f"{name}/seed{seed}",
                "state": "finished",
                "kimg": kimg,
                "hours": kimg * (rate + i / 5) / 3600,
                "metrics": {metric: _falling(ends[i], kimg, seed) for metric, ends in values.items()},
                "curves": _curves(name, seed, kimg),
                "command": f"{command}/seed{seed} --seed {seed} --resume latest",
                "note": "",
            }
            for i, seed in enumerate(seeds)
        ]
        summary = {
            metric: {**_mean_sd(ends), "values": {str(seed): end for seed, end in zip(seeds, ends, strict=True)}}
            for metric, ends in values.items()
        }
        variants.append(
            {
                "name": name,
                "options": options,
                "command": f"{command}/seed0 --seed 0",
                "seconds_per_kimg": rate,
                "hours": kimg * rate / 3600,
                "gib": gib,
                "summary": summary,
                "runs": runs,
            }
        )
    names = list(last)
    metrics = dict.fromkeys(metric for values in last.values() for metric in values)
    return {
        "title": "GGDR on CIFAR-10, 60 kimg",
        "command": "ggdr train",
        "budget_kimg": kimg,
        "generated": "2026-11-29T08:41:05+00:00",
        "versions": {"ggdr": "0.1.0", "commit": "dae9869", "python": "3.11.2", "torch": "2.9.0", "numpy": "2.3.1"},
        "machine": {"processor": "Xeon", "cores": 2, "memory": "24 GiB", "gpus": []},
        "metrics": [{"name": metric, "better": "lower"} for metric in metrics],
        "panels": PANELS,
        "variants": variants,
        "pairs": [_pair(names[0], name, last, seeds, kimg) for name in names[1:]],
        "notes": ["one run at a time, with 2 threads"],
        **changes,
    }


def study_folder(path: Path, data: Mapping[str, Any], *, clusters: bool = True) -> Path:
    """A folder with a sample grid of each run, another one for each, the reals, and cluster sheets."""
    for v, variant in enumerate(data["variants"]):
        for r, run in enumerate(variant["runs"]):
            folder = path / run["folder"]
            folder.mkdir(parents=True)
            save_image(grid(1), folder / "fakes000000.png")
            save_image(grid(10 * v + r + 2), folder / "fakes000060.png")
            save_image(grid(99), folder / "reals.png")
            (folder / "training_options.json").write_text(
                '{"command": {}, "pictures": [{"name": "fakes", "title": "Samples", "once": false}, '
                '{"name": "reals", "title": "Real images", "once": true}]}'
            )
            if clusters:
                add_clusters(folder)
    return path


def _falling(end: float, kimg: float, seed: int | str) -> list[list[float]]:
    """A metric that falls to `end`, measured every 12 kimg."""
    draws = random.Random(seed)
    steps = [kimg * i / 5 for i in range(6)]
    noise = [draws.uniform(0.9, 1.15) for _ in steps]
    falling = [[step, end * (1 + 5 * math.exp(-step / 9)) * x] for step, x in zip(steps, noise, strict=True)]
    return [*falling[:-1], [kimg, end]]


def _curves(name: str, seed: int | str, kimg: float) -> dict[str, list[list[float]]]:
    """Losses at each of 30 ticks; with GGDR also its distance."""
    draws = random.Random(f"{name}{seed}")
    steps = [kimg * (i + 1) / 30 for i in range(30)]
    found = {
        "loss/D": [[x, 1.3 - 0.3 * (1 - math.exp(-x / 15)) + draws.gauss(0, 0.03)] for x in steps],
        "loss/G": [[x, 0.8 + 0.5 * (1 - math.exp(-x / 20)) + draws.gauss(0, 0.06)] for x in steps],
        "ada/p": [[x, max(0, (x - 20) / 400 + draws.gauss(0, 0.003))] for x in steps],
    }
    if name != "none":
        found["ggdr/distance"] = [[x, 0.2 + 0.6 * math.exp(-x / 12) + draws.gauss(0, 0.01)] for x in steps]
    return found


def _mean_sd(values: Sequence[float]) -> dict[str, float | None]:
    mean = sum(values) / len(values)
    sd = math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1)) if len(values) > 1 else None
    return {"mean": mean, "sd": sd}


def _pair(a: str, b: str, last: Mapping, seeds: Sequence[int | str], kimg: float) -> dict[str, Any]:
    metrics = {}
    for metric, ends in last[a].items():
        differences = [y - x for x, y in zip(ends, last[b][metric], strict=True)]
        found = _mean_sd(differences)
        half = None if found["sd"] is None else T95 * found["sd"] / math.sqrt(len(differences))
        means = [_mean_sd(last[name][metric])["mean"] for name in (a, b)]
        is_better = means[1] < means[0]
        metrics[metric] = {
            "seeds": list(seeds),
            "differences": differences,
            "mean": found["mean"],
            "low": None if half is None else found["mean"] - half,
            "high": None if half is None else found["mean"] + half,
            "wins": sum(difference < 0 for difference in differences),
            "reach": {
                "a_last": means[0],
                "b_kimg": 0.6 * kimg if is_better else None,
                "b_hours": 0.6 * kimg * 50.3 / 3600 if is_better else None,
                "b_last": means[1],
                "a_kimg": None if is_better else 0.8 * kimg,
                "a_hours": None if is_better else 0.8 * kimg * 48.1 / 3600,
            },
        }
    return {"a": a, "b": b, "metrics": metrics}
