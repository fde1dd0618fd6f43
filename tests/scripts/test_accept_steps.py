# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What steps of `ggdr accept` conclude from what they measure, as far as it can be told without a GPU."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch

from ggdr.scripts.accepting import installation, tested
from ggdr.scripts.accepting.child import run_request
from ggdr.scripts.accepting.step import StepFailed, StepSkipped
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.ops.self_check import SelfCheck
from tests.conftest import ROOT
from tests.golden_cases import CASES, compare, reference_files
from tests.reference_vectors import assert_all_agree

# Kernels and reference vectors.


def request(tmp_path, function):
    return run_request(
        {
            "function": f"ggdr.scripts.accepting.{function}",
            "arguments": {},
            "device": "cpu",
            "folder": str(tmp_path),
            "shared": str(tmp_path),
        }
    )


def test_kernels_of_this_cpu_agree_with_float64(native_ops, tmp_path):
    result = request(tmp_path, "installation:compare_kernels")
    assert result["state"] == "passed", result["reason"]
    errors = result["details"]["errors"]
    assert {"upfirdn2d float32", "bias_act bfloat16", "conv3x3 float32"} <= errors.keys()
    assert all(0 <= x["error"] < x["allowed"] for x in errors.values())


@pytest.mark.parametrize(("factor", "is_right"), [(1.0, True), (1.001, False), (math.nan, False)])
def test_a_kernel_that_is_off_float64_is_a_fault(monkeypatch, tmp_path, factor, is_right):
    from ggdr.torch_utils.ops.build import ops_mode

    def operation(x):
        return x.exp() * (factor if ops_mode() == "native" else 1.0)

    def make_inputs(rng):
        return (torch.randn(2, 3, generator=rng).requires_grad_(),)

    check = SelfCheck("exp", operation, make_inputs, ("cpu",), 1e-4)
    monkeypatch.setattr(installation, "self_checks", lambda: [check])
    result = request(tmp_path, "installation:compare_kernels")
    assert result["state"] == ("passed" if is_right else "failed")
    assert is_right or "exp float32 is " in result["reason"] and "off float64" in result["reason"]


def test_a_kernel_that_fails_is_a_fault_and_the_others_are_compared(monkeypatch, tmp_path):
    def fails(x):
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    def make_inputs(rng):
        return (torch.randn(2, 3, generator=rng).requires_grad_(),)

    checks = [SelfCheck(name, f, make_inputs, ("cpu",), 1e-4) for name, f in (("bad", fails), ("exp", torch.exp))]
    monkeypatch.setattr(installation, "self_checks", lambda: checks)
    result = request(tmp_path, "installation:compare_kernels")
    assert result["reason"] == "bad float32 fails: CUDA error: an illegal memory access"
    assert list(result["details"]["errors"]) == ["exp float32"]


DOCTOR = {
    "libraries": [{"device": "cuda", "state": "built now", "seconds": 83.0}],
    "operations": [
        {"name": name, "state": "works", "speedup": x} for name, x in (("bias_act", 3.0), ("upfirdn2d", 2.0))
    ],
    "problems": [],
}


def doctor_says(monkeypatch, place, **changed):
    """What the step makes of a report, between other lines."""
    text = f"ggdr: building {{once}}\n{json.dumps({**DOCTOR, **changed}, indent=2)}\na warning\n"
    monkeypatch.setattr(installation, "run", lambda command: (0, text))
    return installation.run_doctor(place)


def test_the_doctors_report_is_told_in_a_line(monkeypatch, place):
    found = doctor_says(monkeypatch, place)
    assert found.figure == "2 of 2 operations work, built in 83.0 s; least speed-up 2.0x (upfirdn2d)"
    assert not found.faults and found.details == DOCTOR


def test_what_the_doctor_finds_broken_or_not_built_is_a_fault(monkeypatch, place):
    problems = [{"problem": "no CUDA compiler", "broken": False}, {"problem": "upfirdn2d is off", "broken": True}]
    assert doctor_says(monkeypatch, place, problems=problems).faults == ["upfirdn2d is off"]
    missing = [{"device": "cuda", "state": "missing tool", "seconds": None}]
    found = doctor_says(monkeypatch, place, problems=problems[:1], libraries=missing, operations=[])
    assert found.faults == ["no CUDA compiler"] and found.figure == "0 of 0 operations work, missing tool"
    monkeypatch.setattr(installation, "run", lambda command: (1, "Traceback\n"))
    with pytest.raises(StepFailed, match="printed no report"):
        installation.run_doctor(place)


def test_every_reference_file_but_those_of_translation_has_a_case():
    names = {path.name for path in reference_files()}
    kept = {path.name for path in (ROOT / "tests" / "golden").glob("*.npz")}
    assert names >= {name for name in kept if not name.startswith("translation_")}
    assert all(any(name.startswith(prefix) for name in names) for prefix in CASES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("path", reference_files(), ids=lambda path: path.stem)
def test_reference_vectors_hold_on_a_gpu(path):
    assert_all_agree(compare(path, "cuda"))


def test_reference_vectors_are_compared_without_pytest():
    code = (
        "import sys\nsys.modules['pytest'] = None\nimport tests.golden_cases as cases\n"
        "cases.reference_files = lambda: cases.golden_files('ops.npz')\nsys.argv = ['golden_cases']\ncases.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    errors = json.loads(done.stdout)["ops"]
    assert len(errors) > 20 and all(error <= 1 for error in errors.values())


def test_arrays_that_disagree_are_faults_with_their_names(monkeypatch, place):
    line = json.dumps({"generator_a": {"ws": 0.1, "img": 12.5}, "ops": {"0": 0.2}})
    monkeypatch.setattr(tested, "run", lambda *args, **kwargs: (0, f"noise\n{line}\n"))
    found = tested.compare_golden(place)
    assert found.faults == ["generator_a: img is 12.5 times what is allowed"]
    assert found.figure == "3 arrays of 2 files; the worst at 12.50 of what is allowed"


# Tests and compute-sanitizer.


def test_an_installation_without_tests_skips_what_needs_them(monkeypatch, place):
    monkeypatch.setattr(tested, "repository", lambda: None)
    with pytest.raises(StepSkipped, match="installed without its tests"):
        tested.run_tests(place, seconds=60)
    with pytest.raises(StepSkipped, match="installed without its tests"):
        tested.compare_golden(place)


def test_without_pytest_the_tests_are_skipped(monkeypatch, place):
    monkeypatch.setattr(tested, "_has_pytest", lambda: False)
    with pytest.raises(StepSkipped, match="pip install pytest"):
        tested.run_tests(place, seconds=60)


def test_the_tests_are_counted_from_pytests_report(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert 1 == 2\n"
        "@pytest.fixture\ndef broken(): raise OSError('gone')\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.skip(reason='one GPU')\ndef test_two_gpus(): pass\n"
    )
    report = tmp_path / "report.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "test_some.py"]
    subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True)
    found = tested._read_report(report)
    assert found.figure == "1 passed, 2 failed, 1 skipped"
    assert found.faults == ["failed: test_some::test_wrong, test_some::test_error"]
    assert found.details["skipped"] == {"test_some::test_two_gpus": "one GPU"}
    assert "assert 1 == 2" in found.details["failed"]["test_some::test_wrong"]


def test_no_test_begins_when_the_time_is_up_and_the_others_are_reported(monkeypatch, place, tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    head = "import time\nimport pytest\npytestmark = pytest.mark.gpu\n"
    (tests / "test_slow.py").write_text(f"{head}def test_a(): time.sleep(1)\ndef test_b(): assert False\n")
    (tests / "test_cpu.py").write_text("import a_package_that_is_not_here\n")
    monkeypatch.setattr(tested, "repository", lambda: tmp_path)
    found = tested.run_tests(place, seconds=0.5)
    assert found.figure == "1 passed, 0 failed, 0 skipped"
    assert found.faults == ["the other tests were left out after 0 s"]
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    found = tested.run_tests(place, seconds=60)
    assert found.figure == "1 passed, 1 failed, 0 skipped" and found.faults == ["failed: test_slow::test_b"]


def test_tests_take_the_operations_that_are_built(native_ops, place):
    command = tested._pytest(place)
    built = cache_folder("ops").parent
    assert (place.folder / "pytest" / "d" / "ggdr").resolve() == built.resolve()
    words = [*command, "-k", "test_gpu_or_not_here", "--co", tested.KERNEL_TESTS]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **tested._environment(ROOT, 60)}, capture_output=True)
    assert done.returncode == 5  # none of that name; the plugin was found
    assert b"error" not in done.stdout.lower()


@pytest.mark.parametrize(
    ("code", "line", "faults"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", []),
        (2, "3 passed\n!!!! the time is up !!!!\n========= ERROR SUMMARY: 0 errors", []),
        (9, "========= ERROR SUMMARY: 3 errors", ["compute-sanitizer: ERROR SUMMARY: 3 errors"]),
        (1, "========= ERROR SUMMARY: 0 errors", ["tests of the kernels ended with exit code 1"]),
        (0, "nothing", ["compute-sanitizer: no summary"]),
    ],
)
def test_what_compute_sanitizer_finds_is_a_fault(monkeypatch, place, code, line, faults):
    ran = []

    def run(command, **kwargs):
        ran.append((command, kwargs["env"]))
        return code, f"output\n{line}\n"

    monkeypatch.setattr(tested, "_find_sanitizer", lambda: "/cuda/bin/compute-sanitizer")
    monkeypatch.setattr(tested, "output_of", lambda command: "--kernel-regex arg")
    monkeypatch.setattr(tested, "run", run)
    found = tested.sanitize(place, tool="racecheck", seconds=60)
    assert list(found.faults) == faults
    command, env = ran[0]
    assert command[:3] == ["/cuda/bin/compute-sanitizer", "--tool", "racecheck"]
    assert "kns=ggdr" in command and tested.KERNEL_TESTS in command
    assert env["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


def test_without_compute_sanitizer_its_steps_are_skipped(monkeypatch, place):
    monkeypatch.setattr(tested, "_find_sanitizer", lambda: None)
    with pytest.raises(StepSkipped, match="comes with the CUDA toolkit"):
        tested.sanitize(place, tool="memcheck", seconds=60)


def test_kernels_have_the_name_by_which_they_are_told_from_pytorchs():
    sources = list((ROOT / "torch_utils" / "ops").glob("*.cu"))
    assert sources
    for path in sources:
        text = path.read_text()
        assert text.index(f"namespace {tested.OWN_KERNELS} {{") < text.index("__global__"), path.name
