# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train --regularizer`: what is chosen, what is stored, exact resume, and bad input."""

from __future__ import annotations

import json
from io import BytesIO

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.bench import main as bench
from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizers import (
    REGULARIZERS,
    chosen_regularizers,
    needs_label_maps,
    regularizer_options,
    without_regularizers,
)
from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.torch_utils.runlog import read_stats
from tests.conftest import TINY_RUN, ggdr, python, torchrun
from tests.frozen_network import PATCHES, mean_of_patches
from tests.scripts.test_train import assert_same_weights, ggdr_train, printed_settings, train

ALL = ",".join(REGULARIZERS)
NETWORK = ["--features-network", PATCHES]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """16 images of 16x16 RGB with label maps of three classes."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i in range(16):
        labels = rng.integers(0, 3, [4, 4], np.uint8).repeat(4, 0).repeat(4, 1)
        _write_png(folder / "labels" / f"{i}.png", labels)
        _write_png(folder / "images" / f"{i}.png", np.stack([labels * 80, 255 - labels * 80, labels], axis=2))
    (folder / "classes.json").write_text(json.dumps({"names": ["ground", "disc", "square"]}))
    (folder / "dataset.json").write_text(json.dumps({"labels": None}))
    return folder


def _write_png(path, pixels):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("ggdr",)),
        ({"ggdr": True}, ("ggdr",)),
        ({"ggdr": False}, ()),
        ({"regularizer": ("none",)}, ()),
        ({"regularizer": ("features,ggdr",)}, ("ggdr", "features")),
        ({"regularizer": ("contrastive", "ema-guide", "contrastive")}, ("ema-guide", "contrastive")),
    ],
    ids=["default", "ggdr", "no-ggdr", "none", "commas", "repeated"],
)
def test_what_options_choose(options, names):
    assert chosen_regularizers(options) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ggdr": False, "regularizer": ("ggdr",)}, "--no-ggdr is short for --regularizer none: give one"),
        ({"ggdr": True, "regularizer": ("semantic",)}, "--ggdr is short for --regularizer ggdr: give one"),
        ({"regularizer": ("none", "ggdr")}, "none leaves out all others, got none, ggdr"),
    ],
    ids=["no-ggdr", "ggdr", "none"],
)
def test_options_that_contradict_each_other_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        chosen_regularizers(options)


def test_label_maps_are_read_only_for_who_looks_at_them():
    asked = [name for name in REGULARIZERS if needs_label_maps({"regularizer": (name,)})]
    assert asked == ["semantic"]


def test_without_regularizers_no_option_of_theirs_is_left():
    command = regularizer_options(click.Command(None))
    given = {param.name: ["x"] for param in command.params}
    plain = without_regularizers({**given, "batch": 8})
    assert plain.pop("batch") == 8 and plain.pop("ggdr") is False and not any(plain.values())


def test_all_together_train_report_and_resume_exactly(labelled, tmp_path):
    options = ["--regularizer", ALL, *NETWORK, "--contrastive-negatives", 15, "--snap", 1]
    train(labelled, tmp_path / "whole", *options)
    train(labelled, tmp_path / "half", *options, kimg=0.032)
    ggdr_train("--outdir", tmp_path / "half", "--resume", "latest", "--kimg", 0.064, *NETWORK)
    assert_same_weights(tmp_path / "whole", tmp_path / "half")
    settings = json.loads((tmp_path / "whole" / "training_options.json").read_text())
    assert settings["regularizers"].keys() == REGULARIZERS.keys()
    assert settings["regularizers"]["semantic"] == {"res": 8, "weight": 1.0, "classes": 3}
    assert settings["regularizers"]["features"]["channels"] == 4
    shown = {panel["name"] for panel in settings["panels"]}
    reported = read_stats(tmp_path / "whole")[-1]
    names = {f"{name}/{quantity}" for name, quantity in QUANTITIES.items()}
    assert names <= shown and names <= reported.keys()
    snapshot = load_snapshot(sorted((tmp_path / "whole").glob("*.safetensors"))[-1])
    assert REGULARIZERS.keys() <= snapshot.networks.keys()
    for name, kind in REGULARIZERS.items():
        assert kind.summary(kind.read(settings["regularizers"][name]))


def test_the_memory_of_a_gpu_is_counted_with_each_of_them():
    def counted(name):
        words = [*TINY_RUN[:-2], "--resolution", "16", "--regularizer", name, "--trace", "h100", "--json"]
        options = [*words, *(NETWORK if name in ("features", ALL) else [])]
        result = CliRunner().invoke(bench, ["train", *options], catch_exceptions=False)
        return json.loads(result.stdout.splitlines()[-1])["by_piece"]["D"]

    plain, everything = counted("none"), counted(ALL)
    for name in REGULARIZERS:
        one = counted(name)
        assert plain["peak_memory_gib"] < one["peak_memory_gib"] < everything["peak_memory_gib"]
        assert plain["kernels"] < one["kernels"] < everything["kernels"]


QUANTITIES = {
    "ggdr": "distance",
    "semantic": "cross_entropy",
    "ema-guide": "distance",
    "contrastive": "nce",
    "features": "distance",
}


def test_runs_from_before_the_option_resume(dataset_zip, tmp_path):
    for flag, name in ((True, "ggdr"), (False, "plain")):
        run = tmp_path / name
        train(dataset_zip, run, "--ggdr" if flag else "--no-ggdr", kimg=0.008)
        path = run / "training_options.json"
        stored = json.loads(path.read_text())
        del stored["command"]["regularizer"]
        stored["command"]["ggdr"] = flag
        path.write_text(json.dumps(stored))
        ggdr_train("--outdir", run, "--resume", "latest", "--kimg", 0.016)
        settings = json.loads(path.read_text())
        assert list(settings["regularizers"]) == (["ggdr"] if flag else [])


def test_a_run_goes_on_when_its_regulariser_is_typed_in_the_other_way(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", "--no-ggdr", kimg=0.008)
    resume = ["--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.016]
    ggdr_train(*resume, "--regularizer", "none")
    output = ggdr_train(*resume, "--regularizer", "contrastive", code=2)
    assert "another contrastive: off -> guide_res 8, weight 1, negatives 255, temperature 0.07;" in output


def test_a_run_goes_on_with_the_same_network_alone_and_only_if_it_is_typed(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", "--regularizer", "features", *NETWORK, kimg=0.008)
    other = ["--features-network", "tests.frozen_network:other_weights"]
    resume = ["--outdir", tmp_path / "run", "--resume", "latest"]
    assert "another features: digest" in ggdr_train(*resume, *other, code=2)
    # Nor is code run that only the files of a run name, which may be anyone's.
    assert "to resume, give it again: it is code" in " ".join(ggdr_train(*resume, code=2).split())


def test_another_regularizer_than_the_runs_is_refused_as_such(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", "--regularizer", "ggdr,contrastive", "--contrastive-weight", 2, kimg=0.008)
    resume = ["--outdir", tmp_path / "run", "--resume", "latest"]
    output = " ".join(ggdr_train(*resume, "--regularizer", "ggdr", code=2).split())
    assert "a run cannot go on with another contrastive: guide_res 8, weight 2, " in output
    assert "-> off; leave out what asks for it, or start another run" in output and "--contrastive-weight" not in output
    output = " ".join(ggdr_train(*resume, "--regularizer", "ggdr", "--contrastive-weight", 3, code=2).split())
    assert "'--contrastive-weight': needs --regularizer contrastive, got --regularizer ggdr" in output


def test_networks_may_be_functions_or_torchscript_files(dataset_zip, tmp_path):
    torch.jit.trace(mean_of_patches, torch.zeros(1, 3, 16, 16)).save(str(tmp_path / "net.pt"))
    for network, channels in (("tests.frozen_network:function", 4), (tmp_path / "net.pt", 3)):
        run = tmp_path / f"run{channels}"
        options = ["--regularizer", "features", "--features-network", network, "--features-res", 16]
        train(dataset_zip, run, *options, kimg=0.008)
        stored = json.loads((run / "training_options.json").read_text())["regularizers"]["features"]
        assert (stored["res"], stored["channels"], stored["size"]) == (16, channels, [4, 4])
        # The memory that a GPU needs is counted without its values.
        assert "GiB" in ggdr("bench", "train", *TINY_RUN[:-2], *options, "--resolution", 16, "--trace", "h100")


def test_bad_input_is_named_and_nothing_is_written(dataset_zip, labelled, tmp_path):
    def features(name):
        return ["--regularizer", "features", "--features-network", name]

    cases = [
        (dataset_zip, ["--regularizer", "semantic"], f"{dataset_zip.name}: has no label maps; ggdr dataset makes"),
        (dataset_zip, ["--regularizer", "sematic"], "'sematic' is none of ggdr, semantic, ema-guide, contrastive"),
        (dataset_zip, ["--regularizer", "sematic"], "did you mean 'semantic'?"),
        (dataset_zip, ["--regularizer", "ggdr", "--no-ggdr"], "--no-ggdr is short for --regularizer none"),
        (dataset_zip, ["--regularizer", "features"], "features needs --features-network module:function"),
        (dataset_zip, features("no.where:f"), "no.where:f: expected module:function that can be imported"),
        (dataset_zip, features("tests.frozen_network:vectors"), "gives (1, 768) for images (1, 3, 16, 16)"),
        (dataset_zip, features("tests.frozen_network:of_four_channels"), "cannot see images of 16x16x3"),
        (dataset_zip, ["--contrastive-weight", 3], "needs --regularizer contrastive, got --regularizer ggdr"),
        (dataset_zip, ["--no-ggdr", "--semantic-res", 8], "needs --regularizer semantic, got --no-ggdr"),
        (labelled, ["--regularizer", "semantic", "--semantic-res", 12], "12 is not among the feature maps 8, 16"),
    ]
    for data, args, message in cases:
        output = train(data, tmp_path / "run", *args, code=2)
        assert message in " ".join(output.split()), output
        assert not (tmp_path / "run").exists()


def test_models_of_translation_say_what_they_do_not_offer(tmp_path):
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        for i in range(2):
            _write_png(tmp_path / f"train{side}" / f"{i}.png", np.full([32, 32, 3], 60 * i, np.uint8))
    words = ["translate", "train", "--model", "cyclegan", "--data", tmp_path, "--outdir", tmp_path / "run"]
    words += ["--cfg", "cpu", "--device", "cpu", "--metrics", "none", "--dry-run"]
    assert "moving average of the generator" in ggdr(*words, "--regularizer", "ema-guide", code=2)
    assert "looks at real images" in ggdr(*words, "--regularizer", "features", *NETWORK, code=2)
    settings = printed_settings(ggdr(*words, "--regularizer", "contrastive"))
    assert list(settings["regularizers"]) == ["contrastive"]


def test_two_processes_give_what_one_gives(dataset_zip, tmp_path):
    names = "ema-guide,contrastive,features"
    options = [*TINY_RUN, "--regularizer", names, *NETWORK, "--contrastive-negatives", 15, "--aug", "fixed", "--p", 0.6]
    options += ["--data", dataset_zip, "--tick", 0.001, "--snap", 4, "--kimg", 0.016]
    code, output = torchrun("-m", "ggdr", "train", "--outdir", tmp_path / "two", *options)
    assert code == 0, output
    assert python("-m", "ggdr", "train", "--outdir", tmp_path / "one", *options).wait() == 0
    for one, two in zip(read_stats(tmp_path / "one"), read_stats(tmp_path / "two"), strict=True):
        for name in names.split(","):
            key = f"{name}/{QUANTITIES[name]}"
            assert one[key] == pytest.approx(two[key], rel=2e-3, abs=2e-4), key
