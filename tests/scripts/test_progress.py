# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Progress on the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from ggdr.scripts.options.progress import busy_with


@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_terminal_is_told_what_takes_its_time(monkeypatch, is_terminal):
    stderr = io.StringIO()
    stderr.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm-256color")
    with busy_with("writing [a].onnx"):
        pass
    assert ("writing [a].onnx" in stderr.getvalue()) == is_terminal
