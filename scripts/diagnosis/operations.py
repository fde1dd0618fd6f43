# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Whether the compiled operations are there, agree with their references, and are faster."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from ggdr.scripts.diagnosis.problem import Problem
from ggdr.torch_utils.atomic_write import check_writable
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.ops import build, self_check
from ggdr.torch_utils.ops.build import BuildError
from ggdr.torch_utils.ops.self_check import SelfCheck
from ggdr.torch_utils.ops.toolchain import MissingTool

REPORT_IT = "go on with GGDR_OPS=reference, and report this with the output of `ggdr doctor --json`"


def check_mode_and_cache() -> tuple[dict[str, Any], list[Problem]]:
    """The mode in force, and the cache that libraries are built in."""
    problems = []
    try:
        mode = build.ops_mode()
    except ValueError as error:
        mode = None
        problems.append(Problem(str(error), "correct or unset GGDR_OPS", broken=True))
    try:
        cache = cache_folder("ops")
        existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
        check_writable(existing)  # permissions tell too little of read-only and of special folders
        writable = True
    except RuntimeError:
        cache, writable = None, False
    except OSError:
        writable = False
    if not writable:
        problem = f"the cache {cache or 'in the home folder'} cannot be written to: the temporary folder serves"
        problems.append(Problem(problem, "set GGDR_CACHE to a folder that can be written to"))
    return {"mode": mode, "cache": None if cache is None else str(cache), "cache_writable": writable}, problems


def check_library(device_type: str, *, build_missing: bool) -> tuple[dict[str, Any], list[Problem]]:
    """The library for a kind of device, found or built, and loaded."""
    library: dict[str, Any] = {"device": device_type, "state": "not built", "path": None, "seconds": None}
    try:
        found = build.built_library(device_type)
        if found is None and not build_missing:
            return library, []
        start = time.perf_counter()
        library["path"] = str(build.load_library(device_type))
        if found is None:
            library |= {"state": "built now", "seconds": round(time.perf_counter() - start, 1)}
        else:
            library["state"] = "built"
    except BuildError as error:
        is_broken = not isinstance(error, MissingTool)
        library["state"] = "broken" if is_broken else "missing tool"
        return library, [Problem(f"{device_type.upper()}: {error.reason}", error.remedy, is_broken)]
    return library, []


def check_operations(device: torch.device, *, loaded: bool) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Each operation that has kernels for a device; those of a library that is not `loaded` are not tried."""
    operations, problems = [], []
    for check in self_check.self_checks():
        if device.type in check.device_types:
            operation, found = _check_operation(check, device, loaded=loaded)
            operations.append(operation)
            problems += found
    return operations, problems


def _check_operation(check: SelfCheck, device: torch.device, *, loaded: bool) -> tuple[dict[str, Any], list[Problem]]:
    """Whether an operation agrees with its reference, and how fast it is."""
    operation: dict[str, Any] = {"name": check.name, "device": str(device), "state": "not built"}
    operation |= {"error": None, "tolerance": check.tolerance, "speedup": None}
    if not loaded:
        return operation, []
    try:
        error, speedup = self_check.run_self_check(check, device)
    except RuntimeError as failure:
        operation["state"] = "fails"
        problem = f"{check.name} on {device} fails: {str(failure).splitlines()[0]}"
        return operation, [Problem(problem, REPORT_IT, broken=True)]
    operation["error"] = error if math.isfinite(error) else None
    operation["speedup"] = round(speedup, 2)
    operation["state"] = "works" if error <= check.tolerance else "wrong"
    if operation["state"] == "works":
        return operation, []
    problem = f"{check.name} on {device} is {error:.1e} off its reference, allowed are {check.tolerance:.0e}"
    return operation, [Problem(problem, REPORT_IT, broken=True)]
