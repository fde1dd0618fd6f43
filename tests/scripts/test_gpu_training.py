# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr train` decides and says on GPUs, as far as it can be told without one."""

from __future__ import annotations

import pytest
import torch

from ggdr.scripts import train as train_command
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.torch_utils.distributed import ProcessGroup
from tests.conftest import TINY_RUN

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
