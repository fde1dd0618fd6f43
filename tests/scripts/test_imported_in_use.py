# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Imported translators, which say of no run what they are: measured, and trained further."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch

from ggdr.metrics.paired import mean_absolute_error
from ggdr.scripts.training.hosts import translator_host
from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages
from ggdr.translation.data.measured import MeasuredDomain, MeasuredPairs
from ggdr.translation.snapshot import load_translator
from tests.scripts.test_import_translators import COMBOGAN, CYCLEGAN, PATCH, PIX2PIX, RESNET, imported, publish
from tests.scripts.test_translate import make_pairs
from tests.scripts.test_translate import translate as train
from tests.scripts.test_translate_cyclegan import make_domains
from tests.scripts.test_translate_metrics import metrics, results

# Domains as the data below do not come: horse, zebra; deer, horse, zebra.
WHOLE = {
    "pix2pix": (PIX2PIX, []),
    "cyclegan": ({"G_A": RESNET, "G_B": RESNET, "D_A": PATCH, "D_B": PATCH}, ["zebra", "horse"]),
    "combogan": (COMBOGAN, ["zebra", "deer", "horse"]),
}


@pytest.fixture(params=WHOLE)
def whole(request, tmp_path):
    """A model's name, its snapshot, data for it, and the names of its domains."""
    configs, names = WHOLE[request.param]
    publish(tmp_path / "x", configs)
    net = imported(tmp_path / "x", tmp_path, *(["--domains", ",".join(names)] if names else []))
    data = tmp_path / "data"
    data = make_domains(data, dict.fromkeys(sorted(names), 2)) if names else make_pairs(data, num=2)
    return request.param, net, data, names


def test_what_was_imported_is_measured_as_what_it_is_and_by_the_names_of_its_domains(whole):
    model, net, data, names = whole
    assert translator_host(load_snapshot(net)).name == model
    name = "mae" if model == "pix2pix" else "cycle_mae"
    found = json.loads(metrics("--network", net, "--data", data, "--metrics", name, "--json").splitlines()[-1])
    translate, crop = load_translator(net), CropConfig()
    if model == "pix2pix":
        images = MeasuredPairs(PairedImages(data), crop).read(range(2))
        made = to_u8(translate(from_u8(torch.from_numpy(images["A"])), seed=0))
        expected = mean_absolute_error(made, torch.from_numpy(images["B"])).mean()
        assert found["results"][name] == pytest.approx(float(expected), rel=1e-5)
        return
    dataset = UnpairedImages(data)
    for (i, a), (j, b) in itertools.permutations(enumerate(dataset.names), 2):
        images = torch.from_numpy(MeasuredDomain(dataset, crop, i).images.read(range(2)))
        made = to_u8(translate(from_u8(to_u8(translate(from_u8(images), a, b))), b, a))
        way = f"{name}_{'AB'[i]}to{'AB'[j]}" if model == "cyclegan" else f"{name}_{i}to{j}"
        assert found["results"][way] == pytest.approx(float(mean_absolute_error(made, images).mean()), rel=1e-5)


@pytest.mark.parametrize("configs", [{"G": replace(RESNET, in_channels=1)}, CYCLEGAN], ids=["pix2pix", "CycleGAN"])
def test_images_of_other_channels_than_the_networks_take_are_a_message(tmp_path, configs):
    publish(tmp_path / "x", configs)
    args = ["--network", imported(tmp_path / "x", tmp_path), "--data", make_pairs(tmp_path / "data", num=2)]
    message = metrics(*args, "--metrics", "colourfulness", code=2)
    source = "B" if configs is CYCLEGAN else "input"
    expected = f"net.safetensors: takes images of 1 channel as {source}, and {args[3]} holds images of 3 channels"
    assert expected in " ".join(message.split())


@pytest.mark.parametrize("model", ["cyclegan", "combogan"])
def test_what_was_imported_is_not_measured_on_other_domains_than_its_own(tmp_path, model):
    configs, names = WHOLE[model]
    publish(tmp_path / "x", configs)
    net = imported(tmp_path / "x", tmp_path, "--domains", ",".join(names))
    others = ["ass", *sorted(names)[1:]]
    data = make_domains(tmp_path / "data", dict.fromkeys(others, 2))
    message = " ".join(metrics("--network", net, "--data", data, "--metrics", "cycle_mae", code=2).split())
    expected = f"translates between {', '.join(names)}; the domains of {data} are {', '.join(others)}"
    assert expected in message


def test_what_was_imported_is_trained_further_as_what_it_is_by_the_names_of_its_domains(whole, tmp_path):
    model, net, data, names = whole
    args = ["--resume", net, "--cfg", "cpu", "--data", data, "--outdir", tmp_path / "run", "--device", "cpu"]
    args += ["--kimg", 0.002, "--batch", 2, "--no-ggdr", "--metrics", "cycle_mae" if names else "mae"]
    output = train(*args)
    assert "go on with" not in output
    options = json.loads((tmp_path / "run" / "training_options.json").read_text())
    assert options["host"] == model and options["data"].get("domains", []) == names
    if model == "cyclegan":
        assert "A is zebra, B is horse" in output
    # By the settings of the run domains are in the order of the networks, in training and by command alike.
    if names:
        (snapshot,) = (tmp_path / "run").glob("network-snapshot-*")
        measured = metrics("--network", snapshot, "--data", data, "--metrics", "cycle_mae", "--outdir", tmp_path)
        assert results(tmp_path, "cycle_mae") == results(tmp_path / "run", "cycle_mae"), measured
        train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.004)
