# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Runs whose files hold something else than what a run writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
import torch

from ggdr.scripts.train import main
from ggdr.scripts.training.stored import check_state, checked_options, load_task
from ggdr.torch_utils.checkpoint import SnapshotError, load_state, save_state
from tests.scripts.test_train import ggdr_train, train
from tests.toy_host import ToyTask

WHERE = Path("run/training_options.json")


@pytest.fixture(scope="module")
def stored(tmp_path_factory, dataset_zip):
    """A run of one step."""
    run = tmp_path_factory.mktemp("stored") / "run"
    train(dataset_zip, run, kimg=0.008)
    return run


@pytest.fixture
def run(stored, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(stored, tmp_path / "run"))


def checked(**options):
    absent = {name: None for name in options}
    known = {
        "aug": "ada",
        "cfg": "auto",
        "augpipe": "bgc",
        "precision": "auto",
        "mirror": False,
        "seed": 0,
        "ggdr_res": (),
    }
    with click.Context(main):
        return checked_options(options, absent | known, WHERE)


def test_what_a_run_stores_is_taken_as_it_is(stored):
    options = json.loads((stored / "training_options.json").read_text())["command"]
    found = checked(**options)
    assert found["data"] == Path(options["data"]) and found["cfg"] == "demo" and found["batch"] == 8
    assert checked(ggdr_res=[8, 16], kimg=1, mirror=True, p=None) == {
        "ggdr_res": (8, 16),
        "kimg": 1.0,
        "mirror": True,
        "p": None,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cfg", "x"),
        ("augpipe", "x"),
        ("precision", "x"),
        ("aug", "evil"),
        ("aug", None),
        ("batch", {}),
        ("batch", 8.5),
        ("batch", -8),
        ("batch", True),
        ("batch_gpu", []),
        ("kimg", "many"),
        ("kimg", 10**400),
        ("gamma", -1),
        ("mirror", "yes"),
        ("mirror", 1),
        ("ggdr_res", 1),
        ("ggdr_res", ["x"]),
        ("metrics", []),
        ("data", 1.5),
        ("seed", 2**70),
    ],
)
def test_an_option_that_nobody_could_type_is_named_with_its_file(name, value):
    option = "--" + name.replace("_", "-")
    with pytest.raises(SnapshotError, match=f"^{WHERE}: {option} is damaged there: "):
        checked(**{name: value})


def test_a_run_with_such_an_option_does_not_go_on(run):
    path = run / "training_options.json"
    options = json.loads(path.read_text())
    options["command"]["aug"] = "evil"
    path.write_text(json.dumps(options))
    output = ggdr_train("--outdir", run, "--resume", "latest", "--kimg", 9, code=2)
    assert "training_options.json: --aug is damaged there: 'evil' is not one of" in " ".join(output.split())
    # An option that is typed anew takes its place.
    ggdr_train("--outdir", run, "--resume", "latest", "--aug", "noaug", "--kimg", 0.016)


def state(**changes):
    sound = {"options": {}, "counters": {"nimg": 8, "step": 1}, "stats": {"x": torch.ones(2)}, "task": {}}
    return {**sound, "device_type": "cpu", **changes}


def test_a_sound_state_passes():
    check_state(state(), Path("state.pt"))


@pytest.mark.parametrize(
    "changes",
    [
        {"options": torch.zeros(3)},
        {"options": {"loop": {"batch": torch.zeros(3)}}},
        {"options": []},
        {"counters": {}},
        {"counters": torch.zeros(2)},
        {"counters": {"nimg": {}, "step": 1}},
        {"counters": {"nimg": -8, "step": 1}},
        {"counters": {"nimg": 2**60, "step": 1}},
        {"counters": {"nimg": 8, "step": 1, "more": 2}},
        {"stats": torch.zeros(3)},
        {"stats": {"x": torch.zeros(3)}},
        {"stats": {"x": 1.0}},
        {"task": None},
        {"device_type": 3},
    ],
)
def test_a_state_of_other_content_is_named(changes):
    with pytest.raises(SnapshotError, match=r"^state\.pt: a training state of other content: "):
        check_state(state(**changes), Path("state.pt"))


@pytest.mark.parametrize("missing", ["options", "counters", "stats", "task", "device_type"])
def test_a_state_that_lacks_a_part_is_named(missing):
    damaged = state()
    del damaged[missing]
    with pytest.raises(SnapshotError, match=f"it lacks '{missing}'"):
        check_state(damaged, Path("state.pt"))


def test_a_state_of_other_networks_does_not_fit():
    task = ToyTask()
    for change in ({"networks": 3}, {"optimizers": 3}):
        with pytest.raises(SnapshotError, match=r"^state\.pt: its networks, optimisers or random state do not fit"):
            load_task(task, {**task.state(), **change}, Path("state.pt"))


def clear(damaged):
    damaged["task"]["networks"]["G"]["\x1b[2J"] = torch.zeros(1)


def narrow(damaged):
    damaged["task"]["optimizers"][0]["state"][0]["exp_avg"] = torch.zeros(3)


@pytest.mark.parametrize("damage", [clear, narrow])
def test_a_run_with_such_a_state_does_not_go_on(run, damage):
    damaged = load_state(run / "training-state.pt")
    del damaged["format"]
    damage(damaged)
    save_state(run / "training-state.pt", damaged)
    output = ggdr_train("--outdir", run, "--resume", "latest", "--kimg", 9, code=2)
    assert "training-state.pt: its networks" in " ".join(output.split()) and "\x1b" not in output
