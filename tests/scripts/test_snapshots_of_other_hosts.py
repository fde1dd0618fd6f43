# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Every command that takes a snapshot says in one line what it was given instead, and which command takes that."""

from __future__ import annotations

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.cli import main
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.translation.config import (
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.snapshot import load_translator
from tests.conftest import write_dataset
from tests.tiny import save_tiny, tiny_generator
from tests.translator_files import save_translator

RESNET, PATCH = ResnetGeneratorConfig(3, 3, 2, 0), PatchDiscriminatorConfig(3, 2, 2)
TRANSLATORS = {
    "pix2pix": {"G": UnetGeneratorConfig(3, 3, 2, 5), "D": PatchDiscriminatorConfig(6, 2, 2)},
    "one generator": {"G": RESNET},
    "CycleGAN": {"G_A": RESNET, "G_B": RESNET, "D_A": PATCH, "D_B": PATCH},
    "ComboGAN": {
        "G": ComboGANGeneratorConfig(3, 2, 0, 0),
        "D_0": ComboGANDiscriminatorConfig(2, 1),
        "D_1": ComboGANDiscriminatorConfig(2, 1),
    },
}
BOTH = {"export", "card", "metrics"}  # commands that take snapshots of every kind
# By command, what it needs beside the snapshot.
ARGS = {
    "train": ["--data", "data.zip", "--outdir", "out", "--dry-run"],
    "translate train": ["--data", "pairs", "--outdir", "out", "--dry-run"],
    "translate apply": ["--outdir", "out", "image.png"],
    "translate sheet": ["--out", "x.png", "image.png"],
    "translate remove-domain": ["--out", "x.safetensors", "horse"],
    "generate": ["--seeds", "0", "--outdir", "out"],
    "interpolate": ["--out", "x.mp4"],
    "stylemix": ["--out", "x.png"],
    "truncation": ["--out", "x.png"],
    "directions": ["--outdir", "out"],
    "project": ["--outdir", "out", "image.png"],
    "clusters": ["--outdir", "out"],
}


def commands():
    """Every command that has an option for snapshots, with its option."""
    found, waiting = {}, [((), main)]
    while waiting:
        path, command = waiting.pop()
        if isinstance(command, click.Group):
            names = command.list_commands(click.Context(command))
            waiting += [((*path, name), command.get_command(click.Context(command), name)) for name in names]
            continue
        options = {option for param in command.params for option in param.opts}
        for option in ("--network", "--resume"):
            if option in options:
                found[" ".join(path)] = option
    return found


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What commands need beside a snapshot, in the folder where they run."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 16), "red").save("image.png")
    write_dataset(tmp_path / "data.zip", num=4)
    for side in "AB":
        (tmp_path / "pairs" / f"train{side}").mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / "pairs" / f"train{side}" / "0.png")
    return tmp_path


def run(command, snapshot, *more):
    """What a command says of a snapshot: its message, in one line."""
    result = CliRunner().invoke(main, [*command.split(), commands()[command], str(snapshot), *ARGS[command], *more])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    return " ".join(result.output.partition("Error: ")[2].split())


def test_every_command_with_an_option_for_snapshots_is_here():
    assert set(commands()) == set(ARGS) | BOTH


@pytest.mark.parametrize("command", [name for name in ARGS if not name.startswith("translate ")])
@pytest.mark.parametrize("kind", TRANSLATORS)
def test_commands_of_stylegan2_refuse_translators(files, command, kind):
    message = run(command, save_translator(files / "net.safetensors", TRANSLATORS[kind]))
    assert "net.safetensors: holds a translator, expected a StyleGAN2; `ggdr translate apply` uses it" in message
    assert not (files / "out").exists() or not list((files / "out").iterdir())


@pytest.mark.parametrize("command", [name for name in ARGS if name.startswith("translate ")])
def test_commands_of_translation_refuse_stylegan2(files, command):
    message = run(command, save_tiny(files / "net.safetensors", tiny_generator()))
    assert "net.safetensors: holds a StyleGAN2, expected a translator; `ggdr generate` uses it" in message


def test_a_file_of_neither_is_not_called_one(files):
    save_snapshot("net.safetensors", {"G": {"a": torch.zeros(1)}}, {"G": {"width": 3}, "training": {"network": "x"}})
    with pytest.raises(SnapshotError, match="settings of G describe no network of image translation"):
        load_translator("net.safetensors")
    assert "settings of G do not describe a StyleGAN2" in run("generate", "net.safetensors")
    assert load_snapshot("net.safetensors").networks.keys() == {"G"}


def test_a_model_of_other_networks_is_told_by_them(files):
    network = save_translator(files / "net.safetensors", TRANSLATORS["CycleGAN"])
    message = run("translate train", network, "--model", "pix2pix")
    assert (
        "net.safetensors: holds D_A, D_B, G_A, G_B, but no G; to translate takes the generators of a model" in message
    )
