# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Building operations for a GPU, which this machine plays."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from ggdr.torch_utils.ops import build, toolchain
from ggdr.torch_utils.ops.build import BuildError, set_ops, uses_native
from ggdr.torch_utils.ops.toolchain import MissingTool, cuda_toolchain, find_nvcc
from tests.conftest import needs_cxx

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="nothing is compiled on Windows"),
    pytest.mark.usefixtures("fresh_ops"),
]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    return torch.device("cuda", 1)


def put_nvcc(monkeypatch, tmp_path, archs, release="13.0"):
    """An nvcc that tells its release, and the architectures that it knows."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(
        f"#!/bin/sh\n[ $1 = --list-gpu-arch ] && echo '{archs}' || "
        f"echo 'Cuda compilation tools, release {release}, V{release}.99'\n"
    )
    nvcc.chmod(0o755)
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: str(nvcc))


def test_a_gpu_does_not_fall_back_without_a_full_warning(gpu, monkeypatch, caplog):
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: None)
    for _ in range(2):
        assert not uses_native(gpu)
    (record,) = caplog.records
    for part in ("CUDA operations run in plain PyTorch", "slow", "nvcc", "pip install", "13.0", "CUDA_HOME"):
        assert part in record.getMessage()
    set_ops("native")
    with pytest.raises(MissingTool, match="nvcc"):
        uses_native(gpu)


@needs_cxx
def test_a_cuda_toolkit_of_another_major_version_is_refused(gpu, monkeypatch, tmp_path):
    put_nvcc(monkeypatch, tmp_path, "compute_90", release="12.4")
    with pytest.raises(BuildError, match=r"CUDA 12\.4, but torch .* CUDA 13\.0"):
        build.device_toolchain("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.8")  # minor versions mix
    assert "-gencode=arch=compute_90,code=sm_90" in build.device_toolchain("cuda").compile


@needs_cxx
@pytest.mark.parametrize(
    ("gpus", "listed", "expected"),
    [
        ([(9, 0), (9, 0)], "compute_80 compute_90", ["compute_90,code=sm_90"]),
        ([(12, 0)], "compute_80\ncompute_90\ncompute_100", ["compute_100,code=compute_100"]),
        (
            [(10, 3), (8, 0)],
            "compute_120 compute_80 compute_90a compute_100",
            ["compute_80,code=sm_80", "compute_100,code=compute_100"],
        ),
        ([(10, 3), (10, 1)], "compute_100", ["compute_100,code=compute_100"]),
        ([(9, 0)], "", ["compute_90,code=sm_90"]),
    ],
    ids=["known", "newer than nvcc", "one newer", "two newer", "an nvcc that lists none"],
)
def test_a_gpu_that_nvcc_does_not_know_gets_its_newest_ptx(gpu, monkeypatch, tmp_path, gpus, listed, expected):
    put_nvcc(monkeypatch, tmp_path, listed)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: gpus[i])
    flags = [flag for flag in build.device_toolchain("cuda").compile if flag.startswith("-gencode")]
    assert flags == [f"-gencode=arch={each}" for each in expected]


@needs_cxx
def test_a_gpu_that_nvcc_no_longer_knows_is_named(gpu, monkeypatch, tmp_path):
    put_nvcc(monkeypatch, tmp_path, "compute_75 compute_80")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (7, 0))
    with pytest.raises(
        BuildError, match=r"nvcc compiles for compute capability 7\.5 and newer, but a GPU here has 7\.0"
    ):
        build.device_toolchain("cuda")


def test_the_kernels_are_not_for_amd_gpus(gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.2")
    with pytest.raises(BuildError, match="AMD"):
        build.device_toolchain("cuda")


@needs_cxx
@pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc")
@pytest.mark.parametrize(
    "capability", [pytest.param("7.5", marks=pytest.mark.slow), "9.0", pytest.param("12.0", marks=pytest.mark.slow)]
)
def test_cuda_sources_compile_without_warnings(monkeypatch, ops_cache, tmp_path, capability):
    sources = build.device_sources("cuda")
    release = toolchain.re.search(r"release (\d+\.\d+)", toolchain.version_of([find_nvcc()]))[1]
    built_with = torch.version.cuda or release
    if built_with.split(".")[0] != release.split(".")[0]:
        pytest.skip(f"nvcc {release} cannot compile for a torch built with CUDA {built_with}")
    monkeypatch.setattr(torch.version, "cuda", built_with)
    nvcc = cuda_toolchain([capability])
    if not any(f"code=sm_{capability.replace('.', '')}" in flag for flag in nvcc.compile):
        pytest.skip(f"nvcc {release} does not compile for compute capability {capability}")
    stamp = ops_cache / f"cuda-compiled-{build.library_key(nvcc, sources)}"
    if stamp.exists():
        return  # these sources did compile, with this compiler and these flags
    # The one header that torch's CPU builds lack of those that CUDA sources include.
    header = tmp_path / "include" / "c10" / "cuda" / "impl" / "cuda_cmake_macros.h"
    if not (toolchain.TORCH_DIR / "include" / "c10" / "cuda" / "impl" / "cuda_cmake_macros.h").exists():
        header.parent.mkdir(parents=True)
        header.write_text("#define C10_CUDA_BUILD_SHARED_LIBS\n")
    nvcc = dataclasses.replace(
        nvcc, compile=(*nvcc.compile, "-Werror", "all-warnings", "-isystem", str(tmp_path / "include"))
    )
    nvcc.write_ninja_file(tmp_path / "build.ninja", sources)
    nvcc.run_ninja(tmp_path, *(f"{source.stem}.o" for source in sources), log=tmp_path / "build.log")
    stamp.touch()
