# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Training by a call from Python, and what the command line says of options and commands."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ggdr.scripts.cli import COMMANDS, main
from ggdr.scripts.training import TrainError
from ggdr.scripts.training import train as call
from ggdr.scripts.training.regularizers import REGULARIZERS, regularizer_options
from ggdr.torch_utils.checkpoint import load_state
from tests.scripts.test_train import assert_same_weights, train

TINY = {"cfg": "demo", "channel_base": 64, "channel_max": 8, "batch": 8, "device": "cpu"}


def test_a_call_trains_like_the_command(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "command", "--ggdr-res", 8, "--no-mirror", kimg=0.032)
    options = {"tick": 0.032, "ggdr_res": [8], "mirror": False, "subset": None}
    assert call(data=Path(dataset_zip), outdir=tmp_path / "call", kimg=0.032, **options, **TINY)
    assert_same_weights(tmp_path / "command", tmp_path / "call")


def test_a_call_goes_on_with_a_run(dataset_zip, tmp_path):
    assert call(data=dataset_zip, outdir=tmp_path, kimg=0.016, tick=0.016, **TINY)
    assert call(outdir=str(tmp_path), resume="latest", kimg=0.032)
    assert load_state(tmp_path / "training-state.pt")["counters"]["nimg"] == 32


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dta": "x.zip"}, "'dta' is no option of `ggdr train`; did you mean 'data'?"),
        ({"data": "missing.zip"}, "--data: .*missing.zip: no such file or folder"),
        ({"cfg": "cifra"}, "'cifra' is not one of"),
        ({"mirror": 1}, "mirror expects true or false, got 1"),
        ({}, "Missing option '--data'"),
        ({"data": "x.zip", "dry_run": True}, "train.. trains; `ggdr train --dry-run` prints"),
    ],
)
def test_a_call_that_cannot_be_done_says_why(tmp_path, options, message):
    with pytest.raises(TrainError, match=message):
        call(outdir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_call_in_one_of_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainError, match="torchrun"):
        call(outdir=tmp_path / "run", data="x.zip")


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ([], []),
        (["--subset", 3], []),
        (["--subset", 5000], ["--subset 5000: there are 24 images, and all are used"]),
        (
            ["--cfg", "paper256"],
            ["preset paper256 is for images of 256x256, these have 16x16: --gamma 1 may not fit them"],
        ),
        (["--cfg", "paper256", "--gamma", 0.01], []),
    ],
)
def test_settings_that_do_not_fit_the_images_are_named(dataset_zip, tmp_path, options, notes):
    shape = [*("--channel-base", 64), *("--channel-max", 8), *("--batch", 8), *("--device", "cpu")]
    words = ["train", "--data", dataset_zip, "--outdir", tmp_path / "run", "--cfg", "auto", *shape, "--dry-run"]
    result = CliRunner().invoke(main, list(map(str, [*words, *options])))
    assert result.exit_code == 0
    said = [line for line in result.stderr.splitlines() if "--subset" in line or "--gamma" in line]
    assert [note for note in notes if not any(note in line for line in said)] == [] and len(said) == len(notes)


def test_help_of_train_lists_each_option_once_and_in_a_section():
    text = CliRunner().invoke(main, ["train", "--help"]).output
    command = main.get_command(click.Context(main), "train")
    headings = re.findall(r"^(\w[\w ]*):$", text, flags=re.M)
    assert headings[:3] == ["Run", "Data", "Regularisers"] and headings[-1] == "Other"
    for param in command.params:
        assert len(re.findall(rf"^  {re.escape(param.opts[0])}\b(?!-)", text, flags=re.M)) == 1, param.name
    listed = {name for names in command.sections.values() for name in names}
    assert listed == {param.name for param in command.params}


def test_options_of_regularisers_come_in_the_order_of_their_list():
    command = main.get_command(click.Context(main), "train")
    one = regularizer_options(lambda: None)
    names = [param.name for param in reversed(one.__click_params__)]
    assert list(command.sections["Regularisers"]) == names and names[0] in REGULARIZERS


@pytest.mark.parametrize("typed, meant", [("trian", "train"), ("metric", "metrics"), ("import", "import-weights")])
def test_a_misspelt_command_is_told_the_nearest_one(typed, meant):
    result = CliRunner().invoke(main, [typed])
    assert result.exit_code == 2 and f"no command {typed!r}; did you mean {meant!r}?" in result.output
    assert meant in COMMANDS


def test_a_command_that_is_like_no_other_gets_no_suggestion():
    result = CliRunner().invoke(main, ["xyzzy"])
    assert result.exit_code == 2 and "no command 'xyzzy'\n" in result.output
