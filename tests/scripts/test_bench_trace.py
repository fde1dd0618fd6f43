# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench train --trace`: what it counts and says."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from ggdr.scripts import train
from ggdr.scripts.bench import main
from ggdr.scripts.benches.step_timing import resolve_settings
from ggdr.scripts.training import launch
from ggdr.scripts.training.gpu_needs import trace_settings
from ggdr.scripts.training.hosts import HOSTS
from ggdr.torch_utils.data.loader import ImageDataset
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import PhaseRunner, StatsSum
from ggdr.torch_utils.ops import set_ops
from ggdr.torch_utils.timing.flops import count_flops
from tests.conftest import needs_cxx

TINY = ["--cfg", "auto", "--channel-base", "64", "--channel-max", "8", "--batch", "8", "--resolution", "16"]


@pytest.fixture(autouse=True)
def _ops_as_they_were():
    yield
    set_ops(None)


def bench(*args, code=0) -> str:
    result = CliRunner().invoke(main, ["train", *args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


@pytest.fixture(scope="module")
def said() -> tuple[list[str], dict]:
    """Lines for people, and the JSON."""
    *lines, last = bench(*TINY, "--trace", "H100", "--json").splitlines()
    return lines, json.loads(last)


def test_all_pieces_of_an_iteration_are_shown(said):
    lines, report = said
    names = ["G", "G_pl", "D", "D_r1", "optimizer", "step_end"]
    assert list(report["by_piece"]) == names
    table = lines[5 : 5 + len(names) + 2]
    assert [line[:16].strip() for line in table] == [*names[:3], "D without GGDR", *names[3:], "iteration, mean"]
    assert [report["by_piece"][name]["every"] for name in names] == [1, 4, 1, 16, 1, 1]
    assert report["gpu"] == "H100 SXM" and report["precision"] == "fp16"


def test_a_card_is_not_said_to_multiply_in_what_it_lacks():
    output = bench(*TINY, "--trace", "v100")
    assert "TFLOP/s in fp32" in output and "tf32" not in output


def test_lazy_phases_count_for_their_share(said):
    _, report = said
    for key in ("kernels", "gb", "roofline_ms", "launch_ms", "host_ops", "python_functions"):
        expected = sum(piece[key] / piece["every"] for piece in report["by_piece"].values())
        assert report["iteration"][key] == pytest.approx(expected)
    milliseconds = report["iteration"]["roofline_ms"] + report["iteration"]["launch_ms"]
    assert report["sec_per_kimg"] == pytest.approx(milliseconds / report["batch"])
    parts = report["sec_per_kimg_roofline"] + report["sec_per_kimg_launches"]
    assert report["sec_per_kimg"] == pytest.approx(parts)


@needs_cxx
def test_the_default_preset_asks_for_about_1500_operations_and_kernels_an_iteration_and_5_percent_for_ggdr():
    *_, last = bench("--cfg", "auto", "--resolution", "256", "--trace", "h100", "--json").splitlines()
    report = json.loads(last)
    iteration = report["iteration"]
    assert iteration["host_ops"] < 1500 and iteration["kernels"] < 1550 and iteration["python_functions"] < 6
    assert report["ggdr_share"] < 0.05


@needs_cxx
def test_operations_add_up_to_the_iteration(said):
    _, report = said
    for key in ("kernels", "gb", "roofline_ms", "launch_ms"):
        assert sum(x[key] for x in report["operations"].values()) == pytest.approx(report["iteration"][key])
    assert {"convolution", "ggdr::bias_act", "ggdr::upfirdn2d", "_fused_adam_"} <= report["operations"].keys()


def test_ggdr_adds_kernels_arithmetic_and_time_to_d(said):
    _, report = said
    with_ggdr, without = report["by_piece"]["D"], report["without_ggdr"]
    for key in ("kernels", "gb", "roofline_ms", "host_ops"):
        assert with_ggdr[key] > without[key] > 0
    assert sum(with_ggdr["tflop"].values()) > sum(without["tflop"].values())
    assert 0 < report["ggdr_share"] < 1


def test_without_ggdr_nothing_is_compared():
    report = json.loads(
        bench(*TINY, "--cfg", "demo", "--no-ggdr", "--aug", "noaug", "--trace", "t4", "--json").splitlines()[-1]
    )
    assert (report["without_ggdr"], report["ggdr_share"], report["ggdr_res"]) == (None, 0, None)
    assert list(report["by_piece"]) == ["G", "D", "D_r1", "optimizer", "step_end"]


def test_memory_adds_up(said):
    lines, report = said
    assert sum(report["memory_gib"].values()) == pytest.approx(report["peak_memory_gib"])
    assert all(gib > 0 for gib in report["memory_gib"].values())
    assert any(line.startswith("needs about ") for line in lines)


def test_the_trace_asks_for_the_arithmetic_of_the_real_step(dataset_zip):
    command = main.commands["train"].make_context("train", []).params
    # Without second derivatives, whose products are other ones on a CPU.
    sizes = {"cfg": "demo", "gamma": 0, "channel_base": 64, "channel_max": 8, "batch": 8, "precision": "fp32"}
    dataset, group = ImageDataset(dataset_zip), ProcessGroup()
    options = resolve_settings({**command, **sizes, "aug": "noaug"}, dataset, group)
    task = HOSTS[options.host].build(options, dataset, group)
    runner = PhaseRunner(task, options.loop, group, StatsSum(group.device))
    batch = {"img": torch.randn([8, 3, 16, 16]), "c": torch.zeros([8, 0])}
    for phase in task.phases:
        runner.run(phase, batch, 0)  # the first time it makes the decoder's matrices, too
    expected = {phase.name: count_flops(lambda phase=phase: runner.run(phase, batch, 0)) for phase in task.phases}
    traced = {x.name: sum(o.flops for o in x.piece.operations) for x in trace_settings(options, dataset).pieces}
    assert {name: traced[name] for name in ("G", "D")} == expected


def test_an_unknown_gpu_is_answered_with_the_nearest_and_all():
    message = bench(*TINY, "--trace", "H 10", code=2)
    assert "'H 10' is none of h100, h200, a100, v100, rtx4090, rtx3090, t4, l4; did you mean 'h100'?" in message


@pytest.mark.parametrize("option", [["--device", "cpu"], ["--threads", "2"], ["--iterations", "9"], ["--table"]])
def test_options_for_timing_are_refused(option):
    assert f"'{option[0]}'" in bench(*TINY, "--trace", "h100", *option, code=2)


def test_settings_that_cannot_be_trained_are_refused():
    assert "'--ggdr-res'" in bench(*TINY, "--trace", "h100", "--ggdr-res", "64", code=2)


# ggdr train --dry-run.


class AbsentGpus(ProcessGroup):
    """The first of two processes with GPUs that are not there."""

    def __init__(self) -> None:
        super().__init__(world=2, device=torch.device("cuda"))

    def agrees(self, text: str) -> bool:
        return True

    def leave(self, exit_code: int = 0) -> None:
        pass


def test_a_dry_run_for_gpus_says_what_memory_each_needs_beside_the_json(dataset_zip, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "join_processes", lambda *args: AbsentGpus())
    args = ["--data", str(dataset_zip), "--outdir", str(tmp_path / "run"), *TINY[:-2], "--cfg", "demo", "--dry-run"]
    result = CliRunner().invoke(train.main, args, catch_exceptions=False)
    assert json.loads(result.stdout)["precision"] == "fp16"
    note, line = result.stderr.splitlines()
    assert note.startswith("preset demo is for images of 32x32")
    assert line.startswith("needs about 0.0 GiB on each GPU")
    assert not (tmp_path / "run").exists()
