# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The C library's allocator, asked to keep what a process frees, and PyTorch's on a GPU, asked to grow."""

import os
import platform

import pytest
import torch

from ggdr.scripts.options import parameters
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.timing.allocator import grow_gpu_segments, keep_freed_memory
from tests.conftest import python

# Like a training step: some large maps, all freed at its end. Prints the pages that the kernel handed out per step.
SCRIPT = """
import resource, sys, torch
from ggdr.torch_utils.timing.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    maps = [torch.ones([40 * 2**20], dtype=torch.uint8) for _ in range(6)]
for _ in range(6):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_steps_use_freed_memory_again_without_new_pages():
    pages = {}
    for mode in ("keep", "default"):
        process = python("-c", SCRIPT, mode)
        pages[mode] = int(process.communicate(timeout=120)[0])
    assert pages["keep"] < pages["default"] / 4


@pytest.mark.parametrize("variable", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_user_tuned_is_left_alone(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert keep_freed_memory() is False


VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


@pytest.fixture
def on_cuda(monkeypatch):
    """An installation of PyTorch for CUDA on Linux, with a GPU that nothing has used, and no option set."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("device", "grows"), [("auto", True), ("cuda:0", True), ("cpu", False)])
def test_memory_on_a_gpu_grows_in_place_from_before_it_is_used(on_cuda, monkeypatch, device, grows):
    found = []

    def init(device, timeout_min):
        found.append({os.environ.get(name) for name in VARIABLES[:2]})
        return ProcessGroup()

    monkeypatch.setattr("ggdr.torch_utils.distributed.init_process_group", init)
    parameters.join_processes(device)
    assert found == [{"expandable_segments:True" if grows else None}]


@pytest.mark.parametrize("name", VARIABLES)
def test_an_option_of_the_gpus_memory_that_the_user_set_is_left_alone(on_cuda, monkeypatch, name):
    monkeypatch.setenv(name, "max_split_size_mb:128")
    assert not grow_gpu_segments()
    assert [os.environ.get(x) for x in VARIABLES if x != name] == [None, None]


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (platform, "system", lambda: "Windows"),
        (torch.version, "cuda", None),
        (torch.cuda, "is_initialized", lambda: True),
    ],
)
def test_memory_does_not_grow_where_it_cannot(on_cuda, monkeypatch, where, name, value):
    monkeypatch.setattr(where, name, value)
    assert not grow_gpu_segments()
    assert not any(x in os.environ for x in VARIABLES)
