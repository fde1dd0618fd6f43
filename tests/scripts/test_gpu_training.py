# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr train` decides and says on GPUs, as far as it can be told without one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ggdr.scripts import train as train_command
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.torch_utils.checkpoint import load_state
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import PhaseRunner
from tests.conftest import TINY_RUN
from tests.scripts.test_train import ggdr_train, train

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
