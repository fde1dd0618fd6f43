# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The C library's allocator, asked to keep what a process frees."""

import platform

import pytest

from ggdr.torch_utils.timing.allocator import keep_freed_memory
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
