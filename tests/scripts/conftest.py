# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What tests of commands share."""

from __future__ import annotations

import pytest

from ggdr.scripts.accepting.step import Place


@pytest.fixture
def place(tmp_path):
    """Where a step of `ggdr accept` runs."""
    for name in ("step", "shared"):
        (tmp_path / name).mkdir()
    return Place("cuda", tmp_path / "step", tmp_path / "shared")
