# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""All checks of an installation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ggdr.scripts.diagnosis.machine import check_gpu, find_tools, list_devices, read_versions
from ggdr.scripts.diagnosis.operations import check_library, check_mode_and_cache, check_operations
from ggdr.torch_utils.ops.build import libraries_of


def examine(devices: Sequence[torch.device], *, build_missing: bool) -> dict[str, Any]:
    """The findings, as plain dicts and lists that JSON can hold.

    Args:
        devices:       where the operations are tried.
        build_missing: build the libraries that are not in the cache; else their operations are left out.
    """
    versions = read_versions()
    found: dict[str, Any] = {"versions": versions, "devices": list_devices(), "tools": find_tools()}
    problems = check_gpu(versions)
    found["ops"], of_mode = check_mode_and_cache()
    problems += of_mode
    found |= {"libraries": [], "operations": []}
    needed = {device: libraries_of(device.type) for device in devices}
    loaded = {}
    for name in dict.fromkeys(name for names in needed.values() for name in names):
        library, of_library = check_library(name, build_missing=build_missing)
        loaded[name] = library["state"] in ("built", "built now")
        found["libraries"].append(library)
        problems += of_library
    for device, names in needed.items():
        operations, of_operations = check_operations(device, loaded=all(loaded[name] for name in names))
        found["operations"] += operations
        problems += of_operations
    is_sound = not any(problem.broken for problem in problems)
    return {"ok": is_sound, **found, "problems": [asdict(problem) for problem in problems]}
