# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The CUDA sources, compiled by a C++ compiler with threads in turns, in place of the CPU's operations.

A library is built and kept as the project's own are: once for all processes, in a folder of the cache that is named
by a hash of what it depends on.
"""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ggdr.torch_utils.ops import build, demodulation, modulation
from ggdr.torch_utils.ops.toolchain import Toolchain, cpu_toolchain
from tests.torch_utils.ops.emulation.rewrite import kernels, rewrite_sources

HERE = Path(__file__).parent
FLAGS = (
    *("-std=c++17", "-O1", "-fPIC", "-U_FORTIFY_SOURCE"),
    # What a GPU does not forgive ends in a trap, which the emulation reports.
    *("-fsanitize=alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero",),
    "-fsanitize-undefined-trap-on-error",
)
INT32_MAX = 2**31 - 1
ORDERS = {"first to last": 0, "last to first": 1, "shuffled": 2}  # in which a block's threads run


class Emulation:
    """A library of emulated kernels, which this process has loaded."""

    def __init__(self, path: Path, kernels: list[str]) -> None:
        self.path, self.kernels = path, kernels
        self._library = ctypes.CDLL(str(path))
        self._library.emulation_set.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
        self._library.emulation_launches.restype = ctypes.c_int64

    @contextmanager
    def in_place_of_the_cpu(self) -> Iterator[None]:
        """Tensors on the CPU take the emulated kernels; their derivatives are in the CPU's library."""
        loaded, types = build.load_library("cpu"), modulation.COMPILED_TYPES["cpu"]
        build._loaded["cpu"] = self.path
        modulation.COMPILED_TYPES["cpu"] = modulation.COMPILED_TYPES["cuda"]
        demodulation.COMPILED_DEVICES.append("cpu")
        previous = build.set_ops("native")
        self._library.emulation_turn(1)
        try:
            yield
        finally:
            self._library.emulation_turn(0)
            self.set()
            modulation.COMPILED_TYPES["cpu"] = types
            demodulation.COMPILED_DEVICES.remove("cpu")
            build._loaded["cpu"] = loaded
            build.set_ops(previous)

    def set(self, *, max_blocks: int = 1 << 20, int32_max: int = INT32_MAX, order: str = "first to last") -> None:
        """The blocks of a grid at most, the largest index that counts as one of 32 bits, and the order of threads."""
        self._library.emulation_set(max_blocks, int32_max, ORDERS[order])

    def guarded(self, x: Tensor) -> Tensor:
        """A copy of `x`, and of the memory that it is a view of, beside which a kernel touches nothing unnoticed."""
        storage = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
        self._library.emulation_guard(1)
        try:
            storage = storage.clone()
        finally:
            self._library.emulation_guard(0)
        return storage.as_strided(x.shape, x.stride(), x.storage_offset())

    def launches(self, kernel: str) -> int:
        """How many times a kernel was launched."""
        return self._library.emulation_launches(kernel.encode())


def load_emulation(folder: Path = build.SOURCE_FOLDER, names: str = "*.cu") -> Emulation:
    """Builds, if need be, and loads the CUDA sources of a folder; once in a process.

    Raises:
        MissingTool: there is no C++ compiler or no ninja.
        BuildError:  they cannot be compiled.
        RewriteError: they have what the emulation does not know.
    """
    sources = sorted(folder.rglob(names))
    headers = sorted({header for source in sources for header in source.parent.glob("*.h")})
    toolchain = emulation_toolchain()
    with tempfile.TemporaryDirectory() as temporary:
        written = rewrite_sources(sources, headers, Path(temporary))
        own = [Path(shutil.copy(path, temporary)) for path in sorted([*HERE.glob("*.h"), *HERE.glob("*.cpp")])]
        path = build.find_or_build(toolchain, [*written, *(path for path in own if path.suffix == ".cpp")])
    return Emulation(path, kernels(sources))


def emulation_toolchain() -> Toolchain:
    """That of the CPU's operations with other flags; raises MissingTool where it does."""
    cpu = cpu_toolchain()
    abi = [flag for flag in cpu.compile if "CXX11_ABI" in flag]
    compiler = cpu.link[: cpu.link.index("-shared")]
    return dataclasses.replace(
        cpu,
        compile=(*compiler, *FLAGS, *abi, *cpu.compile[cpu.compile.index("-isystem") :]),
        identity=(*cpu.identity, "emulation", *FLAGS),
    )
