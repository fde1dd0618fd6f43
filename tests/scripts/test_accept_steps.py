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
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ggdr.scripts.accepting import commands, installation, roofline, small_runs, speed, tested, training, use, waits
from ggdr.scripts.accepting.child import run_request
from ggdr.scripts.accepting.step import Place, StepFailed, StepSkipped
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.ops.self_check import SelfCheck
from ggdr.torch_utils.runlog import STATS_FILE
from tests.conftest import ROOT
from tests.golden_cases import CASES, compare, reference_files
from tests.reference_vectors import assert_all_agree
from tests.tiny import save_tiny, tiny_generator


@pytest.fixture
def place(tmp_path):
    for name in ("step", "shared"):
        (tmp_path / name).mkdir()
    return Place("cuda", tmp_path / "step", tmp_path / "shared")


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


# Training.


def saved(folder, w_avg, name="network-snapshot-000001.safetensors"):
    folder.mkdir()
    G = tiny_generator()
    G.mapping.w_avg.fill_(w_avg)
    save_tiny(folder / name, G)
    return folder


def test_runs_are_compared_to_the_bit(tmp_path):
    a, same, other = (saved(tmp_path / name, w) for name, w in (("a", 1.0), ("same", 1.0), ("other", 1.25)))
    assert small_runs.largest_difference(a, same) == 0
    assert small_runs.largest_difference(a, other) == pytest.approx(0.2)
    longer = saved(tmp_path / "longer", 1.0, "network-snapshot-000002.safetensors")
    with pytest.raises(StepFailed, match="end with network-snapshot-000001"):
        small_runs.largest_difference(a, longer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StepFailed, match="wrote no snapshot"):
        small_runs.largest_difference(a, tmp_path / "empty")


def test_runs_that_differ_are_faults_of_their_augmentation(monkeypatch, place):
    def write(command):
        outdir = Path(command[command.index("--outdir") + 1])
        saved(outdir, 2.0 if outdir.name == "bgc1" else 1.0)
        assert "--deterministic" in command
        return SimpleNamespace(finish=lambda: (0, ""))

    monkeypatch.setattr(training, "start", write)
    monkeypatch.setattr(small_runs, "digits", lambda place: "digits.zip")
    found = training.train_twice(place)
    assert found.faults == ["--deterministic --augpipe bgc: two runs are 5.0e-01 apart"]
    assert found.figure == "color equal, bgc 5.0e-01 apart"


def test_a_run_that_ends_before_its_signal_is_told(tmp_path):
    command = [sys.executable, "-c", "print('done')"]
    with pytest.raises(StepFailed, match="got SIGTERM ended with exit code 0, expected 130"):
        training._disturb(command, tmp_path, training.signal.SIGTERM, 130)


def test_a_run_is_killed_once_it_has_saved_a_new_state(tmp_path):
    (tmp_path / "training-state.pt").touch()
    code = (
        "import os, pathlib, time\n"
        "time.sleep(0.3)\n"
        "pathlib.Path('before').touch()\n"
        "os.utime('training-state.pt', (1, 1))\n"
        "time.sleep(60)\n"
        "pathlib.Path('after').touch()\n"
    )
    script = f"import os; os.chdir({str(tmp_path)!r})\n{code}"
    training._disturb([sys.executable, "-c", script], tmp_path, training.signal.SIGKILL, -9)
    assert (tmp_path / "before").exists() and not (tmp_path / "after").exists()


@pytest.mark.parametrize(("change", "is_allowed"), [(0.001, True), (0.01, False), (math.nan, False)])
def test_logged_values_of_several_processes_may_differ_by_rounding(change, is_allowed):
    one = [{"nimg": 8, "loss/G": 1.0, "time/sec_per_kimg": 1.0}]
    several = [{"nimg": 8, "loss/G": 1.0 + change, "time/sec_per_kimg": 9.0}]
    assert (training._worst_value(one, several) <= 1) == is_allowed


def test_one_gpu_has_nothing_to_reduce(monkeypatch, place):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(StepSkipped, match="one GPU"):
        training.train_on_all(place)


@pytest.mark.slow
def test_a_run_on_this_cpu_that_is_killed_gives_the_same_weights(tmp_path):
    place = Place("cpu", tmp_path, tmp_path)
    found = training.resume_disturbed(place, precision="fp32")
    assert not found.faults and found.details["difference"] == 0
    assert (tmp_path / "disturbed" / STATS_FILE).read_text().count("\n") == training.SNAPSHOTS


# Waiting for the GPU.


class FakeTimer:
    """Iterations of two phases; the second warns of a wait, and so does the end of some."""

    def __init__(self, waits_at_end):
        self.batches, self.runner, self.waits_at_end = iter(range(100)), self, waits_at_end
        self.step = 0

    def iteration(self, batch, at, *, due, done):
        assert due(None, 1)
        done("G")
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("of something else", stacklevel=1)
        done("D")
        self.step += 1
        if self.step in self.waits_at_end:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)


def test_waits_are_told_by_piece_and_line():
    modes = []
    found = waits.judge(waits.watch(FakeTimer(waits_at_end=[4]), modes.append))
    assert modes == ["warn", "default"]
    (of_phase,) = (name for name in found.details["waits"] if name.startswith("D scripts/test_accept_steps.py:"))
    assert found.details["waits"][of_phase] == waits.ITERATIONS and len(found.details["waits"]) == 2
    (fault,) = found.faults
    assert fault.startswith("D waits for the GPU 4 times in 4 iterations, expected 0: scripts/test_accept_steps.py:")


def test_whole_iterations_of_training_are_watched(monkeypatch, tmp_path):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    found = waits.find_waits(Place("cpu", tmp_path, tmp_path))
    assert found.figure == "0 waits in 4 iterations with all phases" and not found.faults
    assert modes == ["warn", "default"]


def test_the_look_of_ada_may_wait_and_no_other_one():
    where = ("step_end", "augment/ada.py:90")
    assert not waits.judge(waits.Counter({where: 1})).faults
    assert waits.judge(waits.Counter({where: 2})).faults
    assert waits.judge(waits.Counter({("data", "data/loader.py:1"): 1})).faults


# Speed and memory.


def write_counts(place, preset, **counts):
    """What the step that counts leaves for those that measure."""
    content = {"gpu": "H200 SXM", "is_this_card": True, "presets": {preset: counts}}
    (place.shared / speed.COUNTS_FILE).write_text(json.dumps(content))


@pytest.fixture
def table(monkeypatch):
    """The outcome of `ggdr bench train --table`."""
    rest = {**dict.fromkeys((*speed.KEPT, *speed.SETTINGS)), "ops": "native"}
    variants = [{**rest, "sec_per_kimg": x} for x in (4.0, 5.0, 6.0, 8.0)]
    line = json.dumps({"variants": variants, "ggdr_cost": {"ada": 8 / 6}})
    monkeypatch.setattr(speed, "output_of_ggdr", lambda *words: f"text\n{line}\n")


def test_measured_times_are_set_against_the_count_for_the_card(table, place):
    noaug = {"sec_per_kimg": 2.0, "sec_per_kimg_roofline": 1.0, "ggdr_share": 0.25}
    write_counts(place, "auto 256", noaug=noaug, ada={**noaug, "sec_per_kimg": 4.0})
    found = speed.time_preset(place, cfg="auto", resolution=256)
    counted = {name: x["counted"] for name, x in found.details["variants"].items()}
    assert counted == {"plain": 1.5, "ggdr": 2.0, "ada": 3.0, "ggdr_ada": 4.0}
    measured = "8 s/kimg with GGDR and ADA; GGDR costs +33.3%"
    assert found.figure == f"{measured}; 2.00 times what is counted for H200 SXM"


def test_times_stand_alone_where_nothing_was_counted(table, place):
    found = speed.time_preset(place, cfg="auto", resolution=256)
    assert found.figure == "8 s/kimg with GGDR and ADA; GGDR costs +33.3%" and not found.faults
    assert [x["sec_per_kimg"] for x in found.details["variants"].values()] == [4.0, 5.0, 6.0, 8.0]


def test_presets_are_counted_with_and_without_augmentation_as_many_at_once_as_there_are_processors(monkeypatch, place):
    started, ended = [], []

    def start(command):
        started.append(command)
        assert len(started) - len(ended) <= 3
        seconds = {"ada": 2.0, "noaug": 1.0}[command[command.index("--aug") + 1]]
        line = json.dumps({**dict.fromkeys(speed.COUNTED, 0.0), "sec_per_kimg": seconds})

        def finish():
            ended.append(command)
            return 0, f"{line}\n"

        return SimpleNamespace(finish=finish)

    monkeypatch.setattr(speed, "start", start)
    monkeypatch.setattr(speed, "cpu_count", lambda: 3)
    monkeypatch.setattr(speed, "this_gpu", lambda: ("h200", True))
    found = speed.count_presets(place, presets=[("auto", 256), ("cifar", 32)])
    assert found.figure == "2 s/kimg for auto 256 on H200 SXM" and len(started) == 4
    counted = {
        name: {aug: x["sec_per_kimg"] for aug, x in both.items()} for name, both in found.details["presets"].items()
    }
    assert counted == dict.fromkeys(("auto 256", "cifar 32"), {"ada": 2.0, "noaug": 1.0})
    assert all(command[command.index("--trace") + 1] == "h200" for command in started)
    assert json.loads((place.shared / speed.COUNTS_FILE).read_text()) == found.details


@pytest.mark.parametrize(("gib", "is_right"), [(2.0, True), (3.9, True), (4.1, False), (1.7, False)])
def test_memory_far_from_the_count_is_a_fault(monkeypatch, place, gib, is_right):
    measured = json.dumps({"peak_memory_mib": gib * 1024})
    monkeypatch.setattr(speed, "output_of_ggdr", lambda *words: measured)
    assert speed.measure_memory(place, presets=[("cifar", 32)]).figure == f"cifar 32: {gib:.1f} GiB"
    write_counts(place, "cifar 32", ada={"peak_memory_gib": 2.0})
    found = speed.measure_memory(place, presets=[("cifar", 32)])
    assert (not found.faults) == is_right and found.figure == f"cifar 32: {gib:.1f} GiB, counted 2.0"


@pytest.mark.parametrize(("name", "key"), [("NVIDIA H200", ("h200", True)), ("NVIDIA H100 PCIe", ("h100", False))])
def test_an_unknown_card_is_compared_with_a_stand_in(monkeypatch, name, key):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert roofline.this_gpu() == key


# Use.


def test_metrics_that_are_missing_or_no_numbers_are_faults(monkeypatch, place):
    line = {"metric": "fd_offline5k_full", "results": {"fd_offline5k_full": math.nan}, "seconds": 1.0}
    monkeypatch.setattr(use, "trained_run", lambda place: "run")
    monkeypatch.setattr(use, "digits", lambda place: "digits.zip")
    monkeypatch.setattr(use, "find_lite", lambda: "weights")
    monkeypatch.setattr(use, "has_inception", lambda: False)
    monkeypatch.setattr(use, "output_of_ggdr", lambda *words: json.dumps(line))
    assert use.measure_metrics(place).faults == ["fd_lite5k_full was not measured", "fd_offline5k_full is nan"]


# Programs.


def test_a_program_that_fails_is_told_with_its_last_line():
    with pytest.raises(StepFailed, match="ggdr train ended with exit code 2: Error: "):
        commands.output_of_ggdr("train", "--nonsense")


def test_the_repository_is_known_by_its_tests(monkeypatch, tmp_path):
    assert commands.repository() == ROOT
    monkeypatch.setattr(commands.ggdr, "__file__", str(tmp_path / "site-packages" / "ggdr" / "__init__.py"))
    assert commands.repository() is None
