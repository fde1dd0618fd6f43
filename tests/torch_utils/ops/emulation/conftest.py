# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The emulated kernels in place of the compiled operations."""

from __future__ import annotations

import sys

import pytest

from ggdr.torch_utils.ops.toolchain import MissingTool, find_cxx
from tests.torch_utils.ops.emulation.library import HERE, Emulation, load_emulation


def pytest_collection_modifyitems(items):
    """What tests of elsewhere do on a GPU, they do there."""
    items[:] = [item for item in items if HERE not in item.path.parents or not item.get_closest_marker("gpu")]


@pytest.fixture(scope="session")
def compiler():
    """None of the test where nothing can be emulated."""
    if sys.platform != "linux":
        pytest.skip("threads are emulated by contexts of Linux")
    try:
        find_cxx("cpu")
    except MissingTool as error:
        pytest.skip(f"no emulation of CUDA: {error.reason}")


@pytest.fixture(scope="session")
def emulation(compiler, ops_cache) -> Emulation:
    """The kernels of the project."""
    return load_emulation()


@pytest.fixture
def native_ops(emulation):
    """They run where tests ask for the compiled operations on CPUs."""
    with emulation.in_place_of_the_cpu():
        yield
