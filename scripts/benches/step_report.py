# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr bench train` says: the pieces of a step, or a table of variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def network_settings(r: Mapping[str, Any]) -> str:
    """Preset, sizes and precision."""
    return (
        f"{r['cfg']}, {r['resolution']}x{r['resolution']}, batch {r['batch']}, channels "
        f"{r['channel_base']}/{r['channel_max']}, {r['precision']}"
    )


def guide_and_augmentation(r: Mapping[str, Any]) -> str:
    """What D is taught, and what its images go through."""
    return f"{r['regularizers']}, augmentation {_augmentation(r)}"


def _settings_line(r: Mapping[str, Any]) -> str:
    """What was timed, and where."""
    where = r["gpu"] if "gpu" in r else f"{r['threads']} thread(s) of {r['processor']}"
    return f"{network_settings(r)}, {r['ops']} operations, {where}, torch {r['torch']}"


def _augmentation(r: Mapping[str, Any]) -> str:
    """Its mode, pipe and probability."""
    return "none" if r["aug"] == "noaug" else f"{r['aug']} {r['augpipe']}, p = {r['p']:g}"


def report_pieces(r: Mapping[str, Any]) -> str:
    """Pieces of the step and their sum."""
    memory = "" if r["peak_memory_mib"] is None else f", {r['peak_memory_mib']:.0f} MiB"
    pieces = [(name, s, r["gflop_by_phase"].get(name)) for name, s in r["sec_per_kimg_by_piece"].items()]
    pieces.append(("total", r["sec_per_kimg"], r["gflop_per_iteration"]))
    lines = [_settings_line(r), guide_and_augmentation(r), ""]
    lines.append(f"{'':<14}{'sec/kimg':>10}{'GFLOP':>10}")
    lines += [f"{name:<14}{s:>10.2f}" + ("" if gflop is None else f"{gflop:>10.1f}") for name, s, gflop in pieces]
    lines += [
        "",
        f"{r['img_per_sec']:.1f} images/s (from the fastest of each piece: {1000 / r['sec_per_kimg_fastest']:.1f})"
        f"{memory}",
        f"{r['fraction_of_peak']:.0%} of the convolution peak of {r['conv_peak_gflop_per_sec']:.0f} GFLOP/s",
    ]
    return "\n".join(lines)


def report_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Rows by augmentation, columns without and with regularisers."""
    lines = [_settings_line(results[0]), f"seconds per 1000 images, without and with {results[1]['regularizers']}", ""]
    lines.append(f"{'augmentation':<20}{'without':>10}{'with':>10}{'ratio':>8}{'of peak':>10}")
    for plain, regularized in zip(results[::2], results[1::2], strict=True):
        times = plain["sec_per_kimg"], regularized["sec_per_kimg"]
        lines.append(
            f"{_augmentation(regularized):<20}{times[0]:>10.2f}{times[1]:>10.2f}{times[1] / times[0]:>8.3f}"
            f"{regularized['fraction_of_peak']:>10.0%}"
        )
    return "\n".join(lines)


def table_json(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The four results, and what regularisers cost: the time with them over that without, by augmentation."""
    cost = {
        regularized["aug"]: regularized["sec_per_kimg"] / plain["sec_per_kimg"]
        for plain, regularized in zip(results[::2], results[1::2], strict=True)
    }
    memory = results[0]["peak_memory_mib"]  # of all four together
    return {"ggdr_cost": cost, "peak_memory_mib": memory, "variants": [_without_memory(r) for r in results]}


def _without_memory(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without the peak of memory, which is of all variants together."""
    return {name: value for name, value in result.items() if name != "peak_memory_mib"}
