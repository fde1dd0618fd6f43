# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What an iteration of `ggdr train` asks of a GPU, counted without one."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ggdr.scripts.benches.drawn_images import write_pictures
from ggdr.scripts.benches.step_timing import describe_settings, resolve_settings
from ggdr.scripts.training.gpu_needs import trace_settings
from ggdr.scripts.training.regularizers import needs_label_maps
from ggdr.scripts.training.settings_stylegan2 import StyleGAN2Settings
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ops import uses_native
from ggdr.torch_utils.timing.gpus import LAUNCH_SECONDS, Gpu
from ggdr.torch_utils.timing.operations import Operation
from ggdr.torch_utils.timing.step_trace import META, StepTrace, TracedPiece

CUDA = ProcessGroup(device=torch.device("cuda"))  # a name; no GPU is looked for


def trace_command(command: Mapping[str, Any], gpu: Gpu) -> dict[str, Any]:
    """What a GPU does in an iteration of `ggdr train` with these options, and how long it takes at least.

    Raises:
        OptionError: an option cannot be used.
    """
    res = int(command["resolution"])
    with tempfile.TemporaryDirectory() as folder:
        black = np.zeros([res, res, 3], dtype=np.uint8)
        dataset = write_pictures(Path(folder) / "black.zip", [black], with_label_maps=needs_label_maps(command))
        options = resolve_settings(command, dataset, CUDA)
        trace = trace_settings(options, dataset)
        plain = trace
        if options.regularizers:
            plain = trace_settings(replace(options, regularizers={}), dataset)
    return _result(options, trace, plain, gpu)


def _result(options: StyleGAN2Settings, trace: StepTrace, plain: StepTrace, gpu: Gpu) -> dict[str, Any]:
    """What is reported; `plain` is the trace without GGDR, or the same."""
    to_kimg = 1000 / options.loop.batch
    total = trace.seconds(gpu)
    weights, grads, moments = (x / 2**30 for x in (trace.weights, trace.grads, trace.moments))
    peak = trace.peak / 2**30
    return {
        "sec_per_kimg": total * to_kimg,
        "sec_per_kimg_roofline": sum(x.share * x.roofline_seconds(gpu) for x in trace.pieces) * to_kimg,
        "sec_per_kimg_launches": sum(x.share * x.launch_seconds() for x in trace.pieces) * to_kimg,
        "ggdr_share": 1 - plain.seconds(gpu) / total,
        "by_piece": _by_piece(trace.pieces, gpu),
        "without_ggdr": None if plain is trace else _by_piece(plain.pieces, gpu)["D"],
        "iteration": _mean(trace.pieces, gpu),
        "operations": _by_operation(trace.pieces, gpu),
        "peak_memory_gib": peak,
        "memory_gib": {
            "weights": weights,
            "gradients": grads,
            "optimizer": moments,
            "rest": peak - weights - grads - moments,
        },
        "gpu": gpu.name,
        "gpu_memory_gb": gpu.memory_gb,
        "gpu_gb_per_sec": gpu.bandwidth / 1e9,
        "gpu_tflop_per_sec": {math: gpu.peak(math) / 1e12 for math in ("fp16", "bf16", "tf32", "fp32")},
        "launch_us": LAUNCH_SECONDS * 1e6,
        **describe_settings(options),
        "ops": "native" if uses_native(META) else "reference",
        **{name: version(name) for name in ("ggdr", "torch")},
    }


def _by_piece(pieces: Sequence[TracedPiece], gpu: Gpu) -> dict[str, dict[str, Any]]:
    """Of each piece once, by its name; the steps of the optimisers as the mean iteration has them."""
    by_name: dict[str, list[TracedPiece]] = defaultdict(list)
    for piece in pieces:
        by_name[piece.name].append(piece)
    found = {}
    for name, parts in by_name.items():
        every = round(1 / parts[0].share) if len(parts) == 1 else 1
        found[name] = {"every": every, **_mean([replace(x, share=x.share * every) for x in parts], gpu)}
    return found


def _mean(pieces: Sequence[TracedPiece], gpu: Gpu) -> dict[str, Any]:
    """Of all pieces together, each as often as its share says."""

    def mean(values: Iterable[float]) -> float:
        return sum(x.share * value for x, value in zip(pieces, values, strict=True))

    tflop: Counter[str] = Counter()
    for x in pieces:
        for operation in x.piece.operations:
            if operation.flops:
                tflop[gpu.math(operation.math)] += x.share * operation.flops / 1e12
    return {
        "kernels": mean(sum(o.kernels for o in x.piece.operations) for x in pieces),
        "gb": mean(sum(o.num_bytes for o in x.piece.operations) / 1e9 for x in pieces),
        "tflop": dict(tflop),
        "roofline_ms": mean(x.roofline_seconds(gpu) * 1e3 for x in pieces),
        "launch_ms": mean(x.launch_seconds() * 1e3 for x in pieces),
        "host_ops": mean(x.piece.host_ops for x in pieces),
        "python_functions": mean(x.piece.functions for x in pieces),
        "peak_memory_gib": max(x.piece.peak for x in pieces) / 2**30,
    }


def _by_operation(pieces: Sequence[TracedPiece], gpu: Gpu) -> dict[str, dict[str, float]]:
    """Of a mean iteration, by the operation's name, those that take longest first."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for x in pieces:
        for operation in x.piece.operations:
            found[operation.name].update(_weighted(x.share, operation, gpu))
    ordered = sorted(found, key=lambda name: -found[name]["roofline_ms"] - found[name]["launch_ms"])
    return {name: dict(found[name]) for name in ordered}


def _weighted(share: float, x: Operation, gpu: Gpu) -> dict[str, float]:
    return {
        "kernels": share * x.kernels,
        "gb": share * x.num_bytes / 1e9,
        "tflop": share * x.flops / 1e12,
        "roofline_ms": share * gpu.seconds(x.num_bytes, x.flops, x.math) * 1e3,
        "launch_ms": share * x.kernels * LAUNCH_SECONDS * 1e3,
    }
