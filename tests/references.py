# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Other people's implementations, which tests compare with where they are installed."""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

import pytest
import torch

_declared: list[torch.library.Library] = []


def torchvision_or_skip() -> ModuleType:
    """torchvision, also where its compiled part does not load (a wheel for CUDA beside a torch for CPUs)."""
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:
        # Its Python part speaks of operations of its compiled part, which its networks do not use.
        missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
        if missing is None:
            raise
        if not _declared:
            _declared.append(torch.library.Library("torchvision", "DEF"))
        _declared[0].define(f"{missing[1]}() -> ()")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return torchvision_or_skip()


def import_or_skip(name: str) -> ModuleType:
    """A module of a package that needs torchvision, or none of the test."""
    torchvision_or_skip()
    return pytest.importorskip(name)
