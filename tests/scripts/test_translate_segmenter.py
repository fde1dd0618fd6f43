# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Translations of label maps under a segmenter: planted answers, training, resuming, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from ggdr.metrics.extract import MetricError
from ggdr.metrics.names import parse_metric, parse_metrics
from ggdr.metrics.segmenter import SegmenterConfig, load_segmenter, save_segmenter
from ggdr.metrics.segmenter_training import new_network
from ggdr.scripts.measuring.judge import measure, training_job
from ggdr.scripts.measuring.translation_data import open_pairs_judge
from ggdr.scripts.options.option_words import options_to_words, parse_words
from ggdr.scripts.reports.panels import METRIC, metric_panels, read_metrics
from ggdr.torch_utils.data.label_maps import LabelClasses, numbered_classes
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.pictures.images import from_u8
from ggdr.translation.data.datasets import PairedImages
from tests.scripts.test_translate_labels import CLASSES, NUM, make_maps, run_ggdr, translate

NAMES = "miou,pixel_accuracy,class_accuracy"
TINY = ["--cfg", "cpu", "--channels", 4, "--device", "cpu", "--batch", 4, "--tick", 0.004, "--snap", 2, "--no-ggdr"]
RUN = [*TINY, "--model", "oasis", "--kimg", 0.016]
LEVELS = torch.tensor([0, 60, 180])  # of the images of `make_maps`, by class

# What is nearest to these levels, in logits of half the images' size, which are resized.
OWN = """
import torch
import torch.nn.functional as F


def nearest(device):
    levels = torch.tensor([0, 60, 180], device=device).view(1, 3, 1, 1)
    return lambda img: -(F.avg_pool2d(img[:, :1], 2) * 127.5 + 127.5 - levels).abs()
"""


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return make_maps(tmp_path_factory.mktemp("data") / "maps")


@pytest.fixture(scope="module")
def label_maps(maps):
    """uint8 [NUM, 1, H, W], in the order of the data."""
    pairs = PairedImages(maps, direction="AtoB", channels=3).with_classes(CLASSES)
    judge = open_pairs_judge({"crop": {"size": 32}, "labels": CLASSES.to_json()}, maps, training_job(ProcessGroup()))
    assert pairs.num_images == NUM
    return judge.directions[0].inputs.read(range(NUM))["A"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A segmenter of three classes, with random weights."""
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.safetensors"
    save_segmenter(path, new_network(SegmenterConfig(3, 3, width=2, downs=2), 0).eval(), CLASSES, {})
    return path


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_levels.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_levels:nearest"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, maps, file):
    run = tmp_path_factory.mktemp("runs") / "whole"
    translate("--data", maps, "--outdir", run, *RUN, "--metrics", NAMES, "--segmenter", file)
    return run


def values(run, name):
    """{nimg: values} of a run's metric."""
    lines = map(json.loads, (run / f"metric-{name}.jsonl").read_text().splitlines())
    return {line["nimg"]: line["results"] for line in lines}


def judged(maps, tmp_path, paint, names=NAMES, segmenter="own_levels:nearest", **training):
    """Results of what `paint` makes of label maps."""
    snapshot = tmp_path / "network.safetensors"
    snapshot.write_bytes(b"")
    job = replace(training_job(ProcessGroup(), {"segmenter": str(segmenter)}), batch=3)
    settings = {"crop": {"size": 32}, "labels": CLASSES.to_json(), **training}
    judge = open_pairs_judge(settings, maps, job)
    judge.load = lambda path, device: {"AtoB": lambda label_maps, seeds: paint(label_maps)}
    return {x.name: x for x in measure(judge, parse_metrics(names), snapshot, ProcessGroup())}


def painted(label_maps):
    levels = LEVELS[label_maps[:, 0].long().clamp(max=2)].to(torch.uint8)
    return from_u8(levels[:, None].expand(-1, 3, -1, -1))


def test_a_translator_that_paints_each_class_in_its_colour_has_all_right(maps, own, tmp_path):
    found = judged(maps, tmp_path, painted)
    for name in NAMES.split(","):
        assert found[name].values == {name: 1, f"{name}_reals": 1}
    choices = found["miou"].choices
    assert choices["iou_of_classes"] == [1, 1, 1] and choices["num_fakes"] == choices["num_reals"] == NUM


def test_a_constant_translator_has_what_one_class_gives_and_reals_keep_theirs(maps, own, tmp_path, label_maps):
    found = judged(maps, tmp_path, lambda label_maps: from_u8(torch.full((len(label_maps), 3, 32, 32), 60)))
    share = (label_maps == 1).sum() / (label_maps != 255).sum()
    assert found["miou"].values == {"miou": pytest.approx(share / 3), "miou_reals": 1}
    assert found["pixel_accuracy"].value == pytest.approx(share)
    assert found["class_accuracy"].value == pytest.approx(1 / 3)
    assert found["miou"].choices["iou_of_classes"] == [0, pytest.approx(share, abs=1e-6), 0]


def test_translations_stay_beside_their_own_label_maps(maps, own, tmp_path):
    shifted = judged(maps, tmp_path, lambda label_maps: painted(label_maps.roll(1, 0)), "miou,miou0.003k")
    assert shifted["miou"].value < 0.6 and shifted["miou"].values["miou_reals"] == 1
    three = judged(maps, tmp_path, painted, "miou0.003k")["miou0.003k"]
    assert three.value == 1 and three.choices["num_fakes"] == three.choices["num_reals"] == 3


def test_other_metrics_are_what_they_are_without_label_maps_beside_them(maps, own, tmp_path):
    names = "psnr,colourfulness,kd_offline0.008k_full"
    alone = judged(maps, tmp_path, painted, names)
    both = judged(maps, tmp_path, painted, f"{names},miou")
    assert all(both[name].values == alone[name].values for name in names.split(","))


def test_training_measures_each_snapshot_and_the_command_gives_the_same(whole, maps, file, tmp_path):
    assert list(values(whole, "miou")) == [8, 16]
    for nimg, name in ((8, "network-snapshot-000000.008"), (16, "network-snapshot-000000.016")):
        args = ["--network", whole / f"{name}.safetensors", "--data", maps, "--metrics", NAMES, "--outdir", tmp_path]
        run_ggdr("metrics", *args, "--segmenter", file, "--device", "cpu")
        for metric in NAMES.split(","):
            assert values(tmp_path, metric)[nimg] == values(whole, metric)[nimg]
    options = json.loads((whole / "training_options.json").read_text())
    assert options["segmenter"] == {"name": str(file), "digest": load_segmenter(file).digest}


def test_a_study_names_the_file_by_its_whole_path_and_code_as_it_is(tmp_path):
    for text, expected in (("s.safetensors", str(tmp_path / "s.safetensors")), ("own:build", "own:build")):
        options = parse_words("translate train", ["--segmenter", text], "study", tmp_path)
        assert options == {"segmenter": expected}
        words = options_to_words("translate train", options)
        assert words[words.index("--segmenter") + 1] == expected


def test_curves_have_translations_and_reals(whole):
    panels = {panel.name: panel for panel in metric_panels(read_metrics(whole))}
    assert {f"{METRIC}miou", f"{METRIC}miou_reals", f"{METRIC}class_accuracy"} <= panels.keys()
    assert panels[f"{METRIC}miou_reals"].label == "reals" and panels[f"{METRIC}miou"].unit == "higher is better"


def test_a_resumed_run_goes_on_with_the_file(whole, maps, file, tmp_path):
    run = tmp_path / "run"
    translate("--data", maps, "--outdir", run, *RUN, "--kimg", 0.008, "--metrics", NAMES, "--segmenter", file)
    translate("--outdir", run, "--resume", "latest", "--kimg", 0.016)
    assert list(values(run, "miou")) == [8, 16]
    options = json.loads((run / "training_options.json").read_text())
    assert options["command"]["segmenter"] == str(file) and options["segmenter"]["name"] == str(file)
    moved = shutil.copy(file, tmp_path / "moved.safetensors")
    output = translate("--outdir", run, "--resume", "latest", "--kimg", 0.024, "--segmenter", moved)
    assert f"segmenter.name {file} -> {moved}" in output and list(values(run, "miou")) == [8, 16, 24]


def test_code_is_named_again_when_a_run_is_resumed(maps, own, tmp_path):
    run = tmp_path / "run"
    translate("--data", maps, "--outdir", run, *RUN, "--kimg", 0.008, "--metrics", "miou", "--segmenter", own)
    message = translate("--outdir", run, "--resume", "latest", "--kimg", 0.016, code=2)
    assert "'--segmenter': --metrics miou needs one" in message and "give again what is code" in message
    translate("--outdir", run, "--resume", "latest", "--kimg", 0.016, "--segmenter", own)
    assert list(values(run, "miou")) == [8, 16] and values(run, "miou")[16]["miou_reals"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics", "miou"], "'--segmenter': --metrics miou needs one: a file of `ggdr segmenter train`"),
        (["--metrics", "psnr", "--segmenter", "FILE"], "'--segmenter': no metric asks for it; name miou"),
        (["--metrics", "miou", "--segmenter", "gone.safetensors"], "gone.safetensors: no such file; expected one that"),
        (["--metrics", "miou", "--segmenter", "gone:gone"], "'--segmenter': gone:gone: expected module:function"),
        (["--metrics", "miou", "--segmenter", "OTHER"], "finds 4 classes, and the label maps have 3 (of"),
        (["--metrics", "miou", "--segmenter", "GREY"], "takes images [N, 1, H, W], got [1, 3, 32, 32] (of"),
    ],
    ids=["none", "unasked", "missing", "code", "classes", "channels"],
)
def test_what_training_cannot_measure_with_is_refused_before_it(maps, file, tmp_path, args, message):
    for name, config in (("OTHER", SegmenterConfig(3, 4, width=2)), ("GREY", SegmenterConfig(1, 3, width=2))):
        classes = numbered_classes(config.classes)
        save_segmenter(tmp_path / f"{name}.safetensors", new_network(config, 0), classes, {})
    named = {"FILE": file, **{name: tmp_path / f"{name}.safetensors" for name in ("OTHER", "GREY")}}
    args = [named.get(arg, arg) for arg in args]
    assert message in translate("--data", maps, "--outdir", tmp_path / "run", *RUN, *args, code=2)
    assert not (tmp_path / "run" / "network-snapshot-000000.008.safetensors").exists()


def test_the_command_needs_a_segmenter_and_label_maps(whole, maps, tmp_path):
    args = ["metrics", "--network", whole, "--data", maps, "--metrics", "miou", "--device", "cpu"]
    assert "metrics miou, pixel_accuracy and class_accuracy need --segmenter FILE" in run_ggdr(*args, code=2)
    images = ["--fakes", maps / "images", "--data", maps / "images", "--metrics", "miou"]
    assert "miou: compares images with label maps: expected a" in run_ggdr("metrics", *images, code=2)


def test_label_maps_without_any_class_give_no_value(own, tmp_path):
    maps = make_maps(tmp_path / "none", values=(255,))
    with pytest.raises(MetricError, match="miou: no pixel of 8 label maps has a class"):
        judged(maps, tmp_path, painted, "miou")


def test_a_class_that_occurs_nowhere_does_not_count(own, tmp_path):
    maps = make_maps(tmp_path / "two", values=(0, 3))
    found = judged(maps, tmp_path, painted, "miou")["miou"]
    assert found.value == 1 and found.choices["iou_of_classes"] == [1, 1, None]


@pytest.mark.parametrize("name", ["miou", "miou0.2k", "pixel_accuracy1k", "class_accuracy"])
def test_names_say_what_they_ask_for(name):
    spec = parse_metric(name)
    assert (spec.name, spec.detector, spec.higher_is_better, spec.takes_all) == (
        name, "segmenter", True, not name.endswith("k")
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"did you mean 'miou0.2k'\?"):
        parse_metric("miou0.2k_full")


def test_reals_are_counted_anew_for_other_classes(maps, own, tmp_path):
    """Features of reals are kept on disk by what they are of, in which label maps have a part."""
    swapped = LabelClasses((3, 0, 9))
    first = judged(maps, tmp_path, painted, "miou")["miou"].values["miou_reals"]
    second = judged(maps, tmp_path, painted, "miou", labels=swapped.to_json())["miou"].values["miou_reals"]
    assert first == 1 and second < 0.9
