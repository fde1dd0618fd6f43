# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which file --network means."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
import pytest

from ggdr.scripts.options.network import SNAPSHOT_FILE


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    for name in ("000008", "000008.500", "000004"):
        (folder / f"network-snapshot-{name}.safetensors").touch()
    return folder


def test_of_a_run_folder_the_longest_trained_snapshot_is_taken_and_named(run, capsys):
    assert SNAPSHOT_FILE.convert(str(run), None, None) == run / "network-snapshot-000008.500.safetensors"
    assert capsys.readouterr().err == f"note: {run}: taking network-snapshot-000008.500.safetensors\n"


def test_of_a_run_with_metrics_the_best_snapshot_is_taken(run, capsys):
    (run / "network-best.safetensors").touch()
    assert SNAPSHOT_FILE.convert(str(run), None, None) == run / "network-best.safetensors"
    assert "taking network-best" in capsys.readouterr().err


def test_only_the_first_of_several_processes_names_it(run, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    SNAPSHOT_FILE.convert(str(run), None, None)
    assert capsys.readouterr().err == ""


def test_a_command_for_a_path_with_spaces_is_quoted(tmp_path):
    theirs = tmp_path / "their net.pkl"
    theirs.touch()
    with pytest.raises(click.BadParameter) as failure:
        SNAPSHOT_FILE.convert(str(theirs), None, None)
    command = failure.value.message.split("first: ")[1]
    assert shlex.split(command) == ["ggdr", "import-weights", str(theirs), "their net.safetensors"]


def test_a_path_that_the_system_refuses_is_named(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(click.BadParameter, match=r"locked/net\.safetensors: Permission denied"):
        SNAPSHOT_FILE.convert(os.path.join("locked", "net.safetensors"), None, None)
