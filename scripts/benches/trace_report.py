# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr bench train --trace` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggdr.scripts.benches.step_report import guide_and_augmentation, network_settings

TOP = 12  # operations
MATHS = ("fp16", "bf16", "tf32", "fp32")


def report_trace(r: Mapping[str, Any]) -> str:
    """Pieces of an iteration, what it needs in all, and the operations that take longest."""
    rates = ", ".join(f"{r['gpu_tflop_per_sec'][math]:g} TFLOP/s in {math}" for math in _maths(r))
    lines = [
        f"{network_settings(r)}, {r['ops']} operations, torch {r['torch']}",
        guide_and_augmentation(r),
        f"counted, not measured. {r['gpu']}: {r['gpu_gb_per_sec']:g} GB/s, {rates}; {r['launch_us']:g} us a launch",
        "",
        *_pieces(r),
        "",
        f"{r['sec_per_kimg']:.2f} sec/kimg: {r['sec_per_kimg_roofline']:.2f} at the roofline, "
        f"{r['sec_per_kimg_launches']:.2f} for launches" + _share(r),
        _memory(r),
        "",
        *_operations(r["operations"]),
    ]
    return "\n".join(lines)


def _maths(r: Mapping[str, Any]) -> list[str]:
    """Types in which it multiplies."""
    return [math for math in MATHS if math in r["iteration"]["tflop"]]


def _share(r: Mapping[str, Any]) -> str:
    if r["without_ggdr"] is None:
        return ""
    return f"; {'GGDR is' if _has_ggdr_alone(r) else 'they are'} {r['ggdr_share']:.1%} of it"


def _has_ggdr_alone(r: Mapping[str, Any]) -> bool:
    return r["regularizer_names"] == ["ggdr"]


def _memory(r: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{name} {gib:.2f}" for name, gib in r["memory_gib"].items())
    return (
        f"needs about {r['peak_memory_gib']:.1f} GiB on a GPU ({parts}), and what CUDA and cuDNN take; "
        f"{r['gpu']} has {r['gpu_memory_gb']:g} GB"
    )


def _pieces(r: Mapping[str, Any]) -> list[str]:
    """The table of pieces; its last line is the mean iteration."""
    maths = _maths(r)
    head = f"{'':<16}{'every':>6}{'kernels':>9}{'GB':>9}"
    head += "".join(f"{'TFLOP ' + math:>12}" for math in maths)
    head += f"{'roofline ms':>13}{'launch ms':>11}{'host ops':>10}{'Python':>8}{'peak GiB':>10}"
    lines = [head]
    for name, piece in r["by_piece"].items():
        lines.append(_piece(name, piece, maths))
        if name == "D" and r["without_ggdr"] is not None:
            lines.append(_piece(f"D without {'GGDR' if _has_ggdr_alone(r) else 'them'}", r["without_ggdr"], maths))
    return [*lines, _piece("iteration, mean", {"every": 1, **r["iteration"]}, maths)]


def _piece(name: str, piece: Mapping[str, Any], maths: Sequence[str]) -> str:
    line = f"{name:<16}{piece['every']:>6}{piece['kernels']:>9.0f}{piece['gb']:>9.2f}"
    line += "".join(f"{piece['tflop'].get(math, 0):>12.3f}" for math in maths)
    line += f"{piece['roofline_ms']:>13.2f}{piece['launch_ms']:>11.2f}{piece['host_ops']:>10.0f}"
    return line + f"{piece['python_functions']:>8.0f}{piece['peak_memory_gib']:>10.2f}"


def _operations(operations: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The operations that take longest in a mean iteration, and the rest."""
    names = list(operations)
    rest = {key: sum(operations[name][key] for name in names[TOP:]) for key in operations[names[0]]}
    rows = [(name, operations[name]) for name in names[:TOP]]
    if len(names) > TOP:
        rows.append((f"{len(names) - TOP} others", rest))
    lines = [f"{'operation, mean':<31}{'kernels':>9}{'GB':>9}{'TFLOP':>9}{'roofline ms':>13}{'launch ms':>11}"]
    lines += [
        f"{name:<31}{x['kernels']:>9.0f}{x['gb']:>9.2f}{x['tflop']:>9.3f}{x['roofline_ms']:>13.2f}{x['launch_ms']:>11.2f}"
        for name, x in rows
    ]
    return lines
