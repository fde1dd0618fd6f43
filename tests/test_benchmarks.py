# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The scripts behind quoted figures run; what they measure is not judged here."""

from __future__ import annotations

from tests.conftest import python


def output_of(*args) -> str:
    process = python(*args)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output


def test_ggdr_cost_compares_four_variants():
    args = ["--channel-base", 64, "--channel-max", 8, "--iterations", 1, "--threads", 1]
    output = output_of("benchmarks/ggdr_cost.py", *args)
    rows = [line.split() for line in output.splitlines() if line.startswith(("none", "bgc"))]
    assert [len(row) >= 4 and float(row[-1]) > 0 for row in rows] == [True, True]


def test_augmentation_benchmark_runs():
    assert "warp" in output_of("-m", "benchmarks.augment", "--repeats", 1)
