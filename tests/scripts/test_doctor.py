# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr doctor`, and the self-checks it runs."""

from __future__ import annotations

import json
import time

import pytest
import torch
from click.testing import CliRunner

from ggdr.scripts.diagnosis import examine
from ggdr.scripts.diagnosis.operations import check_mode_and_cache, check_operations
from ggdr.scripts.doctor import main
from ggdr.torch_utils.ops import build, self_check, toolchain
from ggdr.torch_utils.ops.build import BuildError, uses_native
from ggdr.torch_utils.ops.self_check import SelfCheck, run_self_check, self_checks
from tests.conftest import needs_cxx

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh_process_state(monkeypatch):
    monkeypatch.setattr(build, "_override", None)
    monkeypatch.setattr(build, "_decided", {})
    monkeypatch.delenv("GGDR_OPS", raising=False)


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A CPU library that is built and loaded, by word alone."""
    monkeypatch.setattr(build, "built_library", lambda device_type: tmp_path / "ops.so")
    monkeypatch.setattr(build, "load_library", lambda device_type: tmp_path / "ops.so")


def toy(native, reference=lambda x: 2 * x, name="toy", device_types=("cpu",)):
    """A check of an operation that computes one function where it is compiled, and another where it is not."""
    return SelfCheck(
        name,
        lambda x: native(x) if uses_native(x.device) else reference(x),
        lambda rng: [torch.randn(4, 4, generator=rng).requires_grad_()],
        device_types,
        1e-4,
    )


def doctor(monkeypatch, *args, checks=None):
    """Exit code, JSON and text for people."""
    if checks is not None:
        monkeypatch.setattr(self_check, "self_checks", lambda: checks)
    result = CliRunner().invoke(main, ["--device", "cpu", "--json", *args])
    text = CliRunner().invoke(main, ["--device", "cpu", *args], env={"COLUMNS": "200"})
    assert result.exit_code == text.exit_code
    return result.exit_code, json.loads(result.stdout), text.stdout


def raises(error):
    def function(x):
        raise error

    return function


# The self-check.


def test_equal_results_and_gradients_pass(library):
    result = run_self_check(toy(lambda x: x + x), CPU, repeats=1)
    assert result.error == 0 and result.speedup > 0


@pytest.mark.parametrize(
    "native",
    [
        lambda x: 2.01 * x,
        lambda x: 2 * x.detach() + (x - x.detach()),  # the result agrees, its gradient does not
        lambda x: 2 * x * torch.where(x > 1, torch.nan, 1),
        lambda x: 2 * x[None],
    ],
    ids=["result", "gradient", "NaN", "shape"],
)
def test_every_kind_of_difference_is_found(library, native):
    reference = lambda x: 2 * x.clamp(max=5)  # noqa: E731
    assert run_self_check(toy(native, reference), CPU, repeats=1).error > 1e-3


def test_the_speed_up_is_the_references_time_over_the_kernels(library):
    def slow(x):
        time.sleep(0.02)
        return 2 * x

    assert run_self_check(toy(lambda x: 2 * x, slow), CPU, repeats=3).speedup > 3


def test_the_mode_stays_as_it_was(library):
    build.set_ops("reference")
    run_self_check(toy(lambda x: 2 * x), CPU, repeats=1)
    assert build.ops_mode() == "reference"
    with pytest.raises(RuntimeError, match="broken"):
        run_self_check(toy(raises(RuntimeError("broken"))), CPU)
    assert build.ops_mode() == "reference"


# The checks.


def test_a_check_returns_what_it_found_and_what_is_wrong(monkeypatch, library, tmp_path):
    monkeypatch.setattr(self_check, "self_checks", lambda: [toy(lambda x: 3 * x, name="bad")])
    (operation,), (problem,) = check_operations(CPU, loaded=True)
    assert operation["state"] == "wrong" and problem.broken and problem.problem.startswith("bad on cpu")
    assert check_operations(CPU, loaded=False)[1] == []
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path))
    found, problems = check_mode_and_cache()
    assert found["mode"] == "auto" and found["cache_writable"] and problems == []


# The report.


@needs_cxx
def test_every_operation_works_on_this_machine():
    result = CliRunner().invoke(main, ["--device", "cpu", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["ok"], report["problems"]
    names = [operation["name"] for operation in report["operations"]]
    assert names == [check.name for check in self_checks() if "cpu" in check.device_types] != []
    for operation in report["operations"]:
        assert operation["state"] == "works" and operation["error"] <= operation["tolerance"], operation
    assert report["versions"]["torch"] == torch.__version__
    assert report["libraries"][0]["state"] in ("built", "built now")


def test_a_sound_installation_is_reported_as_such(monkeypatch, library):
    code, report, text = doctor(monkeypatch, checks=[toy(lambda x: 2 * x), toy(lambda x: x, device_types=("cuda",))])
    assert code == 0 and report["ok"] and not report["problems"]
    (operation,) = report["operations"]
    assert operation["state"] == "works" and operation["speedup"] > 0
    assert "toy" in text and "All that can work here works." in text and torch.__version__ in text


@pytest.mark.parametrize(
    ("native", "state", "message"),
    [
        (lambda x: 3 * x, "wrong", "off its reference"),
        (raises(RuntimeError("no kernel image\nat line 7")), "fails", "no kernel image"),
    ],
)
def test_a_broken_operation_is_named_and_ends_with_code_1(monkeypatch, library, native, state, message):
    code, report, text = doctor(monkeypatch, checks=[toy(lambda x: 2 * x, name="good"), toy(native, name="bad")])
    assert code == 1 and not report["ok"]
    assert {op["name"]: op["state"] for op in report["operations"]} == {"good": "works", "bad": state}
    (problem,) = report["problems"]
    assert problem["broken"] and "bad on cpu" in problem["problem"] and message in problem["problem"]
    assert "Broken: bad on cpu" in text and "GGDR_OPS=reference" in text and "All that" not in text


def test_a_missing_compiler_is_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    code, report, text = doctor(monkeypatch, checks=[toy(lambda x: 2 * x)])
    assert code == 0 and report["ok"] and report["tools"]["c++"] is None
    assert report["libraries"][0]["state"] == "missing tool" and report["operations"][0]["state"] == "not built"
    assert "Advice: CPU: no C++ compiler" in text and "apt install g++" in text


def test_a_failing_build_is_broken(monkeypatch):
    error = BuildError("cpu", "compiling failed", detail="x.cpp:1: error: [oh] no", remedy="read the log")
    monkeypatch.setattr(build, "built_library", lambda device_type: None)
    monkeypatch.setattr(build, "load_library", raises(error))
    code, report, text = doctor(monkeypatch, checks=[])
    assert code == 1 and report["libraries"][0]["state"] == "broken"
    assert "Broken: CPU: compiling failed: x.cpp:1: error: [oh] no" in text and "read the log" in text


def test_no_build_builds_nothing(monkeypatch):
    monkeypatch.setattr(build, "built_library", lambda device_type: None)
    monkeypatch.setattr(build, "load_library", lambda device_type: pytest.fail("built"))
    code, report, text = doctor(monkeypatch, "--no-build", checks=[toy(lambda x: 2 * x)])
    assert code == 0 and report["libraries"][0]["state"] == "not built" == report["operations"][0]["state"]
    assert "the first use builds it" in text


@pytest.mark.parametrize("built", [{"cuda"}, {"cpu"}, {"cuda", "cpu"}])
def test_operations_of_a_gpu_need_its_library_and_the_cpus(monkeypatch, tmp_path, built):
    """The meta device plays the GPU."""
    monkeypatch.setattr(examine, "libraries_of", lambda device_type: ("cuda", "cpu"))
    monkeypatch.setattr(build, "built_library", lambda name: tmp_path / "ops.so" if name in built else None)
    monkeypatch.setattr(build, "load_library", lambda name: tmp_path / "ops.so" if name in built else pytest.fail(name))
    monkeypatch.setattr(self_check, "self_checks", lambda: [toy(raises(RuntimeError("tried")), device_types=("meta",))])
    report = examine.examine([torch.device("meta")], build_missing=False)
    states = {library["device"]: library["state"] for library in report["libraries"]}
    assert states == {name: "built" if name in built else "not built" for name in ("cuda", "cpu")}
    assert report["operations"][0]["state"] == ("fails" if len(built) == 2 else "not built")


def test_an_unknown_mode_is_broken(monkeypatch, library):
    monkeypatch.setenv("GGDR_OPS", "fast")
    code, report, _ = doctor(monkeypatch, checks=[])
    assert code == 1 and report["ops"]["mode"] is None and "'fast'" in report["problems"][0]["problem"]


def test_a_cache_that_cannot_be_written_is_advice(monkeypatch, library, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "file"))
    code, report, text = doctor(monkeypatch, checks=[])
    assert code == 0 and not report["ops"]["cache_writable"]
    assert "Advice: the cache" in text and "set GGDR_CACHE to a folder that can be written to" in text


@pytest.mark.parametrize(("cuda", "message"), [(None, "this torch is for CPUs"), ("13.0", "torch sees no GPU")])
def test_a_gpu_that_torch_does_not_see_is_advice(monkeypatch, library, cuda, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    output_of = toolchain.output_of
    monkeypatch.setattr(toolchain, "output_of", lambda cmd: "580.1" if cmd[0] == "nvidia-smi" else output_of(cmd))
    code, report, text = doctor(monkeypatch, checks=[])
    assert code == 0 and report["versions"]["driver"] == "580.1" and message in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_a_wrong_argument():
    result = CliRunner().invoke(main, ["--device", "cuda"])
    assert result.exit_code == 2 and "no CUDA device" in result.output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_every_operation_works_on_this_gpu():
    result = CliRunner().invoke(main, ["--device", "cuda", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0, report["problems"]
    assert [op["name"] for op in report["operations"]] and all(op["state"] == "works" for op in report["operations"])
