# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The commands that the messages of `ggdr train` propose are typed as they stand, in folders with spaces."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ggdr.scripts.cli import main
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.run import _resume_command
from ggdr.torch_utils.checkpoint import load_state
from ggdr.torch_utils.distributed import ProcessGroup
from tests.conftest import write_dataset
from tests.scripts.test_train import ggdr_train, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory, dataset_zip):
    """A folder with a run of two snapshots, and its dataset."""
    folder = tmp_path_factory.mktemp("all runs")
    shutil.copy(dataset_zip, folder / "a set.zip")
    train(folder / "a set.zip", folder / "a run", "--snap", 1, "--tick", 0.008, kimg=0.016)
    return folder


@pytest.fixture
def folder(runs, tmp_path, monkeypatch):
    """A copy of it, which is the current folder; the dataset stays where it is."""
    copy = Path(shutil.copytree(runs, tmp_path / "my runs"))
    monkeypatch.chdir(copy)
    return copy


def proposed(output: str) -> list[str]:
    """The words of the one command in a message."""
    (command,) = re.findall(r"(?:: )(ggdr .*?)(?:; or |, then |$)", " ".join(output.split()))
    return shlex.split(command)


def typed(words: list[str], *more: object) -> str:
    result = CliRunner().invoke(main, [*words[1:], *map(str, more)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_a_run_cannot_go_on_with_another_one_starts_with(folder):
    for given in (["--freezed", 2], ["--no-ggdr"]):
        output = ggdr_train("--outdir", "a run", "--resume", "latest", *given, "--device", "cpu", code=2)
        typed(proposed(output), "--kimg", 0.008)
    assert (folder / "a run-2" / "training-state.pt").exists() and (folder / "a run-3" / "training-state.pt").exists()


def test_other_networks_are_not_proposed_where_no_snapshot_gives_them(folder):
    output = ggdr_train("--outdir", "a run", "--resume", "latest", "--cond", code=2)
    assert "G.c_dim 0 -> 3; leave out what asks for it" in " ".join(output.split())
    ggdr_train("--outdir", "a run", "--resume", "latest", "--kimg", 0.024)


def test_small_images_are_converted_for_the_network(folder):
    write_dataset(folder / "small images.zip", res=8, classes=0)
    snapshot = "a run/network-snapshot-000000.016.safetensors"
    output = train("small images.zip", "other", "--resume", snapshot, code=2)
    typed(proposed(output))
    train("NEW.zip", "other", "--resume", snapshot, kimg=0.008)


def test_a_state_without_its_settings_says_which_file_to_copy(folder):
    (folder / "alone").mkdir()
    shutil.copy("a run/training-state.pt", "alone")
    for args in (["--outdir", "alone", "--resume", "latest"], ["--outdir", "b", "--resume", "alone/training-state.pt"]):
        output = ggdr_train(*args, code=2)
        assert "alone/training_options.json: no such file; copy it from the folder that training-state.pt is" in output
    shutil.copy("a run/training_options.json", "alone")
    ggdr_train("--outdir", "alone", "--resume", "latest", "--kimg", 0.024)


def test_a_folder_that_holds_a_run_is_gone_on_with(folder):
    words = proposed(train("a set.zip", "a run", code=2))
    assert "already finished" in typed(words)
    typed(words, "--kimg", 0.024)


def test_a_run_whose_state_was_removed_is_started_from_its_weights(folder):
    Path("a run/training-state.pt").unlink()
    output = ggdr_train("--outdir", "a run", "--resume", "latest", code=2)
    assert "holds snapshots, but no training-state.pt to resume from" in " ".join(output.split())
    typed(proposed(output), "--kimg", 0.008)
    assert load_state("a run-2/training-state.pt")["counters"]["nimg"] == 8


def test_a_run_that_was_killed_before_its_first_state_is_started_again(folder, runs):
    Path("a run/training-state.pt").unlink()
    Path("a run/network-snapshot-000000.016.safetensors").unlink()
    output = typed(proposed(train("a set.zip", "a run", code=2)))
    assert "saved no state yet; starting it again" in output
    states = [
        load_state(run / "training-state.pt")["task"]["networks"]["G"] for run in (folder / "a run", runs / "a run")
    ]
    assert all((states[0][name] == value).all() for name, value in states[1].items())


def test_what_a_stopped_run_says_to_type(runs, monkeypatch):
    plan = SimpleNamespace(host=HOSTS["stylegan2"], folder=SimpleNamespace(path=Path("a run")))
    one = "ggdr train --outdir 'a run' --resume latest"
    assert _resume_command(plan, ProcessGroup()) == one
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert _resume_command(plan, ProcessGroup(world=4)) == f"torchrun --nproc-per-node 4 --no-python {one}"
    assert _resume_command(plan, ProcessGroup(world=8)) == f"{one} (under torchrun as before, on each machine)"
