# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps that need the project's sources: its tests for GPUs, its reference vectors, compute-sanitizer."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from ggdr.scripts.accepting import stop_in_time
from ggdr.scripts.accepting.commands import checked, ggdr_command, last_json, repository, run
from ggdr.scripts.accepting.step import Finding, Place, StepFailed, StepSkipped
from ggdr.scripts.accepting.stop_in_time import TIME_IS_UP, UNTIL
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.ops.toolchain import find_nvcc, output_of

KERNEL_TESTS = "tests/torch_utils/ops/test_native_ops.py"
LARGE = "64_bits"  # in the name of a test that takes 20 GB, and too long under a tool
OWN_KERNELS = "ggdr"  # in the names of all of them: their namespace
TOOL_EXIT = 9  # of compute-sanitizer where it finds something
NAMED = 5  # tests that failed, in a message


def run_tests(place: Place, *, seconds: float) -> Finding:
    """`pytest -m gpu`; no test begins after so many seconds."""
    root = _sources()
    if not _has_pytest():
        raise StepSkipped("pytest is not installed: pip install pytest")
    report = place.folder / "report.xml"
    # Without the other files: what these import may be missing here.
    files = [str(path) for path in sorted((root / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    code, output = run(
        [*_pytest(place), f"--junitxml={report}", "-m", "gpu", *files], cwd=root, env=_environment(root, seconds)
    )
    if not report.is_file():
        raise StepFailed(f"pytest ended with exit code {code} and no report: {(output.splitlines() or [''])[-1]}")
    found = _read_report(report)
    if TIME_IS_UP in output:
        found = replace(found, faults=[*found.faults, f"the other tests were left out after {seconds:.0f} s"])
    return found


def _read_report(report: Path) -> Finding:
    """What pytest counted."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {_name(x): _message(x) for x in cases if x.find("failure") is not None or x.find("error") is not None}
    skipped = {_name(x): x.find("skipped").get("message", "") for x in cases if x.find("skipped") is not None}
    passed = len(cases) - len(failed) - len(skipped)
    figure = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
    faults = []
    if failed:
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        faults.append(f"failed: {', '.join(list(failed)[:NAMED])}{more}")
    elif passed == 0:
        faults.append("no test ran")
    return Finding(figure, {"passed": passed, "failed": failed, "skipped": skipped}, faults)


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"


def _message(case: ElementTree.Element) -> str:
    found = case.find("failure") if case.find("failure") is not None else case.find("error")
    return (found.get("message") or "")[:400]


def compare_golden(place: Place) -> Finding:
    """Networks, losses, augmentations and optimiser steps against the reference vectors, on the device in float32."""
    root = _sources()
    command = [sys.executable, "-m", "tests.golden_cases", "--device", place.device]
    compared = last_json(checked("tests.golden_cases", *run(command, cwd=root, env=_environment(root, math.inf))))
    worst = {name: max(errors, key=errors.get) for name, errors in compared.items()}
    faults = [
        f"{name}: {worst[name]} is {errors[worst[name]]:.3g} times what is allowed"
        for name, errors in compared.items()
        if not errors[worst[name]] <= 1
    ]
    count = sum(map(len, compared.values()))
    most = max(errors[worst[name]] for name, errors in compared.items())
    figure = f"{count} arrays of {len(compared)} files; the worst at {most:.2f} of what is allowed"
    return Finding(figure, {"errors": compared}, faults)


def sanitize(place: Place, *, tool: str, seconds: float) -> Finding:
    """The kernels under one of compute-sanitizer's tools, for about so many seconds."""
    sanitizer = _find_sanitizer()
    if sanitizer is None:
        raise StepSkipped("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(TOOL_EXIT), "--target-processes", "all"]
    if "--kernel-regex" in output_of([sanitizer, "--help"]):
        command += ["--kernel-regex", f"kns={OWN_KERNELS}"]  # PyTorch's own take most of the time
    root = repository()
    if root is not None and _has_pytest():
        tested, words = "tests of the kernels", [*_pytest(place), "-m", "gpu", "-k", f"not {LARGE}", KERNEL_TESTS]
    else:
        tested, words = "ggdr doctor", ggdr_command("doctor", "--device", "cuda", "--no-build")
    # Each tensor has an allocation of its own, so that what is read beyond it is seen.
    env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", **({} if root is None else _environment(root, seconds))}
    code, output = run([*command, *words], cwd=root, env=env)
    summary = next((line for line in reversed(output.splitlines()) if "SUMMARY" in line), "").strip("= ")
    details = {"command": command[1:], "tested": tested, "summary": summary, "exit_code": code}
    faults = []
    if code == TOOL_EXIT or not summary:
        faults.append(f"compute-sanitizer: {summary or 'no summary'}")
    elif code != 0 and TIME_IS_UP not in output:
        faults.append(f"{tested} ended with exit code {code}")
    counted = next((line for line in reversed(output.splitlines()) if " passed" in line), "").strip("= ")
    return Finding(f"{tested}: {summary}" + (f"; {counted}" if counted else ""), details, faults)


def _find_sanitizer() -> str | None:
    """On the search path, or beside nvcc."""
    found, nvcc = shutil.which("compute-sanitizer"), find_nvcc()
    if found is None and nvcc is not None:
        found = shutil.which("compute-sanitizer", path=str(Path(nvcc).parent))
    return found


def _sources() -> Path:
    """The project's sources; StepSkipped where there are none."""
    root = repository()
    if root is None:
        raise StepSkipped("the package is installed without its tests: run it in a copy of the repository")
    return root


def _environment(root: Path, seconds: float) -> dict[str, str]:
    """With which `tests` is found, in the step's processes and in those that tests start; and when tests are to end."""
    return {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "", UNTIL: str(time.time() + seconds)}


def _has_pytest() -> bool:
    return importlib.util.find_spec("pytest") is not None


def _pytest(place: Place) -> list[str]:
    """pytest, with the operations that are built already in place of a cache of its own."""
    cache = place.folder / "pytest"
    (cache / "d").mkdir(parents=True)
    (cache / "d" / "ggdr").symlink_to(cache_folder("ops").parent, target_is_directory=True)
    return [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        f"cache_dir={cache}",
        "-p",
        "no:xdist",
        "-p",
        stop_in_time.__name__,
    ]
