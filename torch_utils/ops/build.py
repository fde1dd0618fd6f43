# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Finds, builds and loads the compiled operations: one library for CPUs, one for GPUs.

The library for CPUs also has the derivatives of all operations, which are the same on all devices. So a GPU needs both,
and shapes without data (meta tensors, and CUDA tensors where there is no GPU) need that for CPUs.

A library is built at its first use and kept in a cache, in a folder named by a hash of all that it depends on.
It is compiled in a temporary folder and renamed into place, and its name holds its checksum: a build that was
killed, or a full disk, never leaves a library that looks right and is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from ggdr.torch_utils.cache import cache_folder, private_temporary_folder
from ggdr.torch_utils.ops.toolchain import BuildError, Toolchain, cpu_toolchain, cuda_toolchain
from ggdr.torch_utils.process_lock import process_lock
from ggdr.torch_utils.untrusted.text import visible

__all__ = ["MODES", "BuildError", "ops_mode", "set_ops", "uses_native"]

MODES = ("auto", "native", "reference")
SOURCE_FOLDER = Path(__file__).parent
SOURCE_SUFFIX = {"cpu": ".cpp", "cuda": ".cu"}
DURATION = {"cpu": "about a minute", "cuda": "a minute or two"}
DAY = 86400.0  # seconds
CACHES = (cache_folder, private_temporary_folder)  # in the order in which they are tried

logger = logging.getLogger(__name__)
_override: str | None = None
_decided: dict[str, bool] = {}  # by device type, in the mode in force
_loaded: dict[str, Path | BuildError] = {}  # by device type: what came of the search for its library
_deciding = threading.RLock()


def uses_native(device: torch.device) -> bool:
    """Whether tensors on a device take the compiled kernels.

    The first call for a device type finds, or builds, and loads its libraries. Devices other than CPUs and NVIDIA GPUs
    have no kernels.

    Raises:
        BuildError: the mode is "native" and a library is missing.
        ValueError: GGDR_OPS is none of the modes.
    """
    decided = _decided.get(device.type)
    return _decide(device.type) if decided is None else decided


# What torch.compiler.assume_constant_result sets, without its import of the compiler, which takes seconds: while
# torch.compile traces, the function is called rather than traced, and its result is a constant of the graph.
uses_native._dynamo_marked_constant = True  # type: ignore[attr-defined]


def set_ops(mode: str | None) -> str | None:
    """Chooses the operations of this process: compiled ones, or the reference in plain PyTorch.

    What torch.compile or torch.export traced before stays as it was traced.

    Args:
        mode: "auto" (compiled where they can be built), "native" (compiled, or BuildError at the first use),
              "reference", or None for what the environment variable GGDR_OPS says, "auto" if it is not set.

    Returns:
        What was chosen before, to go back to.

    Raises:
        ValueError: another mode.
    """
    global _override
    if mode is not None and mode not in MODES:
        raise ValueError(f"unknown operations {mode!r}; expected one of {', '.join(MODES)}")
    with _deciding:
        previous, _override = _override, mode
        _decided.clear()
    return previous


def ops_mode() -> str:
    """The mode in force; ValueError if GGDR_OPS is none of MODES."""
    mode = _override or os.environ.get("GGDR_OPS") or "auto"
    if mode not in MODES:
        raise ValueError(f"GGDR_OPS is {mode!r}; expected one of {', '.join(MODES)}")
    return mode


def _decide(device_type: str) -> bool:
    with _deciding:
        if device_type not in _decided:
            _decided[device_type] = _is_native(device_type, ops_mode())
        return _decided[device_type]


def _is_native(device_type: str, mode: str) -> bool:
    libraries = libraries_of(device_type)
    if mode == "reference" or not libraries:
        return False
    try:
        for library in libraries:
            load_library(library)
    except BuildError as error:
        if mode == "native":
            raise
        if _speaks():
            where = f"{device_type.upper()} operations run in plain PyTorch, {error.cost}"
            # What a CPU user may never miss takes a line; a GPU without its kernels is a fault, told in full.
            short = f"{where}: {error.cause} (`ggdr doctor` says more)"
            logger.warning(
                "%s", short if device_type == "cpu" else f"{where}: {error.reason}. To mend it, {error.remedy}"
            )
        return False
    return True


def libraries_of(device_type: str) -> tuple[str, ...]:
    """The libraries that tensors on a kind of device need: none where there are no kernels for it."""
    if device_type == "cuda" and torch.cuda.is_available():
        return "cuda", "cpu"
    return ("cpu",) if device_type in ("cpu", "cuda", "meta") else ()


def load_library(device_type: str) -> Path:
    """Loads the library of "cpu" or "cuda", after building it if need be; returns its path.

    The outcome, a failure too, holds for the rest of the process.

    Raises:
        BuildError: it cannot be built or loaded.
    """
    with _deciding:
        if device_type not in _loaded:
            try:
                _loaded[device_type] = find_or_build(device_toolchain(device_type), device_sources(device_type))
            except BuildError as error:
                _loaded[device_type] = error
        result = _loaded[device_type]
    if isinstance(result, BuildError):
        raise result
    return result


def built_library(device_type: str) -> Path | None:
    """The library of "cpu" or "cuda" in a cache, if it is there; BuildError where it could not be built either."""
    name = _folder_name(device_toolchain(device_type), device_sources(device_type))
    for cache in CACHES:
        with suppress(OSError, RuntimeError):
            if (path := find_library(cache("ops") / name)) is not None:
                return path
    return None


def device_toolchain(device_type: str) -> Toolchain:
    """What the library of "cpu" or "cuda" is built with here; BuildError if something is missing."""
    if sys.platform == "win32":
        raise BuildError(device_type, "they are not built on Windows", remedy="use Linux, macOS or WSL")
    if device_type == "cpu":
        return cpu_toolchain()
    if torch.version.hip is not None:
        raise BuildError("cuda", "this torch is for AMD GPUs, the kernels are CUDA", remedy="use an NVIDIA GPU")
    capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return cuda_toolchain([f"{major}.{minor}" for major, minor in sorted(capabilities)])


def device_sources(device_type: str) -> list[Path]:
    """The source files of the library of "cpu" or "cuda"."""
    return sorted(SOURCE_FOLDER.rglob(f"*{SOURCE_SUFFIX[device_type]}"))


def library_key(toolchain: Toolchain, sources: Sequence[Path]) -> str:
    """A hash of the sources, of the headers beside them, and of all else that decides the machine code."""
    headers = {header for source in sources for header in source.parent.glob("*.h")}
    digest = hashlib.sha256(json.dumps([toolchain.device_type, *toolchain.identity]).encode())
    for path in sorted({*sources, *headers}):
        content = path.read_bytes()
        digest.update(f"\n{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def find_library(folder: Path) -> Path | None:
    """The library in a folder of the cache, if there is a whole one.

    One that was cut short can bring the process down when it is loaded, so its checksum is compared first.
    """
    for path in folder.glob("ops-*.so"):
        with suppress(OSError):
            if path.stem == f"ops-{_checksum(path)}":
                return path
    return None


def find_or_build(toolchain: Toolchain, sources: Sequence[Path]) -> Path:
    """Loads a library from the cache, after building it if need be; returns its path.

    Any number of processes may do so at once: one builds, the others wait for it and load what it built.

    Raises:
        BuildError: it cannot be compiled or loaded.
    """
    name = _folder_name(toolchain, sources)
    unwritable: Exception | None = None
    for cache in CACHES:
        try:
            folder = cache("ops") / name
            if (path := _load_found(folder)) is not None:
                return path
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / "lock", "a"):
                pass
        except (OSError, RuntimeError) as error:
            unwritable = unwritable or error
            continue
        if unwritable is not None:
            _say(f"cannot write to the cache of compiled operations ({unwritable}); they are kept in {folder}")
        return _find_or_build_in(folder, toolchain, sources)
    raise BuildError(
        toolchain.device_type,
        f"cannot write to the cache of compiled operations: {unwritable}",
        remedy="set GGDR_CACHE to a folder that can be written to",
    )


def _find_or_build_in(folder: Path, toolchain: Toolchain, sources: Sequence[Path]) -> Path:
    """Of all processes that come here for one folder, one builds."""
    builds = f"builds the {toolchain.device_type.upper()} operations"
    failures, lock = folder / "failure.json", folder / "lock"
    failed_before = _mtime(failures)

    def wait(holder: str) -> None:
        _say(f"waiting for process {holder}, which {builds} ({lock} is locked)")

    with process_lock(lock, wait) as is_held:
        if (path := _load_found(folder)) is not None:
            return path
        if _mtime(failures) != failed_before:  # the process that was waited for failed; so would this one
            raise BuildError(toolchain.device_type, **json.loads(failures.read_text()))
        _remove_dead_builds(folder, is_held)
        try:
            path = _build(folder, toolchain, sources)
        except BuildError as error:
            _write_failure(failures, error)
            raise
        return _load(path, toolchain)


def _folder_name(toolchain: Toolchain, sources: Sequence[Path]) -> str:
    """Of a library's folder in a cache."""
    return f"{toolchain.device_type}-{library_key(toolchain, sources)}"


def _build(folder: Path, toolchain: Toolchain, sources: Sequence[Path]) -> Path:
    """Compiles in a new folder inside `folder`, and moves the library up under its checksum's name."""
    _say(f"building {toolchain.device_type.upper()} operations (once, {DURATION[toolchain.device_type]})")
    try:
        with tempfile.TemporaryDirectory(prefix=_build_prefix(), dir=folder) as temporary:
            built = Path(temporary) / "ops.so"
            toolchain.write_ninja_file(built.with_name("build.ninja"), sources)
            toolchain.run_ninja(built.parent, built.name, log=folder / "build.log")
            path = folder / f"ops-{_checksum(built)}.so"
            os.replace(built, path)
        for damaged in set(folder.glob("ops-*.so")) - {path}:
            damaged.unlink()
    except OSError as error:
        remedy = "make room there, or set GGDR_CACHE to another folder"
        raise BuildError(toolchain.device_type, f"cannot build in {folder}: {error}", remedy=remedy) from error
    return path


def _load_found(folder: Path) -> Path | None:
    """Loads what `find_library` finds; None if there is nothing, or nothing that this system can load."""
    path = find_library(folder)
    if path is not None:
        try:
            torch.ops.load_library(path)
        except OSError:
            return None
    return path


def _load(path: Path, toolchain: Toolchain) -> Path:
    """Loads a library that was just built."""
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise BuildError(
            toolchain.device_type,
            "the library was built but cannot be loaded",
            detail=str(error.__cause__ or error),
            remedy="see that the compiler and torch are for the same platform",
        ) from error
    return path


def _remove_dead_builds(folder: Path, is_held: bool) -> None:
    """Removes what killed builds left: this machine's in `folder`, if its lock is held, and all after a day."""
    mine = set(folder.glob(f"{_build_prefix()}*")) if is_held else set()
    old = {path for path in folder.parent.glob("*/build-*/") if time.time() - (_mtime(path) or 0) > DAY}
    for path in mine | old:
        shutil.rmtree(path, ignore_errors=True)


def _build_prefix() -> str:
    return f"build-{platform.node()}+"  # a character that no host name has


def _write_failure(path: Path, error: BuildError) -> None:
    """Tells the processes that wait for this one; they try for themselves if it cannot be written."""
    partial = path.with_suffix(".partial")
    with suppress(OSError):
        partial.write_text(json.dumps({"cause": error.cause, "detail": error.detail, "remedy": error.remedy}))
        os.replace(partial, path)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _speaks() -> bool:
    """Of torchrun's processes on a machine, one tells what concerns all."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _say(text: str) -> None:
    if _speaks():
        print(f"ggdr: {visible(text)}", file=sys.stderr, flush=True)
