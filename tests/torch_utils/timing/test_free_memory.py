# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Memory that is free: the system's, within the limits of containers of both kinds."""

from __future__ import annotations

import pytest
import torch

from ggdr.torch_utils.timing import free_memory

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes files of a machine: their texts by paths below /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(free_memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(free_memory, "CGROUPS", tmp_path / "cgroup")

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def test_of_a_machine_without_limits(machine):
    assert free_memory.free_bytes(CPU) is None
    machine({"proc/meminfo": "MemTotal: 100 kB\nMemFree: 5 kB\nMemAvailable:   40 kB\n"})
    assert free_memory.free_bytes(CPU) == 40 * 1024
    machine({"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "max\n", "cgroup/memory.current": "9\n"})
    assert free_memory.free_bytes(CPU) == 40 * 1024


@pytest.mark.parametrize("own", ["0::/\n", "0::/user/job\n", "0::/of/the/host\n"])
def test_of_a_group_with_a_limit(machine, own):
    folder = "cgroup/user" if "user" in own else "cgroup"
    machine(
        {
            "proc/meminfo": "MemAvailable: 40 kB\n",
            "proc/self/cgroup": own,
            f"{folder}/memory.max": "1000",
            f"{folder}/memory.current": "700",
            f"{folder}/memory.stat": "anon 500\ninactive_file 150\n",
        }
    )
    assert free_memory.free_bytes(CPU) == 450


def test_of_a_group_of_the_older_kind(machine):
    machine(
        {
            "proc/self/cgroup": "11:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n",
            "cgroup/memory/memory.limit_in_bytes": "5000",
            "cgroup/memory/memory.usage_in_bytes": "3000",
            "cgroup/memory/memory.stat": "total_inactive_file 100\n",
        }
    )
    assert free_memory.free_bytes(CPU) == 2100


def test_of_this_machine():
    free = free_memory.free_bytes(CPU)
    assert free is None or 2**20 < free < 2**50
