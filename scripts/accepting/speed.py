# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps about the training step of presets: its time against the roofline, and its memory against the count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ggdr.scripts.accepting.commands import Program, checked, ggdr_command, last_json, output_of_ggdr, start
from ggdr.scripts.accepting.roofline import this_gpu
from ggdr.scripts.accepting.small_runs import TINY
from ggdr.scripts.accepting.step import Finding, Place
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.timing.gpus import GPUS

VARIANTS = ("plain", "ggdr", "ada", "ggdr_ada")  # in the order of `ggdr bench train --table`
CPU_RESOLUTION = 16
CPU_BATCH = 32  # a whole group of minibatch-std in every preset
# Of the memory that is measured, beside what is counted: cuDNN's workspaces come on top.
LEAST_OF_COUNT, MOST_OF_COUNT, MORE_GIB = 0.9, 1.5, 1.0
KEPT = ("sec_per_kimg", "sec_per_kimg_by_piece", "sec_per_kimg_fastest", "fraction_of_peak", "conv_peak_gflop_per_sec")
SETTINGS = ("cfg", "resolution", "batch", "channel_base", "channel_max", "precision", "ggdr_res", "aug", "augpipe", "p")
COUNTED = ("sec_per_kimg", "sec_per_kimg_roofline", "sec_per_kimg_launches", "ggdr_share", "peak_memory_gib")


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
    if place.on_gpu:
        card, is_known = this_gpu()
        for aug, (without, with_ggdr) in (("noaug", VARIANTS[:2]), ("ada", VARIANTS[2:])):
            counted = count(place, card, cfg, resolution)[aug]
            found[with_ggdr]["counted"] = counted["sec_per_kimg"]
            found[with_ggdr]["roofline"] = counted["sec_per_kimg_roofline"]
            found[without]["counted"] = counted["sec_per_kimg"] * (1 - counted["ggdr_share"])
        details |= {"compared_with": GPUS[card].name, "is_this_card": is_known}
        times = measured / found["ggdr_ada"]["counted"]
        figure += f"; {times:.2f} times what is counted for {GPUS[card].name}" + ("" if is_known else ", a stand-in")
    return Finding(figure, details)


def measure_memory(place: Place, *, presets: Sequence[Sequence[Any]]) -> Finding:
    """The most that tensors took on the GPU in a few iterations of presets, against the count."""
    card, _ = this_gpu()
    found, faults, texts = {}, [], []
    for cfg, resolution in presets:
        words = [*_settings(place, cfg, resolution), "--iterations", 4, "--json", "--device", place.device]
        gib = last_json(output_of_ggdr("bench", "train", *words))["peak_memory_mib"] / 1024
        counted = count(place, card, cfg, resolution)["ada"]["peak_memory_gib"]
        name = f"{cfg} {resolution}"
        found[name] = {"measured_gib": gib, "counted_gib": counted}
        texts.append(f"{name}: {gib:.1f} GiB, counted {counted:.1f}")
        if not LEAST_OF_COUNT * counted <= gib <= MOST_OF_COUNT * counted + MORE_GIB:
            faults.append(f"{name} takes {gib:.2f} GiB, counted are {counted:.2f}")
    return Finding("; ".join(texts), {"presets": found}, faults)


def count(place: Place, card: str, cfg: str, resolution: int) -> dict[str, dict[str, Any]]:
    """`ggdr bench train --trace` with and without augmentation, as "ada" and "noaug"; once for all steps."""
    path = place.shared / f"trace-{card}-{cfg}-{resolution}.json"
    if not path.exists():
        programs: dict[str, Program] = {}
        for aug in ("ada", "noaug"):
            words = ["bench", "train", *_settings(place, cfg, resolution), "--trace", card, "--aug", aug, "--json"]
            programs[aug] = start(ggdr_command(*words))
        traces = {aug: last_json(checked("ggdr bench --trace", *x.finish())) for aug, x in programs.items()}
        kept = {aug: {key: trace[key] for key in COUNTED} for aug, trace in traces.items()}
        with atomic_write(path) as file:
            file.write(json.dumps(kept).encode())
    return json.loads(path.read_bytes())


def _settings(place: Place, cfg: str, resolution: int) -> list[object]:
    """Words of `ggdr bench train`; on a CPU of a network that takes no time."""
    if place.on_gpu:
        return ["--cfg", cfg, "--resolution", resolution]
    return ["--cfg", cfg, "--resolution", CPU_RESOLUTION, "--batch", CPU_BATCH, *TINY]
