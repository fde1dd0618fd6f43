# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is installed on a machine: versions, devices, compilers."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ggdr.scripts.diagnosis.problem import Problem
from ggdr.torch_utils.data.workers import cpu_count
from ggdr.torch_utils.ops import toolchain
from ggdr.torch_utils.ops.toolchain import MissingTool

# Of the dozens that a processor has, those that decide how fast its arithmetic is.
INSTRUCTION_SETS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
INSTRUCTION_SETS += ("asimd", "asimdhp", "bf16", "sve", "sve2")


def read_versions() -> dict[str, str | None]:
    """Versions of the system, of packages, of CUDA and its driver; None for what is not there."""
    try:
        own_version = importlib.metadata.version("ggdr")
    except importlib.metadata.PackageNotFoundError:
        own_version = "not installed"
    driver = toolchain.output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"])
    return {
        "ggdr": own_version,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "driver": driver or None,
    }


def list_devices() -> list[dict[str, Any]]:
    """The processor, then all GPUs that torch sees."""
    features = toolchain.cpu_features().split()
    cpu = {
        "device": "cpu",
        "name": toolchain.cpu_name(),
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in features],
    }
    gpus = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        capability = f"{properties.major}.{properties.minor}"
        memory_gib = round(properties.total_memory / 2**30, 1)
        gpus.append(
            {"device": f"cuda:{i}", "name": properties.name, "capability": capability, "memory_gib": memory_gib}
        )
    return [cpu, *gpus]


def find_tools() -> dict[str, dict[str, str] | None]:
    """Path and version of what libraries are built with; None where it is not found."""
    nvcc = toolchain.find_nvcc()
    return {
        "c++": _find_tool(lambda: toolchain.find_cxx("cpu")),
        "ninja": _find_tool(lambda: toolchain.find_ninja("cpu")),
        "nvcc": None if nvcc is None else _find_tool(lambda: [nvcc]),
    }


def _find_tool(find: Callable[[], Sequence[str]]) -> dict[str, str] | None:
    """Path and version of one tool."""
    try:
        command = find()
    except MissingTool:
        return None
    version = re.search(r"\d+\.\d+(\.\d+)*", toolchain.version_of(command))
    return {"path": " ".join(command), "version": version[0] if version else "unknown"}


def check_gpu(versions: Mapping[str, str | None]) -> list[Problem]:
    """Whether torch sees the GPU that there is, going by the `versions` of CUDA and of the driver."""
    if torch.cuda.is_available() or torch.version.hip is not None or versions["driver"] is None:
        return []
    if versions["cuda"] is None:
        remedy = "install a CUDA build: pytorch.org/get-started"
        return [Problem("there is an NVIDIA GPU, but this torch is for CPUs", remedy)]
    return [
        Problem(
            f"torch sees no GPU; the driver is {versions['driver']}, torch was built with CUDA {versions['cuda']}",
            "look at CUDA_VISIBLE_DEVICES and `nvidia-smi`; install a newer driver, or torch for an older CUDA",
        )
    ]
