# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Classes by name or number, and labels of numbers, for all commands that make images."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from ggdr.scripts.options.labels import AskedLabel, choose_label
from ggdr.stylegan2.latent.sampling import generate_images, repeat_label
from ggdr.stylegan2.network_labels import NetworkLabels, labels_of_config, labels_of_dataset, labels_to_config
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.torch_utils.data.dataset import ImageDataset
from tests.conftest import TINY_RUN
from tests.tiny import pixels, tiny_generator
from tests.torch_utils.data.conftest import CLASSES, our_files, write

NAMED = NetworkLabels(classes=("cat", "dog", "3"))
VECTORS = NetworkLabels(examples=((0.0, 0.5, 1.0), (0.2, 0.5, 0.25)))


def save(path: Path, labels: NetworkLabels, c_dim: int = 3) -> Path:
    G = tiny_generator(c_dim=c_dim)
    save_snapshot(path, {"G_ema": G.state_dict()}, {"G": asdict(G.config), **labels_to_config(labels)})
    return path


@pytest.mark.parametrize(
    ("labels", "text", "expected"),
    [
        (NAMED, "dog", 1),
        (NAMED, "Dog", 1),
        (NAMED, "0", 0),
        (NetworkLabels(), "2", 2),
        (NetworkLabels(), "0.2,0.5,0", (0.2, 0.5, 0.0)),
        (VECTORS, "0.2, -0.5,1e-1", (0.2, -0.5, 0.1)),
    ],
)
def test_a_label_is_a_name_a_number_or_numbers(tmp_path, labels, text, expected):
    assert choose_label(save(tmp_path / "n.safetensors", labels), tiny_generator(c_dim=3), AskedLabel(text)) == expected


@pytest.mark.parametrize(
    ("labels", "text", "message"),
    [
        (NAMED, "dgo", r"3 classes: expected one of 0 to 2 or a name \(dog, \.\.\.\), got dgo"),
        (NAMED, "3", r"or a name \(3, \.\.\.\), got 3"),
        (NAMED, None, r"expected one of 0 to 2 or a name \(cat, dog, 3\)$"),
        (NetworkLabels(), "cat", "expected one of 0 to 2, got cat"),
        (NetworkLabels(("0", "1", "2")), "cat", "expected one of 0 to 2, got cat"),
        (VECTORS, "0", r"trained on labels of 3 numbers: expected as many, such as --label 0,0\.5,1, got 0"),
        (VECTORS, "1,nan,0", "trained on labels of 3 numbers"),
        (VECTORS, None, "trained on labels of 3 numbers"),
    ],
)
def test_other_labels_are_refused_with_what_there_is(tmp_path, labels, text, message):
    with pytest.raises(click.BadParameter, match=message):
        choose_label(save(tmp_path / "n.safetensors", labels), tiny_generator(c_dim=3), AskedLabel(text))


@pytest.mark.parametrize(
    ("command", "labels", "args", "message"),
    [
        ("generate", NAMED, ["--label", "1,0,0"], "'--label': {} has 3 classes: expected --class with one of 0 to 2 or "
         "a name (cat, dog, 3), got 1,0,0"),
        ("generate", NAMED, ["--class", "1,0,0"], "'--class': {} has 3 classes: expected one of 0 to 2 or a name (cat, "
         "dog, 3), got 1,0,0"),
        ("generate", VECTORS, ["--class", "dog"], "'--class': {} was trained on labels of 3 numbers: expected as many, "
         "such as --label 0,0.5,1, got dog"),
        ("generate", VECTORS, [], "Missing option '--label'. {} was trained on labels of 3 numbers"),
        ("generate", NetworkLabels(), ["--label", "1,0"], "'--label': {} takes labels of 3 numbers: expected as many, "
         "or --class with one of 0 to 2, got 1,0"),
        ("generate", NAMED, ["--label", "1", "--class", "1"], "--class and --label: expected one of them, got both"),
        ("clusters", VECTORS, ["--class", "1"], "'--class': {} was trained on labels of 3 numbers: expected as many, "
         "such as --class 0,0.5,1, got 1"),
    ],
)  # fmt: skip
def test_a_wrong_label_is_answered_with_the_option_that_helps(tmp_path, command, labels, args, message):
    network = save(tmp_path / "n.safetensors", labels)
    main = importlib.import_module(f"ggdr.scripts.{command}").main
    where = ["--network", str(network), "--outdir", str(tmp_path)]
    result = CliRunner().invoke(main, [*where, "--seeds", "0", "--device", "cpu", *args])
    assert result.exit_code == 2 and message.format(network) in " ".join(result.output.split())


def test_numbers_are_given_to_the_network_as_they_are(tmp_path):
    network = save(tmp_path / "n.safetensors", VECTORS)
    main = importlib.import_module("ggdr.scripts.generate").main
    args = ["--network", str(network), "--seeds", "0", "--device", "cpu", "--outdir", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*args, "--label", "0.2,0.5,-1"])
    assert result.exit_code == 0, result.output
    G = tiny_generator(c_dim=3)
    ((_, expected, _),) = generate_images(G, [0], device="cpu", batch_size=1, label=(0.2, 0.5, -1.0))
    assert (pixels(tmp_path / "out" / "seed0000.png") == expected[0].permute(1, 2, 0).numpy()).all()
    assert repeat_label(2, 3, (0.25, 0.5, -1)).tolist() == [[0.25, 0.5, -1]] * 2


@pytest.mark.parametrize(
    "name", ["generate", "interpolate", "stylemix", "truncation", "directions", "project", "clusters"]
)
def test_every_command_that_takes_a_class_takes_names_and_numbers(name):
    main = importlib.import_module(f"ggdr.scripts.{name}").main
    options = {name: param for param in main.params for name in param.opts}
    assert isinstance(options["--class"].type, click.types.StringParamType)
    assert ("label_numbers" in {param.name for param in main.params}) == (name != "clusters")


def test_a_snapshot_knows_the_labels_of_its_dataset(tmp_path):
    from ggdr.scripts.train import main

    vectors = [[i / 10, 0.5] for i in range(10)]
    for kind, labels, meta in (("names", CLASSES, {"classes": ["ant", "bee", "cat"]}), ("vectors", vectors, {})):
        data = write(tmp_path / f"{kind}.zip", our_files(labels=labels, **meta))
        args = ["--data", str(data), "--outdir", str(tmp_path / kind), *TINY_RUN, "--cond", "--kimg", "0.008"]
        result = CliRunner().invoke(main, [*args, "--tick", "0.008", "--snap", "1", "--workers", "0"])
        assert result.exit_code == 0, result.output
        assert {"names": "3 classes: ant, bee, cat", "vectors": "labels of length 2"}[kind] in result.output
        (path,) = (tmp_path / kind).glob("network-snapshot-*.safetensors")
        found = labels_of_config(load_snapshot(path).config, 3 if kind == "names" else 2)
        assert found == labels_of_dataset(ImageDataset(data, use_labels=True)) != NetworkLabels()


@pytest.mark.parametrize(
    "stored",
    [None, [], {}, {"classes": "abc"}, {"classes": [1, 2]}, {"classes": ["x"] * 4}, {"examples": [[1, 2]]},
     {"examples": [[1, 2, "3"]]}, {"examples": [[1, 2, 1e300]]}, {"examples": 5}],
)  # fmt: skip
def test_what_a_stranger_wrote_of_labels_counts_only_if_it_fits(stored):
    config = json.loads(json.dumps({"labels": stored}))
    assert labels_of_config(config, 3) == NetworkLabels()


def test_vectors_of_a_dataset_are_spread_as_examples(tmp_path):
    data = write(tmp_path / "v.zip", our_files(labels=[[i / 10] for i in range(10)]))
    examples = labels_of_dataset(ImageDataset(data, use_labels=True)).examples
    assert len(examples) == 8 and torch.tensor(examples).diff(dim=0).min() > 0
