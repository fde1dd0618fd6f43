# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

ROOT = Path(__file__).parents[1]

# A network small enough that a training iteration takes milliseconds.
TINY_RUN = ["--cfg", "demo", "--channel-base", "64", "--channel-max", "8", "--batch", "8", "--device", "cpu"]
needs_cxx = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")


def ggdr(*args: object, code: int = 0) -> str:
    """Runs a command in this process; returns what it printed, in one line."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    assert code == 0 or isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors do not profit from threads, and tests that run side by side suffer from them."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Numbers drawn without a generator are the same in each run: some lie at the kink of an activation."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def ops_cache(pytestconfig, tmp_path_factory) -> Path:
    """Compiled operations are built once for all tests, and kept with what pytest itself keeps between runs."""
    cache = getattr(pytestconfig, "cache", None)
    folder = tmp_path_factory.mktemp("ggdr") if cache is None else cache.mkdir("ggdr")
    os.environ["GGDR_CACHE"] = str(folder)
    return folder


@pytest.fixture
def native_ops(ops_cache):
    """The compiled operations on CPUs, or none of the test where they cannot be built."""
    from ggdr.torch_utils.ops.build import BuildError, set_ops, uses_native

    set_ops("native")
    try:
        uses_native(torch.device("cpu"))
    except BuildError as error:
        pytest.skip(f"no compiled operations: {error}")
    yield
    set_ops(None)


@pytest.fixture
def fresh_ops(monkeypatch, tmp_path):
    """As in a process that has not used any operation, with a cache of its own."""
    from ggdr.torch_utils.ops import build

    monkeypatch.setattr(build, "_override", None)
    monkeypatch.setattr(build, "_decided", {})
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.delenv("GGDR_OPS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """An installation without compilers."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CUDA_HOME", raising=False)


@pytest.fixture(params=["native", "reference"])
def ops(request):
    """Winograd's convolutions, where they can be built, and PyTorch's."""
    if request.param == "native":
        request.getfixturevalue("native_ops")
        yield
        return
    from ggdr.torch_utils.ops import set_ops

    previous = set_ops("reference")
    yield
    set_ops(previous)


def write_dataset(path: Path, *, num: int = 24, res: int = 16, channels: int = 3, classes: int = 3) -> Path:
    """A dataset zip of smooth random colour gradients."""
    rng = np.random.RandomState(0)
    ramp = np.linspace(0, 1, res)
    labels = []
    with zipfile.ZipFile(path, "w") as file:
        for i in range(num):
            a, b, c = rng.rand(3, 1, 1, channels)
            img = (a * ramp[:, None, None] + b * ramp[None, :, None] + c) / (a + b + c) * 255
            buffer = BytesIO()
            Image.fromarray(img.astype(np.uint8).squeeze()).save(buffer, "PNG")
            name = f"00000/img{i:08d}.png"
            file.writestr(name, buffer.getvalue())
            labels.append([name, i % max(classes, 1)])
        file.writestr("dataset.json", json.dumps({"labels": labels if classes else None}))
    return path


@pytest.fixture(scope="session")
def dataset_zip(tmp_path_factory) -> Path:
    """24 images of 16x16 RGB in 3 classes."""
    return write_dataset(tmp_path_factory.mktemp("data") / "gradients.zip")


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """Ctrl-C has its usual meaning in this process, also where the tests run in the background and ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


_started: list[subprocess.Popen] = []


def _heed_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def python(*args: object) -> subprocess.Popen:
    """A Python process in the repository's root and a process group of its own, with its output in one pipe.

    Ctrl-C and a lost connection have their usual meaning in it, also where the tests run in the background or under
    nohup, and ignore them.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_heed_signals,
    )
    _started.append(process)
    return process


def torchrun(*args: object) -> tuple[int, str]:
    """Two processes of a script or module; returns exit code and output."""
    process = python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *args)
    output = process.communicate(timeout=180)[0]
    return process.returncode, output


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test():
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
