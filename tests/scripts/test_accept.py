# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr accept`: whatever becomes of a step, the others run, and the file holds what was found."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ggdr.scripts.accepting import cards, steps
from ggdr.scripts.accepting.result_file import Results, read_results
from ggdr.scripts.accepting.runner import StepRunner
from ggdr.scripts.accepting.step import Step
from ggdr.scripts.accepting.steps import STEPS
from ggdr.scripts.cli import main
from tests.accept_steps import stub
from tests.conftest import ROOT, python

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


@pytest.fixture(autouse=True)
def _find_stubs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(tmp_path, *chosen, minutes=5.0, results=None, is_stopped=lambda: False):
    """Runs steps in `tmp_path`; what its file holds then, by step."""
    path = tmp_path / "accept.json"
    results = results or Results("cpu", ["a processor"])
    StepRunner(results, path, tmp_path / "work", minutes).run(chosen, is_stopped)
    return read_results(path).steps


def command(*args, code=0, stubs=None, monkeypatch=None):
    """`ggdr accept` in this process, with some steps in place of all; what it prints, in one line."""
    if stubs is not None:
        monkeypatch.setattr(steps, "STEPS", stubs)
    words = ["accept", "--device", "cpu", *map(str, args)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def calls(folder):
    """Names of the steps that noted a call, in their order."""
    path = folder / "shared" / "calls"
    return path.read_text().split() if path.exists() else []


def is_gone(pid):
    """Whether a process has ended, or waits only for somebody to ask how."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


# Ends of a step.


@pytest.mark.parametrize(
    ("function", "state", "reason", "figure"),
    [
        ("passes", "passed", "", "fine"),
        ("finds_faults", "failed", "the third is wrong; so is its sum", "2 of 3"),
        ("fails", "failed", "no report came", ""),
        ("raises", "failed", "RuntimeError: an illegal memory access", ""),
        ("skips", "skipped", "there is one GPU", ""),
        ("crashes", "failed", "its process was ended by SIGSEGV", ""),
        ("leaves", "failed", "its process ended with exit code 3", ""),
    ],
)
def test_however_a_step_ends_the_file_says_so_and_the_next_one_runs(tmp_path, function, state, reason, figure):
    found = run(tmp_path, stub(function, "first"), stub("passes", "next"))
    first = found["first"]
    assert (first["state"], first["reason"], first["figure"]) == (state, reason, figure)
    assert first["proves"] == f"that it {function}" and first["seconds"] > 0
    assert found["next"]["state"] == "passed" and list(found) == ["first", "next"]


def test_the_file_holds_details_and_the_last_lines_without_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(Path(), stub("passes"), stub("raises"))
    # JSON has no infinity; the step's own folder is empty at first, and named in full.
    assert found["passes"]["details"] == {"device": "cpu", "rate": "inf", "files": [], "is_absolute": True}
    assert found["passes"]["output"] == ["in ~/somewhere"]
    assert found["raises"]["output"][0] == "before the error" and "Traceback" in found["raises"]["output"][1]
    json.loads((tmp_path / "accept.json").read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))


def test_folders_of_steps_that_failed_are_kept_and_empty_when_they_start_again(tmp_path):
    run(tmp_path, stub("passes"), stub("fails"))
    assert (tmp_path / "work" / "fails").is_dir() and not (tmp_path / "work" / "passes").exists()
    (tmp_path / "work" / "passes").mkdir()
    (tmp_path / "work" / "passes" / "old").touch()
    assert run(tmp_path, stub("passes"))["passes"]["details"]["files"] == []


@linux
def test_a_step_that_hangs_is_killed_at_its_bound_with_all_its_processes(tmp_path):
    found = run(tmp_path, stub("hangs", bound=3.0), stub("passes"), results=Results("cuda", ["a card"]))
    assert found["hangs"]["state"] == "timed out" and found["hangs"]["reason"].startswith("killed after 3 s")
    assert found["hangs"]["output"] == ["waiting"] and 3 <= found["hangs"]["seconds"] < 30
    assert found["passes"]["state"] == "passed"
    wait_until(lambda: is_gone((tmp_path / "work" / "shared" / "child").read_text()))


# Time.


def test_a_step_that_takes_longer_than_is_left_is_skipped_and_a_shorter_one_runs(tmp_path):
    found = run(tmp_path, stub("passes", "long", expected=90.0), stub("passes", "short", expected=30.0), minutes=1.0)
    assert found["long"]["state"] == "skipped"
    assert found["long"]["reason"].startswith("takes about 90 s, and ")
    assert found["short"]["state"] == "passed" and calls(tmp_path / "work") == ["short"]


def test_what_is_left_of_the_time_bounds_a_step(tmp_path):
    found = run(tmp_path, stub("hangs", bound=500.0), stub("passes", expected=1.0), minutes=2 / 60)
    assert found["hangs"]["state"] == "timed out" and found["hangs"]["seconds"] < 30
    assert found["passes"]["state"] == "skipped"


def test_all_steps_fit_into_the_time_by_estimate_and_no_bound_is_below_it():
    assert sum(step.expected for step in STEPS) <= 25 * 60
    assert all(step.expected < step.bound for step in STEPS)


def test_bounds_are_longer_on_a_cpu(tmp_path):
    step = stub("hangs", bound=0.5)
    assert step.bound_on("cpu") > step.bound_on("cuda") == 0.5
    found = run(tmp_path, step)["hangs"]
    assert found["state"] == "timed out" and found["seconds"] >= step.bound_on("cpu")


def test_steps_are_ordered_by_what_is_worth_knowing_first():
    names = [step.name for step in STEPS]
    assert len(set(names)) == len(names)
    order = ["machine", "doctor", "kernels", "tests", "golden", "resume-fp32", "waits", "counted"]
    order += [
        "speed-auto256",
        "speed-auto1024",
        "memory",
        "processes",
        "metrics",
        "clusters",
        "twice",
        "memcheck",
        "racecheck",
    ]
    assert [name for name in names if name in order] == order
    assert {"resume-fp16", "resume-bf16", "speed-paper256", "speed-cifar", "peaks"} == set(names) - set(order)


def documented_steps():
    """Expected time and bound of the steps in the table of docs/gpu.md, by name."""
    found = {}
    for row in re.findall(
        r"^\| (`.*?) \| (\d+)(?: each)? \| (\d+) \|", (ROOT / "docs" / "gpu.md").read_text(), flags=re.M
    ):
        first, *more = re.findall(r"`([\w-]+)`", row[0])
        for name in more:
            found[first.partition("-")[0] + name if name.startswith("-") else name] = (int(row[1]), int(row[2]))
        found[first] = (int(row[1]), int(row[2]))
    return found


def test_the_page_has_all_steps_with_their_times():
    assert documented_steps() == {step.name: (step.expected, step.bound) for step in STEPS}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_functions_of_steps_are_there_and_take_their_arguments(step: Step):
    module, _, name = step.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    inspect.signature(function).bind("a place", **json.loads(json.dumps(step.arguments)))


def test_steps_for_gpus_are_skipped_on_a_cpu_with_the_reason(tmp_path):
    found = run(tmp_path, stub("passes", devices=("cuda",), needs="it counts kernels"))
    assert (found["passes"]["state"], found["passes"]["reason"]) == ("skipped", "it counts kernels")
    assert calls(tmp_path / "work") == []


# Going on.


@linux
def test_after_kill_9_the_file_is_whole_and_the_same_command_goes_on(tmp_path, monkeypatch):
    process = python("-c", f"from tests.accept_steps import start; start({str(tmp_path)!r})")
    child, work = tmp_path / "work" / "shared" / "child", tmp_path / "work"
    wait_until(lambda: child.exists() and child.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = read_results(tmp_path / "accept.json").steps
    assert [x["state"] for x in found.values()] == ["passed", "running"] and list(found) == ["passes", "hangs"]
    os.kill(int(child.read_text()), signal.SIGKILL)

    monkeypatch.setattr(cards, "cpu_name", lambda: "a processor")
    stubs = [stub("passes"), stub("passes", "hangs"), stub("passes", "after")]
    out = tmp_path / "accept.json"
    output = command("--out", out, "--steps", "passes", code=0, stubs=stubs, monkeypatch=monkeypatch)
    assert calls(work) == ["passes"] and "[1/" not in output
    found = run(tmp_path, *stubs, results=read_results(out))
    assert [x["state"] for x in found.values()] == ["passed"] * 3 and calls(work) == ["passes", "hangs", "after"]


def test_a_second_start_runs_what_has_not_passed_and_with_again_all(tmp_path, monkeypatch):
    out, work = tmp_path / "a.json", tmp_path / "a-work"
    stubs = [stub("passes", "one"), stub("fails", "two"), stub("passes", "three")]
    output = command("--out", out, code=1, stubs=stubs, monkeypatch=monkeypatch)
    assert "[2/3] two: failed" in output and calls(work) == ["one", "three"]
    stubs = [stub("passes", "one"), stub("passes", "two", arguments={"figure": "mended"}), stub("passes", "three")]
    output = command("--out", out, stubs=stubs, monkeypatch=monkeypatch)
    assert "[1/1] two: passed" in output and calls(work) == ["one", "three", "two"]
    command("--out", out, "--again", "--steps", "three", stubs=stubs, monkeypatch=monkeypatch)
    assert calls(work) == ["one", "three", "two", "three"]
    found = read_results(out).steps
    assert {name: x["figure"] for name, x in found.items()} == {"one": "fine", "two": "mended", "three": "fine"}


def test_a_signal_ends_the_step_and_is_not_held_against_it(tmp_path):
    calls_of = []

    def is_stopped():
        calls_of.append(1)
        return len(calls_of) > 3

    found = run(tmp_path, stub("hangs"), stub("passes"), is_stopped=is_stopped)
    assert found == {} and calls(tmp_path / "work") == []


@linux
def test_ctrl_c_exits_with_130_and_says_how_to_go_on(tmp_path):
    code = (
        "import sys\nfrom ggdr.scripts.accepting import steps\nfrom tests.accept_steps import stub\n"
        "steps.STEPS = (stub('passes'), stub('hangs'))\nfrom ggdr.scripts.cli import main\nmain()\n"
    )
    process = python("-c", code, "accept", "--device", "cpu", "--out", tmp_path / "a.json")
    child = tmp_path / "a-work" / "shared" / "child"
    wait_until(lambda: child.exists() and child.read_text())
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "stopped; the same command goes on" in output, output
    assert list(read_results(tmp_path / "a.json").steps) == ["passes"]
    wait_until(lambda: is_gone(child.read_text()))


# The command.


def test_the_table_tells_of_every_step_and_the_exit_code_of_the_worst(tmp_path, monkeypatch):
    stubs = [stub("passes"), stub("skips"), stub("passes", "long", expected=1e6)]
    output = command("--out", tmp_path / "a.json", stubs=stubs, monkeypatch=monkeypatch)
    table = output[output.index("step state time figure") :]
    assert "passes passed" in table and "fine" in table
    assert "skips skipped" in table and "there is one GPU" in table and "long skipped takes about" in table
    output = command("--out", tmp_path / "b.json", code=1, stubs=[*stubs, stub("crashes")], monkeypatch=monkeypatch)
    assert "crashes failed" in output and "SIGSEGV" in output


def test_a_dry_run_lists_steps_and_writes_nothing(tmp_path):
    out = tmp_path / "a.json"
    output = command("--out", out, "--dry-run", "--minutes", 10)
    assert all(f"{step.name} " in output for step in STEPS)
    assert "skipped on a CPU" in output and "10 are allowed" in output and not list(tmp_path.iterdir())


def test_a_dry_run_tells_what_has_passed(tmp_path, monkeypatch):
    stubs, out = [stub("passes"), stub("fails")], tmp_path / "a.json"
    command("--out", out, code=1, stubs=stubs, monkeypatch=monkeypatch)
    written = out.read_bytes()
    output = command("--out", out, "--dry-run")
    assert f"passes passed: {stubs[0].proves}" in output and "fails 0 s" in output
    assert "passes 0 s" in command("--out", out, "--dry-run", "--again")
    out.write_text("{")
    assert "not readable" in command("--out", out, "--dry-run", code=2)
    out.write_bytes(written)


def test_a_plan_for_a_cpu_speaks_of_cpus():
    output = command("--dry-run", "--steps", "resume-fp32,resume-fp16,resume-bf16")
    assert "skipped on a CPU: fp16 needs a GPU" in output and "fp32 needs" not in output and "bf16 needs" not in output
    assert "About 2 minutes, by an estimate for GPUs, and longer on a CPU" in output


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "x.json"
    assert f"cannot write to {out}: Not a directory" in command("--out", out, code=2)


def test_that_nothing_was_tried_is_said(tmp_path, monkeypatch):
    said = "nothing was tried: all steps were skipped"
    stubs = [stub("skips"), stub("passes", "long", expected=1e6)]
    assert said in command("--out", tmp_path / "a.json", stubs=stubs, monkeypatch=monkeypatch)
    assert said not in command("--out", tmp_path / "b.json", stubs=[*stubs, stub("passes")], monkeypatch=monkeypatch)


def test_unknown_names_of_steps_are_told_with_the_nearest_one():
    output = command("--steps", "machine,dokter", code=2)
    assert "'dokter' is none of machine, doctor," in output and "did you mean 'doctor'?" in output
    assert "expected names of steps, got ' , '" in command("--steps", " , ", code=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable"),
        ("[]", "not a file of `ggdr accept`"),
        ('{"format": "ggdr-accept-1", "device": "cpu"}', "but damaged"),
        (
            '{"format": "ggdr-accept-1", "device": "cuda", "cards": ["NVIDIA L4"], "about": {}, "steps": {}}',
            "is about cuda (NVIDIA L4), this is cpu (",
        ),
    ],
)
def test_a_file_of_something_else_is_kept(tmp_path, content, message):
    out = tmp_path / "a.json"
    out.write_text(content)
    output = command("--out", out, code=2)
    assert message in output and "give another file" in output and out.read_text() == content


def test_a_second_command_with_the_same_file_is_kept_out(tmp_path, monkeypatch):
    from ggdr.torch_utils.process_lock import process_lock

    (tmp_path / "a-work").mkdir()
    with process_lock(tmp_path / "a-work" / "lock", lambda holder: None) as is_held:
        if not is_held:
            pytest.skip("no locks on this file system")
        script = "import sys\nfrom ggdr.scripts.cli import main\nmain()\n"
        process = python("-c", script, "accept", "--device", "cpu", "--steps", "machine", "--out", tmp_path / "a.json")
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 2 and f"process {os.getpid()} on" in output, output


def test_gpus_are_named_by_the_driver(monkeypatch):
    listed = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1-2) GPU 1: NVIDIA L4 (UUID: GPU-3)"
    monkeypatch.setattr(cards, "output_of", lambda command: listed)
    assert cards.list_cards("cuda") == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    monkeypatch.setattr(cards, "output_of", lambda command: "")
    assert cards.list_cards("cuda") == ["unknown"]
