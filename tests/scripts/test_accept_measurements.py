# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What steps of `ggdr accept` conclude from runs, times, memory and metrics, as far as it can be told without a GPU."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ggdr.scripts.accepting import commands, roofline, small_runs, speed, training, use, waits
from ggdr.scripts.accepting.step import Place, StepFailed, StepSkipped
from ggdr.torch_utils.runlog import STATS_FILE
from tests.conftest import ROOT
from tests.tiny import save_tiny, tiny_generator

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
    (of_phase,) = (name for name in found.details["waits"] if name.startswith("D scripts/test_accept_measurements.py:"))
    assert found.details["waits"][of_phase] == waits.ITERATIONS and len(found.details["waits"]) == 2
    (fault,) = found.faults
    where = "scripts/test_accept_measurements.py:"
    assert fault.startswith(f"D waits for the GPU 4 times in 4 iterations, expected 0: {where}")


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
