# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps about the training step of presets: its time against the roofline, and its memory against the count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from ggdr.scripts.accepting.commands import checked, ggdr_command, last_json, output_of_ggdr, start
from ggdr.scripts.accepting.roofline import this_gpu
from ggdr.scripts.accepting.small_runs import TINY
from ggdr.scripts.accepting.step import Finding, Place
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.data.workers import cpu_count
from ggdr.torch_utils.timing.gpus import GPUS

COUNTS_FILE = "counts.json"
AUGMENTATIONS = ("ada", "noaug")
VARIANTS = ("plain", "ggdr", "ada", "ggdr_ada")  # in the order of `ggdr bench train --table`
CPU_RESOLUTION = 16
CPU_BATCH = 32  # a whole group of minibatch-std in every preset
# Of the memory that is measured, beside what is counted: cuDNN's workspaces come on top.
LEAST_OF_COUNT, MOST_OF_COUNT, MORE_GIB = 0.9, 1.5, 1.0
KEPT = ("sec_per_kimg", "sec_per_kimg_by_piece", "sec_per_kimg_fastest", "fraction_of_peak", "conv_peak_gflop_per_sec")
SETTINGS = ("cfg", "resolution", "batch", "channel_base", "channel_max", "precision", "ggdr_res", "aug", "augpipe", "p")
COUNTED = ("sec_per_kimg", "sec_per_kimg_roofline", "sec_per_kimg_launches", "ggdr_share", "peak_memory_gib")


def count_presets(place: Place, *, presets: Sequence[Sequence[Any]]) -> Finding:
    """`ggdr bench train --trace` of presets with and without augmentation, as many at once as there are processors.

    The steps that measure find the counts in the shared folder.
    """
    card, is_known = this_gpu()
    waiting = [(cfg, resolution, aug) for cfg, resolution in presets for aug in AUGMENTATIONS]
    found: dict[str, dict[str, Any]] = {}
    while waiting:
        programs = {}
        for cfg, resolution, aug in waiting[: cpu_count()]:
            words = ["bench", "train", *_settings(place, cfg, resolution), "--trace", card, "--aug", aug, "--json"]
            programs[cfg, resolution, aug] = start(ggdr_command(*words))
        for (cfg, resolution, aug), program in programs.items():
            trace = last_json(checked("ggdr bench train --trace", *program.finish()))
            found.setdefault(_preset(cfg, resolution), {})[aug] = {key: trace[key] for key in COUNTED}
        del waiting[: len(programs)]
    counts = {"gpu": GPUS[card].name, "is_this_card": is_known, "presets": found}
    with atomic_write(place.shared / COUNTS_FILE) as file:
        file.write(json.dumps(counts).encode())
    first, both = next(iter(found.items()))
    figure = f"{both['ada']['sec_per_kimg']:.3g} s/kimg for {first} on {GPUS[card].name}"
    return Finding(figure + ("" if is_known else f", a stand-in for {torch.cuda.get_device_name(0)}"), counts)


def time_preset(place: Place, *, cfg: str, resolution: int) -> Finding:
    """Seconds for 1000 images with and without GGDR and ADA, and what is counted for the card."""
    iterations = [] if place.on_gpu else ["--iterations", 4]
    words = [*_settings(place, cfg, resolution), "--table", "--json", *iterations]
    table = last_json(output_of_ggdr("bench", "train", *words, "--device", place.device))
    found: dict[str, dict[str, Any]] = {
        name: {key: result[key] for key in (*KEPT, *SETTINGS)}
        for name, result in zip(VARIANTS, table["variants"], strict=True)
    }
    measured = found["ggdr_ada"]["sec_per_kimg"]
    figure = f"{measured:.3g} s/kimg with GGDR and ADA; GGDR costs {table['ggdr_cost']['ada'] - 1:+.1%}"
    if not place.on_gpu:
        figure += f", with a network for {CPU_RESOLUTION}x{CPU_RESOLUTION} that is too small to say more"
    details: dict[str, Any] = {"variants": found, "ops": table["variants"][0]["ops"]}
    counts = _counts(place)
    if counts is not None:
        for aug, (without, with_ggdr) in zip(AUGMENTATIONS, (VARIANTS[2:], VARIANTS[:2]), strict=True):
            counted = counts["presets"][_preset(cfg, resolution)][aug]
            found[with_ggdr]["counted"] = counted["sec_per_kimg"]
            found[with_ggdr]["roofline"] = counted["sec_per_kimg_roofline"]
            found[without]["counted"] = counted["sec_per_kimg"] * (1 - counted["ggdr_share"])
        details |= {"compared_with": counts["gpu"], "is_this_card": counts["is_this_card"]}
        times = measured / found["ggdr_ada"]["counted"]
        figure += f"; {times:.2f} times what is counted for {counts['gpu']}"
        figure += "" if counts["is_this_card"] else ", a stand-in"
    return Finding(figure, details)


def measure_memory(place: Place, *, presets: Sequence[Sequence[Any]]) -> Finding:
    """The most that tensors took on the GPU in a few iterations of presets, against the count."""
    counts, found, faults, texts = _counts(place), {}, [], []
    for cfg, resolution in presets:
        words = [*_settings(place, cfg, resolution), "--iterations", 4, "--json", "--device", place.device]
        gib = last_json(output_of_ggdr("bench", "train", *words))["peak_memory_mib"] / 1024
        name = _preset(cfg, resolution)
        found[name] = {"measured_gib": gib}
        texts.append(f"{name}: {gib:.1f} GiB")
        if counts is not None:
            counted = counts["presets"][name]["ada"]["peak_memory_gib"]
            found[name]["counted_gib"] = counted
            texts[-1] += f", counted {counted:.1f}"
            if not LEAST_OF_COUNT * counted <= gib <= MOST_OF_COUNT * counted + MORE_GIB:
                faults.append(f"{name} takes {gib:.2f} GiB, counted are {counted:.2f}")
    return Finding("; ".join(texts), {"presets": found}, faults)


def _counts(place: Place) -> dict[str, Any] | None:
    """What `count_presets` left for the other steps; None where it did not come to its end."""
    path = place.shared / COUNTS_FILE
    return json.loads(path.read_bytes()) if path.exists() else None


def _preset(cfg: str, resolution: int) -> str:
    return f"{cfg} {resolution}"


def _settings(place: Place, cfg: str, resolution: int) -> list[object]:
    """Words of `ggdr bench train`; on a CPU of a network that takes no time."""
    if place.on_gpu:
        return ["--cfg", cfg, "--resolution", resolution]
    return ["--cfg", cfg, "--resolution", CPU_RESOLUTION, "--batch", CPU_BATCH, *TINY]
