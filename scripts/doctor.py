# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr doctor`: what is installed, whether the compiled operations work, and what is missing."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.options.parameters import Device, choose_device

if TYPE_CHECKING:
    import torch
    from rich.console import Console

EXAMPLES = """\b
Examples:
  ggdr doctor
  ggdr doctor --device cuda --json
"""
REPORT_IT = "go on with GGDR_OPS=reference, and report this with the output of `ggdr doctor --json`"
# Of the dozens that a processor has, those that decide how fast its arithmetic is.
INSTRUCTION_SETS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
INSTRUCTION_SETS += ("asimd", "asimdhp", "bf16", "sve", "sve2")


@click.command(epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@click.option(
    "--device",
    type=Device(),
    default="auto",
    metavar="auto|cpu|cuda",
    help="Where to try the operations; auto: on the CPU, and on a GPU if there is one.",
)
@click.option("--build/--no-build", default=True, help="Build the compiled operations if they are not there yet.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def main(ctx: click.Context, device: str, build: bool, as_json: bool) -> None:
    """Examine this installation: versions, devices, compilers, compiled operations.

    Every compiled operation is compared with its reference in plain PyTorch, and timed against it, forward and
    backward. Exit code 0: all that can work here works, if perhaps with advice; 1: something is broken.
    """
    chosen = choose_device(device)
    if device == "auto" and chosen.type == "cuda":
        devices = [choose_device("cpu"), chosen]
    else:
        devices = [chosen]
    report = examine(devices, build=build)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        from rich.console import Console

        print_report(report, Console(highlight=False))
    if not report["ok"]:
        ctx.exit(1)


def examine(devices: Sequence[torch.device], *, build: bool) -> dict[str, Any]:
    """The findings, as plain dicts and lists that JSON can hold.

    Args:
        devices: where the operations are tried.
        build:   build the libraries that are not in the cache; else their operations are left out.
    """
    problems: list[dict[str, Any]] = []

    def note(problem: str, remedy: str, *, broken: bool = False) -> None:
        problems.append({"problem": problem, "remedy": remedy, "broken": broken})

    versions, cpus_and_gpus, tools = _versions(), _devices(), _tools()
    _note_lost_gpu(versions, note)
    ops = _ops(note)
    libraries, operations = [], []
    for device in devices:
        library, error = _library(device.type, build)
        libraries.append(library)
        if error is not None:
            note(f"{device.type.upper()}: {error.reason}", error.remedy, broken=library["state"] == "broken")
        operations += _operations(device, library["state"] in ("built", "built now"), note)
    return {
        "ok": not any(problem["broken"] for problem in problems),
        "versions": versions,
        "devices": cpus_and_gpus,
        "tools": tools,
        "ops": ops,
        "libraries": libraries,
        "operations": operations,
        "problems": problems,
    }


def _versions() -> dict[str, str | None]:
    import numpy as np
    import torch

    from ggdr.torch_utils.ops.toolchain import output_of

    try:
        own_version = importlib.metadata.version("ggdr")
    except importlib.metadata.PackageNotFoundError:
        own_version = "not installed"
    driver = output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"])
    return {
        "ggdr": own_version,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "driver": driver or None,
    }


def _devices() -> list[dict[str, Any]]:
    import torch

    from ggdr.torch_utils.data.workers import cpu_count
    from ggdr.torch_utils.ops.toolchain import cpu_features, cpu_name

    features = cpu_features().split()
    cpu = {
        "device": "cpu",
        "name": cpu_name(),
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


def _tools() -> dict[str, dict[str, str] | None]:
    """Path and version of what libraries are built with; None where it is not found."""
    from ggdr.torch_utils.ops.toolchain import MissingTool, find_cxx, find_ninja, find_nvcc, version_of

    def described(find: Callable[[], Sequence[str]]) -> dict[str, str] | None:
        try:
            command = find()
        except MissingTool:
            return None
        version = re.search(r"\d+\.\d+(\.\d+)*", version_of(command))
        return {"path": " ".join(command), "version": version[0] if version else "unknown"}

    nvcc = find_nvcc()
    return {
        "c++": described(lambda: find_cxx("cpu")),
        "ninja": described(lambda: find_ninja("cpu")),
        "nvcc": None if nvcc is None else described(lambda: [nvcc]),
    }


def _note_lost_gpu(versions: dict[str, str | None], note: Callable[..., None]) -> None:
    """A GPU that torch does not see."""
    import torch

    if torch.cuda.is_available() or torch.version.hip is not None:
        return
    if versions["driver"] is not None:
        if versions["cuda"] is None:
            note("there is an NVIDIA GPU, but this torch is for CPUs", "install a CUDA build: pytorch.org/get-started")
        else:
            note(
                f"torch sees no GPU; the driver is {versions['driver']}, torch was built with CUDA {versions['cuda']}",
                "look at CUDA_VISIBLE_DEVICES and `nvidia-smi`; install a newer driver, or torch for an older CUDA",
            )


def _ops(note: Callable[..., None]) -> dict[str, Any]:
    """The mode in force, and the cache."""
    from ggdr.torch_utils.cache import cache_folder
    from ggdr.torch_utils.ops.build import ops_mode

    try:
        mode = ops_mode()
    except ValueError as error:
        mode = None
        note(str(error), "correct or unset GGDR_OPS", broken=True)
    try:
        cache = cache_folder("ops")
        existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except RuntimeError:
        cache, writable = None, False
    if not writable:
        note(
            f"the cache {cache or 'in the home folder'} cannot be written: each process builds for itself",
            "set GGDR_CACHE to a folder that can",
        )
    return {"mode": mode, "cache": None if cache is None else str(cache), "cache_writable": writable}


def _library(device_type: str, build: bool) -> tuple[dict[str, Any], Any]:
    """The library for a kind of device, found or built, and loaded; with the BuildError if there is none."""
    from ggdr.torch_utils.ops.build import BuildError, built_library, load_library
    from ggdr.torch_utils.ops.toolchain import MissingTool

    library: dict[str, Any] = {"device": device_type, "state": "not built", "path": None, "seconds": None}
    try:
        found = built_library(device_type)
        if found is None and not build:
            return library, None
        start = time.perf_counter()
        library["path"] = str(load_library(device_type))
        if found is None:
            library |= {"state": "built now", "seconds": round(time.perf_counter() - start, 1)}
        else:
            library["state"] = "built"
    except BuildError as error:
        library["state"] = "missing tool" if isinstance(error, MissingTool) else "broken"
        return library, error
    return library, None


def _operations(device: torch.device, loaded: bool, note: Callable[..., None]) -> list[dict[str, Any]]:
    """Each operation that has kernels for a device: whether it agrees with its reference, and how fast it is."""
    from ggdr.torch_utils.ops.self_check import run_self_check, self_checks

    found = []
    for check in self_checks():
        if device.type not in check.device_types:
            continue
        operation: dict[str, Any] = {"name": check.name, "device": str(device), "state": "not built"}
        operation |= {"error": None, "tolerance": check.tolerance, "speedup": None}
        found.append(operation)
        if not loaded:
            continue
        try:
            error, speedup = run_self_check(check, device)
        except RuntimeError as failure:
            operation["state"] = "fails"
            note(f"{check.name} on {device} fails: {str(failure).splitlines()[0]}", REPORT_IT, broken=True)
            continue
        operation["error"] = error if math.isfinite(error) else None
        operation["speedup"] = round(speedup, 2)
        operation["state"] = "works" if error <= check.tolerance else "wrong"
        if error > check.tolerance:
            problem = f"{check.name} on {device} is {error:.1e} off its reference, allowed are {check.tolerance:.0e}"
            note(problem, REPORT_IT, broken=True)
    return found


def print_report(report: dict[str, Any], console: Console) -> None:
    """The findings for people."""
    from rich.markup import escape
    from rich.table import Table

    versions, tools, ops = report["versions"], report["tools"], report["ops"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        grid.add_row(name, escape(text))

    row("System", f"{versions['system']}, Python {versions['python']}")
    row("Packages", f"ggdr {versions['ggdr']}, torch {versions['torch']}, numpy {versions['numpy']}")
    row("CUDA", f"torch: {versions['cuda'] or 'none'}, driver: {versions['driver'] or 'none'}")
    cpu, *gpus = report["devices"]
    row("CPU", f"{cpu['name']}, {cpu['cores']} cores, {cpu['threads']} threads; {' '.join(cpu['instruction_sets'])}")
    for gpu in gpus:
        row(gpu["device"], f"{gpu['name']}, {gpu['memory_gib']} GiB, compute capability {gpu['capability']}")
    for name, tool in tools.items():
        row(name, "not found" if tool is None else f"{tool['version']} ({tool['path']})")
    row("Cache", ops["cache"] or "none")
    row("GGDR_OPS", ops["mode"] or "unknown")
    for library in report["libraries"]:
        built_now = f"built now, in {library['seconds']} s"
        states = {"built now": built_now, "not built": "not built yet; the first use builds it"}
        row(f"{library['device'].upper()} library", states.get(library["state"], library["state"]))
    console.print(grid)

    if report["operations"]:
        table = Table("operation", "device", "state", "error / allowed", "speed-up", box=None, padding=(0, 2, 0, 0))
        for op in report["operations"]:
            color = {"works": "green", "not built": "yellow"}.get(op["state"], "red")
            error = "" if op["error"] is None else f"{op['error']:.0e} / {op['tolerance']:.0e}"
            speedup = "" if op["speedup"] is None else f"{op['speedup']:.1f}x"
            table.add_row(op["name"], op["device"], f"[{color}]{op['state']}[/]", error, speedup)
        console.print()
        console.print(table)

    console.print()
    for problem in report["problems"]:
        color, word = ("red", "Broken") if problem["broken"] else ("yellow", "Advice")
        console.print(f"[{color}]{word}:[/] {escape(problem['problem'])}")
        console.print(f"  To mend it: {escape(problem['remedy'])}")
    if report["ok"]:
        console.print("[green]All that can work here works.[/]")
