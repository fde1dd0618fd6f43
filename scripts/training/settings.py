# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run that every host has: resolved once, printed by --dry-run, stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ggdr.metrics.names import parse_metrics
from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.training import AUTO, NO_METRICS
from ggdr.torch_utils.loop import LoopConfig

HALF_DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
BF16_CAPABILITY = (8, 0)  # of the first GPUs that multiply bfloat16 by themselves
FP16_MAX_SKIPS = 8  # gradients in float16 overflow now and then; eight times in a row is no accident


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides what a run computes; a host adds its own."""

    host: str
    cfg: str
    regularizers: dict[str, Any]  # settings of each by its name
    loop: LoopConfig
    precision: str  # "fp32", "fp16" or "bf16"
    num_processes: int
    seed: int
    init_snapshot: str | None  # transfer learning
    init_source: dict[str, Any] | None  # the file that its weights were imported from
    metrics: tuple[str, ...]  # of each snapshot; the first one chooses the best
    patience: int | None = field(default=None, kw_only=True)  # snapshots without a better one, after which it ends
    deterministic: bool = field(default=False, kw_only=True)  # sums in a fixed order on a GPU

    @property
    def detector_files(self) -> dict[str, str]:
        """What options name that metrics are computed with, by the option; see DetectorFiles."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return asdict(self)


def resolve_precision(name: str, device_type: str) -> str:
    """`auto` is float16 on a GPU and float32 on a CPU; raises OptionError for float16 on a CPU."""
    if name == "auto":
        return "fp16" if device_type == "cuda" else "fp32"
    if name == "fp16" and device_type == "cpu":
        raise OptionError("--precision", "fp16 needs a GPU; on a CPU use fp32 or bf16")
    return name


def allowed_skips(precision: str) -> int:
    """Optimiser steps in a row that may be left out for a gradient that is not finite; see LoopConfig.max_skips."""
    return FP16_MAX_SKIPS if precision == "fp16" else 0


def safer_precision(precision: str) -> str:
    """What an advice after a NaN begins with: the options that have more range or digits, if there are any."""
    return {"fp16": "--precision fp32 or bf16, ", "bf16": "--precision fp32, "}.get(precision, "")


def precision_note(precision: str, device: torch.device) -> str | None:
    """What to tell of a precision that the device only imitates; None of others."""
    if precision != "bf16" or device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= BF16_CAPABILITY:
        return None
    name = torch.cuda.get_device_name(device)
    have, need = (f"{major}.{minor}" for major, minor in (capability, BF16_CAPABILITY))
    return (
        f"{name} has no bfloat16 (compute capability {have}, expected {need}) and is slow at it: use --precision fp16"
    )


def resolve_metrics(text: str | None) -> tuple[str, ...]:
    """Names of metrics from a list of them, none of None and NO_METRICS; raises OptionError."""
    try:
        return () if text in (None, NO_METRICS) else tuple(spec.name for spec in parse_metrics(text))
    except ValueError as error:
        raise OptionError("--metrics", str(error)) from error


def resolve_patience(patience: int | None, metrics: Sequence[str]) -> int | None:
    """Raises OptionError where there are no metrics to wait for."""
    if patience is not None and not metrics:
        raise OptionError("--patience", "needs --metrics, the first of which says which snapshot is better")
    return patience


def resolve_batch_gpu(batch: int, batch_gpu: int | str | None, num_processes: int) -> int:
    """Images in one forward of one process; raises OptionError where the batch does not split.

    Of AUTO, as of None, it is all of them: `fit_memory.fitting_settings` finds what fits.
    """
    if batch % num_processes:
        raise OptionError("--batch", f"{batch} is not a multiple of the {num_processes} processes")
    share = batch // num_processes
    if batch_gpu in (None, AUTO):
        return share
    if share % batch_gpu:
        raise OptionError("--batch-gpu", f"{batch_gpu} does not divide the {share} images of a process")
    return batch_gpu


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Leaves in which two nests of settings differ, as {"loop.batch": (old, new)}."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif _plain(a) != _plain(b):
            found[prefix + key] = (_plain(a), _plain(b))
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
