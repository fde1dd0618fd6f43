# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr train` decides and says on GPUs, as far as it can be told without one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ggdr.scripts import train as train_command
from ggdr.scripts.errors import CliError
from ggdr.scripts.training import train as call
from ggdr.scripts.training.determinism import deterministic_arithmetic
from ggdr.scripts.training.fit_memory import largest_that_fits
from ggdr.scripts.training.gpu_needs import trace_settings
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.run import tune_process
from ggdr.torch_utils.checkpoint import load_state, save_state
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import PhaseRunner
from tests.conftest import TINY_RUN
from tests.scripts.test_train import assert_same_weights, ggdr_train, train
from tests.scripts.test_train_call import TINY

CUDA = torch.device("cuda", 0)


def prepare(data, *args, capability, monkeypatch):
    """The settings and notes of a run on a GPU of this compute capability."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    words = ["--data", str(data), "--outdir", "run", *TINY_RUN, *map(str, args)]
    command = train_command.main.make_context("train", words).params
    return HOSTS["stylegan2"].prepare(command, Origin(), ProcessGroup(device=CUDA))


@pytest.mark.parametrize(("capability", "is_slow"), [((7, 5), True), ((8, 0), False), ((10, 0), False)])
def test_bfloat16_on_a_gpu_without_it_is_said_to_be_slow(dataset_zip, monkeypatch, capability, is_slow):
    prepared = prepare(dataset_zip, "--precision", "bf16", capability=capability, monkeypatch=monkeypatch)
    text = "Tesla T4 has no bfloat16 (compute capability 7.5, expected 8.0) and is slow at it: use --precision fp16"
    assert (text in prepared.notes) == is_slow
    assert prepared.settings.precision == "bf16"


def test_the_default_on_a_gpu_without_bfloat16_is_float16(dataset_zip, monkeypatch):
    prepared = prepare(dataset_zip, capability=(7, 0), monkeypatch=monkeypatch)
    assert prepared.settings.precision == "fp16" and not any("bfloat16" in note for note in prepared.notes)


# Memory.


def test_a_gpu_that_is_full_ends_the_run_with_what_to_change_and_how_to_go_on(dataset_zip, tmp_path, monkeypatch):
    run, iteration = tmp_path / "run", PhaseRunner.iteration

    def full(self, batch, at):
        if at.nimg == 40 and self.config.batch_gpu == 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity")
        return iteration(self, batch, at)

    monkeypatch.setattr(PhaseRunner, "iteration", full)
    output = " ".join(train(dataset_zip, run, "--snap", 1, code=2).split())
    state = run / "training-state.pt"
    assert f"Error: not enough GPU memory for 2.50 GiB more; the last good state is {state}; go on from it" in output
    assert "--resume latest. What takes less: --batch-gpu 4 in place of 8 (same result but for rounding); " in output
    assert load_state(state)["counters"]["nimg"] == 32
    assert "done" in ggdr_train("--outdir", run, "--resume", "latest", "--batch-gpu", 4)


@pytest.mark.parametrize(
    ("batch_gpu", "group", "advice"),
    [
        (64, 8, "--batch-gpu 32 in place of 64 (same result but for rounding); "),
        (12, 4, "--batch-gpu 4 in place of 12 (same result but for rounding); "),
        (4, 4, "--batch-gpu 2 in place of 4 (smaller groups of minibatch-std); "),
        (1, 1, ""),
    ],
)
def test_a_full_gpu_is_given_the_next_smaller_forward_that_the_groups_allow(batch_gpu, group, advice):
    settings = SimpleNamespace(
        precision="fp16", loop=SimpleNamespace(batch_gpu=batch_gpu), D=SimpleNamespace(mbstd_group_size=group)
    )
    text = HOSTS["stylegan2"].memory_advice(settings)
    assert text == f"{advice}a new run with a smaller --channel-base, or of images of a lower resolution"
    settings.precision = "fp32"
    assert "--precision fp16" in HOSTS["stylegan2"].memory_advice(settings)


def forward_of_at_most(num, monkeypatch):
    """Makes phases fail that take more images in a forward; returns what they were tried with, from now on."""
    run, tried = PhaseRunner.run, []

    def limited(self, phase, batch, nimg):
        tried.append((self.config.batch_gpu, phase.name, len(batch["img"]), self.task.augment.p))
        if self.config.batch_gpu > num:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(self, phase, batch, nimg)

    monkeypatch.setattr(PhaseRunner, "run", limited)
    return tried


def test_auto_takes_the_largest_forward_that_fits(dataset_zip, monkeypatch):
    prepared = prepare(dataset_zip, "--batch", 16, "--gamma", 1, capability=(8, 0), monkeypatch=monkeypatch)
    settings = replace(prepared.settings, precision="fp32")
    tried = forward_of_at_most(4, monkeypatch)
    found = largest_that_fits(HOSTS["stylegan2"], settings, prepared.data, ProcessGroup())
    assert found == replace(settings, loop=replace(settings.loop, batch_gpu=4))
    # One phase of those that fail; of the last one all, twice, as they will be at the strongest augmentation.
    assert tried[:2] == [(16, "G", 16, 1.0), (8, "G", 16, 1.0)]
    assert tried[2:] == [(4, name, 16, 1.0) for name in ("G", "D", "D_r1")] * 2


def test_auto_says_where_not_even_a_group_of_minibatch_std_fits(dataset_zip, monkeypatch):
    prepared = prepare(dataset_zip, "--batch", 16, capability=(8, 0), monkeypatch=monkeypatch)
    settings = replace(prepared.settings, precision="fp32")
    tried = forward_of_at_most(0, monkeypatch)
    with pytest.raises(CliError) as error:
        largest_that_fits(HOSTS["stylegan2"], settings, prepared.data, ProcessGroup())
    assert error.value.message.startswith(
        "--batch-gpu: not even 4 images in a forward fit the GPU's memory. What takes"
    )
    assert "--batch-gpu 2 in place of 4 (smaller groups of minibatch-std)" in error.value.message
    assert [batch_gpu for batch_gpu, *_ in tried] == [16, 8, 4]


def test_what_auto_found_is_kept_by_the_run(dataset_zip, tmp_path, monkeypatch):
    def four(host, settings, data, group):
        return replace(settings, loop=replace(settings.loop, batch_gpu=4))

    with monkeypatch.context() as patch:
        patch.setattr("ggdr.scripts.training.run.fitting_settings", four)
        output = train(dataset_zip, tmp_path / "auto", "--batch-gpu", "auto", kimg=0.016)
    assert "--batch-gpu auto: 4 images in a forward" in output
    options = json.loads((tmp_path / "auto" / "training_options.json").read_text())
    assert options["loop"]["batch_gpu"] == options["command"]["batch_gpu"] == 4
    output = ggdr_train("--outdir", tmp_path / "auto", "--resume", "latest", "--kimg", 0.032)
    assert "batch-gpu" not in output
    train(dataset_zip, tmp_path / "four", "--batch-gpu", 4, kimg=0.032)
    assert_same_weights(tmp_path / "auto", tmp_path / "four")


def test_auto_is_all_images_on_a_cpu(dataset_zip, tmp_path):
    assert call(data=dataset_zip, outdir=tmp_path, batch_gpu="auto", kimg=0.008, tick=0.008, **TINY)
    options = json.loads((tmp_path / "training_options.json").read_text())
    assert options["loop"]["batch_gpu"] == options["command"]["batch_gpu"] == 8


# Repeating a run.


def settings_of_torch():
    cudnn = torch.backends.cudnn
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
        "fills": torch.utils.deterministic.fill_uninitialized_memory,
    }


def test_deterministic_arithmetic_is_that_of_the_run_alone(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = settings_of_torch()
    with pytest.raises(KeyError), deterministic_arithmetic(CUDA):
        tune_process(CUDA, "fp32")
        inside = {"algorithms": True, "warns": True, "cudnn": True, "benchmark": False, "fills": False}
        assert settings_of_torch() == inside and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert settings_of_torch() == before and not before["algorithms"]
    tune_process(CUDA, "fp32")
    assert torch.backends.cudnn.benchmark


def test_deterministic_arithmetic_changes_nothing_on_a_cpu():
    before = settings_of_torch()
    with deterministic_arithmetic(torch.device("cpu")):
        assert settings_of_torch() == before


# Operations of PyTorch on a GPU that add in no fixed order, and have no other version.
# Source: torch.use_deterministic_algorithms, of what could come up here.
UNORDERED = {
    *("adaptive_avg_pool2d_backward", "avg_pool2d_backward", "adaptive_max_pool2d_backward", "bincount", "cumsum"),
    *("grid_sampler_2d_backward", "max_pool2d_with_indices_backward", "put_", "reflection_pad2d_backward"),
    *("replication_pad2d_backward", "scatter_add", "scatter_add_", "scatter_reduce", "upsample_bilinear2d_backward"),
    *("upsample_bicubic2d_backward", "upsample_linear1d_backward", "_upsample_bilinear2d_aa_backward"),
}


@pytest.mark.parametrize("is_deterministic", [False, True])
def test_a_deterministic_iteration_on_a_gpu_adds_in_a_fixed_order(dataset_zip, monkeypatch, is_deterministic):
    args = ["--aug", "fixed", "--p", 0.5, "--augpipe", "bgcfnc"]
    prepared = prepare(dataset_zip, *args, capability=(8, 0), monkeypatch=monkeypatch)
    torch.use_deterministic_algorithms(is_deterministic, warn_only=True)
    try:
        trace = trace_settings(prepared.settings, prepared.data)
    finally:
        torch.use_deterministic_algorithms(False)
    called = {operation.name for piece in trace.pieces for operation in piece.piece.operations}
    assert {"convolution", "index_put_" if is_deterministic else "grid_sampler_2d_backward"} <= called
    assert bool(called & UNORDERED) != is_deterministic


def test_a_deterministic_run_on_a_cpu_is_the_run_without(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "plain", kimg=0.032)
    train(dataset_zip, tmp_path / "run", "--deterministic", kimg=0.016)
    assert json.loads((tmp_path / "run" / "training_options.json").read_text())["deterministic"] is True
    assert "settings that differ" not in ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.016)
    ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.032)
    assert load_state(tmp_path / "run" / "training-state.pt")["options"]["deterministic"] is True
    assert_same_weights(tmp_path / "plain", tmp_path / "run")


def test_a_run_of_before_the_option_goes_on_without_it(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path, kimg=0.016)
    options, state = tmp_path / "training_options.json", tmp_path / "training-state.pt"
    stored = json.loads(options.read_text())
    del stored["deterministic"], stored["command"]["deterministic"]
    options.write_text(json.dumps(stored))
    content = load_state(state)
    del content["options"]["deterministic"]
    save_state(state, content)
    output = ggdr_train("--outdir", tmp_path, "--resume", "latest", "--kimg", 0.032)
    assert "deterministic" not in output and "resuming" in output
