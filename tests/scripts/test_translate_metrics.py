# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics of translators: in training and by command, the best snapshot, patience, directions and cycles."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.metrics.extract import MetricError
from ggdr.metrics.names import parse_metrics
from ggdr.metrics.paired import mean_absolute_error, psnr
from ggdr.scripts.measuring.judge import measure, training_job
from ggdr.scripts.measuring.translation_data import open_domains_judge
from ggdr.scripts.measuring.translation_judge import TranslatedImages, default_metrics
from ggdr.scripts.reports.panels import METRIC, metric_panels, read_metrics
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages
from ggdr.translation.data.measured import MeasuredDomain, MeasuredPairs
from ggdr.translation.snapshot import load_translator
from tests.conftest import torchrun
from tests.scripts.test_translate import TINY, make_pairs, plain, translate
from tests.study_cases import compare, table

NUM = 6  # of the test split
NAMES = "psnr,ssim0.003k,kd_offline0.006k_full,colourfulness_gap0.004k_full"
RUN = [*TINY, "--no-ggdr", "--kimg", 0.032]
GROUP = ProcessGroup()


def metrics(*args, code=0):
    """Runs `ggdr metrics` in this process; returns what it printed."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["metrics", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def results(run, name):
    """{nimg: values} of a run's metric."""
    lines = map(json.loads, (run / f"metric-{name}.jsonl").read_text().splitlines())
    return {line["nimg"]: line["results"] for line in lines}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs for training, and others for testing."""
    root = tmp_path_factory.mktemp("data")
    for split, num in (("train", 8), ("test", NUM)):
        made = make_pairs(root / split, num=num)
        for side in "AB":
            shutil.move(made / side, root / "pairs" / f"{split}{side}")
    return root / "pairs"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    run = tmp_path_factory.mktemp("runs") / "whole"
    translate("--data", pairs, "--outdir", run, *RUN, "--metrics", NAMES)
    return run


def test_training_measures_each_snapshot_on_the_test_split_and_keeps_the_best(whole, pairs):
    values = {nimg: found["psnr"] for nimg, found in results(whole, "psnr").items()}
    assert list(values) == [16, 32]
    best = load_snapshot(whole / "network-best.safetensors").config["best"]
    assert best["metric"] == "psnr" and values[best["nimg"]] == best["value"] == max(values.values())
    # By hand, from the files.
    translator = load_translator(whole / "network-snapshot-000000.032.safetensors")
    each = []
    for i in range(NUM):
        a, b = (Image.open(pairs / f"test{side}" / f"{i:02d}.png").convert("RGB") for side in "AB")
        a, b = (torch.from_numpy(np.asarray(img).copy()).permute(2, 0, 1)[None] for img in (a, b))
        each.append(psnr(to_u8(translator(from_u8(a), seed=i)), b).item())
    assert values[32] == pytest.approx(np.mean(each), rel=1e-5)
    log = (whole / "log.txt").read_text()
    assert f"metrics are measured on {NUM} test pairs of {pairs}" in log and "measuring psnr, ssim0.003k, kd_" in log
    (line, _) = (whole / "metric-kd_offline0.006k_full.jsonl").read_text().splitlines()
    choices = json.loads(line)["choices"]
    assert choices["num_reals"] == NUM and choices["reals"]["split"] == choices["fakes"]["split"] == "test"
    assert choices["fakes"]["direction"] == "AtoB"


def test_the_command_gives_exactly_what_training_gave(whole, pairs, tmp_path):
    for nimg in (16, 32):
        snapshot = whole / f"network-snapshot-000000.0{nimg}.safetensors"
        output = metrics("--network", snapshot, "--data", pairs, "--metrics", NAMES, "--outdir", tmp_path)
        assert f"on {NUM} test pairs of" in output
    for name in NAMES.split(","):
        assert results(tmp_path, name) == results(whole, name)
    output = metrics("--network", whole, "--data", pairs, "--outdir", tmp_path)
    assert "no --metrics given: kd_offline0.006k_full,psnr0.006k,ssim0.006k, as in training" in output


def test_metrics_change_no_weights_and_none_are_measured_where_none_are_wanted(whole, pairs, tmp_path):
    translate("--data", pairs, "--outdir", tmp_path, *RUN, "--metrics", "none")
    assert not list(tmp_path.glob("metric-*")) and not (tmp_path / "network-best.safetensors").exists()
    name = "network-snapshot-000000.032.safetensors"
    a, b = (load_snapshot(run / name).networks["G"] for run in (whole, tmp_path))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_presets_measure_what_there_is(pairs, tmp_path):
    output = translate("--data", pairs, "--outdir", tmp_path / "run", *RUN, "--dry-run")
    expected = ["kd_offline0.006k_full", "psnr0.006k", "ssim0.006k"]
    assert json.loads(output[output.index("{") : output.rindex("}") + 1])["metrics"] == expected
    assert default_metrics(1000, has_pairs=True) == "kd_offline0.2k_full,psnr0.2k,ssim0.2k"
    assert default_metrics(1000, has_pairs=False, has_cycle=True) == "kd_offline0.2k_full,cycle_psnr0.2k"
    assert default_metrics(1, has_pairs=True) == "psnr,ssim"


def test_other_data_can_be_measured_on_and_training_images_are_told(pairs, tmp_path):
    other = make_pairs(tmp_path / "other", num=3)
    run = tmp_path / "run"
    translate("--data", pairs, "--outdir", run, *RUN, "--metrics", "mae", "--metrics-data", other, "--kimg", 0.016)
    assert f"measured on 3 training pairs of {other}" in (run / "log.txt").read_text()
    (line,) = map(json.loads, (run / "metric-mae.jsonl").read_text().splitlines())
    assert line["choices"]["num_fakes"] == 3
    assert line["warnings"] == ["no test or val images are there: measured on those of training"]
    shutil.rmtree(other)
    message = plain(translate("--outdir", run, "--resume", "latest", "--kimg", 0.032, code=2))
    assert f"--metrics-data: {other}: no such file or folder" in message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics", "psnrr"], "'--metrics': 'psnrr' is no metric; did you mean 'psnr'?"),
        (["--metrics", "cycle_psnr"], "cycle_psnr: compares images with what comes back of them"),
        (["--metrics", "psnr1k"], "psnr1k: needs 1000 fakes, got 6; ask for as many as there are: psnr0.006k"),
        (["--metrics", "ppl2_wend"], "ppl2_wend: measures a generator, not images"),
        (["--metrics", "none", "--patience", 2], "'--patience': needs --metrics"),
        (["--metrics-data", "nowhere"], "nowhere: no such file or folder; expected a folder or zip with pairs"),
    ],
)  # fmt: skip
def test_bad_input_is_a_message_and_writes_nothing(args, message, pairs, tmp_path):
    run = tmp_path / "run"
    output = translate("--data", pairs, "--outdir", run, *RUN, *args, code=2)
    assert message in plain(output) and not run.exists()


def test_options_that_a_translator_has_no_use_for_are_refused(whole, pairs, tmp_path):
    for option in (["--trunc", 0], ["--mirror"], ["--noise-mode", "const"], ["--save-stats", tmp_path / "a.npz"]):
        message = plain(metrics("--network", whole, "--data", pairs, "--metrics", "psnr", *option, code=2))
        assert f"'{option[0]}'" in message and "translates images" in message
    assert "Missing option '--data'" in metrics("--network", whole, "--metrics", "psnr", code=2)
    odd = make_pairs(tmp_path / "odd", num=2, size=31) / "A"
    message = plain(metrics("--network", whole, "--data", odd, "--metrics", "psnr", code=2))
    assert "even width" in message and "(of the held-out images, which metrics are measured on)" in message
    damaged = tmp_path / "network-snapshot-000001.safetensors"
    snapshot = load_snapshot(whole / "network-best.safetensors")
    training = {**snapshot.config["training"], "crop": {"size": -1}}
    save_snapshot(damaged, snapshot.networks, {**snapshot.config, "training": training})
    message = plain(metrics("--network", damaged, "--data", pairs, "--metrics", "psnr", code=2))
    assert "settings of the snapshot's training are damaged: crop: size must be a whole number" in message


def test_a_metric_of_pairs_is_refused_for_a_generator(tmp_path, dataset_zip):
    from tests.scripts.test_train import ggdr_train
    from tests.tiny import save_tiny, tiny_generator

    message = plain(ggdr_train("--data", dataset_zip, "--outdir", tmp_path / "run", "--metrics", "psnr", code=2))
    assert "psnr: compares translations with what they should be: expected pairs of images" in message
    network = save_tiny(tmp_path / "network.safetensors", tiny_generator())
    message = plain(metrics("--network", network, "--data", dataset_zip, "--metrics", "colourfulness", code=2))
    assert "say how many, as in colourfulness5k" in message
    assert "colourfulness0.01k" in metrics("--network", network, "--metrics", "colourfulness0.01k")


def worse_with_time(monkeypatch):
    """From now on each snapshot is worse than the one before."""
    import ggdr.scripts.measuring.snapshot_metrics as module

    def measured(judge, specs, snapshot, group, **changes):
        found = measure(judge, specs, snapshot, group, **changes)
        nimg = load_snapshot(snapshot, tensors=False).nimg
        for result in found:
            result.values.update(dict.fromkeys(result.values, -float(nimg)))
        return found

    monkeypatch.setattr(module, "measure", measured)


def test_training_ends_once_no_snapshot_has_been_better_for_long(pairs, tmp_path, monkeypatch):
    worse_with_time(monkeypatch)
    run = tmp_path / "run"
    args = ["--data", pairs, "--outdir", run, *TINY, "--no-ggdr", "--kimg", 0.16, "--metrics", "psnr", "--patience", 2]
    output = translate(*args)
    assert list(results(run, "psnr")) == [16, 32, 48]
    told = "psnr has not been better than -16 at kimg 0.016 for 2 snapshots: training ends (--patience 2)"
    assert told in output and f"done: results in {run}" in output
    best = (run / "network-best.safetensors").read_bytes()
    # What was measured by command does not count.
    path = run / "metric-psnr.jsonl"
    by_command = {"metric": "psnr", "results": {"psnr": 99.0}, "nimg": 48, "kimg": 0.048}
    path.write_text(path.read_text() + json.dumps(by_command) + "\n")
    # It stays at its end, and goes on with more patience.
    assert told in translate("--outdir", run, "--resume", "latest")
    assert list(results(run, "psnr")) == [16, 32, 48]
    output = translate("--outdir", run, "--resume", "latest", "--patience", 3)
    assert list(results(run, "psnr")) == [16, 32, 48, 64] and "for 3 snapshots" in output
    assert (run / "network-best.safetensors").read_bytes() == best


def test_a_resumed_run_knows_how_long_none_has_been_better(pairs, tmp_path, monkeypatch):
    worse_with_time(monkeypatch)
    run = tmp_path / "run"
    args = ["--data", pairs, "--outdir", run, *TINY, "--no-ggdr", "--metrics", "psnr", "--patience", 2]
    translate(*args, "--kimg", 0.032)
    assert list(results(run, "psnr")) == [16, 32]
    translate("--outdir", run, "--resume", "latest", "--kimg", 0.16)
    assert list(results(run, "psnr")) == [16, 32, 48]


def test_runs_that_grow_better_come_to_their_end(pairs, tmp_path, monkeypatch):
    worse_with_time(monkeypatch)
    args = ["--data", pairs, "--outdir", tmp_path, *RUN, "--kimg", 0.064, "--metrics", "mae", "--patience", 1]
    assert "done: 0.064 kimg" in translate(*args)  # of an error the lower is the better


def test_two_processes_measure_what_one_measures(whole, pairs, tmp_path):
    words = ["--network", whole / "network-snapshot-000000.032.safetensors", "--data", pairs, "--metrics", NAMES]
    code, output = torchrun("-m", "ggdr", "metrics", *words, "--outdir", tmp_path, "--device", "cpu", "--batch", 2)
    assert code == 0, output
    for name in NAMES.split(","):
        assert results(tmp_path, name)[32] == pytest.approx(results(whole, name)[32], rel=1e-6)


def domains(tmp_path):
    rng = np.random.RandomState(1)
    for side, num in (("A", 5), ("B", 4)):
        (tmp_path / f"train{side}").mkdir()
        for i in range(num):
            Image.fromarray(rng.randint(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"train{side}" / f"{i}.png")
    return UnpairedImages(tmp_path)


def judge_of_domains(dataset, translators, names="AB"):
    """A judge of two directions, as of a CycleGAN."""
    training, job = {"crop": {"size": 16}}, replace(training_job(GROUP), batch=2)
    judge = open_domains_judge(training, Path(dataset.path), job, names)
    judge.load = lambda path, device: translators
    return judge


def test_both_directions_and_their_cycles_are_measured(tmp_path):
    dataset = domains(tmp_path)

    def darker(images_u8, seeds):
        return from_u8(images_u8 // 2)

    def negative(images_u8, seeds):
        return -from_u8(images_u8)

    snapshot = tmp_path / "network-snapshot-000001.safetensors"
    snapshot.write_bytes(b"")
    judge = judge_of_domains(dataset, {"AtoB": darker, "BtoA": negative})
    specs = parse_metrics("fd_offline0.004k_full,cycle_mae,colourfulness")
    judge.check(specs)
    assert "measured on 4 to 5 training images of a domain" in judge.about
    assert judge.defaults == "kd_offline0.004k_full,cycle_psnr0.004k"
    fd, cycle, colourful = measure(judge, specs, snapshot, GROUP)
    name = "fd_offline0.004k_full"
    assert list(fd.values) == [name, f"{name}_AtoB", f"{name}_BtoA"]
    assert fd.value == pytest.approx((fd.values[f"{name}_AtoB"] + fd.values[f"{name}_BtoA"]) / 2)
    for i, first, back in ((0, darker, negative), (1, negative, darker)):
        images = torch.from_numpy(MeasuredDomain(dataset, CropConfig(16), i).images.read(range(5 - i)))
        returned = to_u8(back(to_u8(first(images, None)), None))
        expected = mean_absolute_error(returned, images).mean().item()
        assert cycle.values["cycle_mae_" + ("AtoB", "BtoA")[i]] == pytest.approx(expected, rel=1e-6)
    assert colourful.choices["directions"]["AtoB"]["num_fakes"] == 5
    # What reports make of these names.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"metric-{name}.jsonl").write_text(json.dumps({**fd.to_json(), "kimg": 1.0}) + "\n")
    panels = metric_panels(read_metrics(tmp_path / "run"))
    assert [(x.name, x.label, x.group) for x in panels] == [
        (METRIC + name, name, name), (f"{METRIC}{name}_AtoB", "AtoB", name), (f"{METRIC}{name}_BtoA", "BtoA", name)
    ]  # fmt: skip


def test_domains_are_as_many_as_the_network_has_and_have_no_pairs(tmp_path):
    dataset, snapshot = domains(tmp_path), tmp_path / "network-snapshot-000001.safetensors"
    with pytest.raises(DataError, match="expected 3 domains, found 2: A, B"):
        judge_of_domains(dataset, {}, names="ABC")
    with pytest.raises(MetricError, match="translates 0to1, and the domains of .* ask for 1to0"):
        judge_of_domains(dataset, {"0to1": None}, names=None).jobs(snapshot, [])
    judge = judge_of_domains(dataset, {})
    with pytest.raises(MetricError, match="psnr: compares translations with what they should be: expected pairs"):
        judge.check(parse_metrics("psnr"))
    with pytest.raises(MetricError, match="cycle_psnr0.005k: needs 5 fakes, got 4"):
        judge.check(parse_metrics("cycle_psnr0.005k"))


def test_each_image_has_a_seed_of_its_own_and_one_that_diverged_is_named(pairs):
    seen = []

    def translate_to_grey(images_u8, seeds):
        seen.extend(seeds)
        return from_u8(images_u8[:, :1])

    measured = MeasuredPairs(PairedImages(pairs, split="test"), CropConfig(32))
    images = TranslatedImages(measured, translate_to_grey, first_seed=100)
    (stacked,) = images.batches([np.array([4, 1])])
    assert seen == [104, 101] and stacked.shape == (2, 6, 32, 32) and stacked.dtype == torch.uint8
    assert torch.equal(stacked[:, 3:], torch.from_numpy(measured.read([4, 1])["B"]))
    broken = TranslatedImages(measured, lambda images_u8, seeds: from_u8(images_u8) / 0, about={"network": "x"})
    with pytest.raises(MetricError, match="x: its images hold NaN or infinite numbers"):
        next(broken.batches([np.array([0])]))


def test_a_study_of_translators_compares_them(pairs, tmp_path):
    folder = tmp_path / "study"
    words = ["--outdir", folder, "--command", "translate train", "--seeds", "0", "--jobs", 1]
    words += ["--variant", "none=--no-ggdr", "--variant", "l1=--no-ggdr --l1-weight 10", "--", "--data", pairs, *TINY]
    output = compare("--dry-run", *words, "--kimg", 0.032)
    assert "and their features (offline, pairs, ssim)" in output and not folder.exists()
    compare(*words, "--kimg", 0.032)
    text = table(folder)
    assert "psnr0.006k" in text and "kd_offline0.006k_full_mean" in text and "nan" not in text
    assert (folder / "l1" / "seed0" / "network-best.safetensors").exists()
    log = (folder / "none" / "seed0.log").read_text()
    assert log.startswith("$ ggdr translate train --outdir") and "--metrics kd_offline0.006k_full,psnr0.006k" in log
    compare("--outdir", folder, "--metrics", "mae", "--jobs", 1)
    assert "mae" in table(folder) and len(results(folder / "none" / "seed0", "mae")) == 2
    message = plain(compare("--outdir", folder, "--command", "train", code=2))
    assert "holds a study of `ggdr translate train`, got one of `ggdr train`" in message
