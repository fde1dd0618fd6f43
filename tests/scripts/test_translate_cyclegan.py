# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate train --model cyclegan` as its users run it: run folders, resuming, transfer, bad input."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.scripts.options.translation import MODEL_OPTIONS, MODELS, parse_cycle_weight
from ggdr.torch_utils.checkpoint import load_snapshot, load_state
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.torch_utils.runlog import read_stats
from ggdr.translation.config import ResnetGeneratorConfig, config_from_json
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.data.measured import MeasuredDomain
from ggdr.translation.networks import build_network
from ggdr.translation.presets import PRESETS
from ggdr.translation.snapshot import load_translator
from tests.conftest import python, torchrun
from tests.scripts.test_train import assert_same_weights, ggdr_train
from tests.scripts.test_translate import SIZE, make_pairs, plain, timeless, translate
from tests.scripts.test_translate_metrics import metrics, results
from tests.translation.pictures import samples_of

NUM = {"horse": 9, "zebra": 14}
TINY = ["--model", "cyclegan", "--cfg", "cpu", "--channels", 4, "--blocks", 1, "--device", "cpu", "--batch", 4]
TINY += ["--tick", 0.008, "--snap", 2]
SMALL_POOL = ["--pool-size", 6]  # full after two iterations


def make_domains(folder, num=NUM):
    """Smooth images of each domain, those of the first one bright."""
    rng = np.random.RandomState(0)
    for name, count in num.items():
        low = 128 if name == next(iter(num)) else 0
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.randint(low, low + 128, (4, 4, 3)).astype(np.uint8)
            img = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            img.save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return make_domains(tmp_path_factory.mktemp("data") / "domains")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, domains):
    """A run of 8 iterations in four ticks, whose pools are full after two."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    translate("--data", domains, "--outdir", run, *TINY, *SMALL_POOL, "--kimg", 0.032)
    return run


def settings_of(*args):
    output = translate(*args, "--dry-run")
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


def test_a_run_folder_holds_settings_pictures_and_snapshots(whole, domains):
    names = {path.name for path in whole.iterdir()}
    snapshots = {f"network-snapshot-000000.{n}.safetensors" for n in ("016", "032")}
    pictures = {f"translations_{side}000000.{n}.png" for n in ("000", "016", "032") for side in "AB"}
    assert snapshots | pictures | {"training_options.json", "log.txt", "stats.jsonl", "training-state.pt"} <= names
    stats = [line for line in read_stats(whole) if "rate" in line]  # others are of metrics
    assert [line["nimg"] for line in stats] == [8, 16, 24, 32] and stats[-1]["rate"] == 0
    terms = [f"loss_term/{kind}_{side}" for kind in ("gan", "cycle", "identity") for side in "AB"]
    rest = ["loss/D_A", "loss/D_B", "loss/G", "score_A/real", "cycle/B", "identity/A", "ggdr_A/distance"]
    assert {*terms, *rest} <= stats[0].keys()
    options = json.loads((whole / "training_options.json").read_text())
    assert options["host"] == options["command"]["model"] == "cyclegan"
    assert config_from_json(options["G_B"]) == ResnetGeneratorConfig(3, 3, 4, 1, "instance", False)
    assert options["data"]["domains"] == list(NUM) and options["data"]["num_images"] == list(NUM.values())
    titles = [picture["title"] for picture in options["pictures"]]
    assert titles == [f"{way}: input, output, reconstruction, identity" for way in ("horse to zebra", "zebra to horse")]
    assert {panel["label"] for panel in options["panels"]} >= {"real horse", "horse to zebra", "cycle zebra"}
    snapshot = load_snapshot(whole / max(snapshots))
    assert snapshot.networks.keys() == {"G_A", "G_B", "D_A", "D_B", "ggdr_A", "ggdr_B"}
    assert snapshot.config["domains"] == list(NUM)
    log = (whole / "log.txt").read_text()
    assert f"9 of horse and 14 of zebra from {domains}, 32x32 pixels, resnets of 4 channels, batch 4, 0.032 kimg" in log


def test_both_directions_and_their_cycles_are_measured_as_the_network_translates(whole, domains):
    name = "kd_offline0.009k_full"
    assert {f"{name}_mean_AtoB", f"{name}_mean_BtoA"} <= results(whole, name)[32].keys()
    assert (whole / "network-best.safetensors").exists()
    snapshot, data = whole / "network-snapshot-000000.032.safetensors", UnpairedImages(domains)
    translator, expected = load_translator(snapshot), {}
    for number, (source, target) in enumerate((NUM, reversed(NUM))):
        img = torch.from_numpy(MeasuredDomain(data, CropConfig(SIZE), number).read(range(NUM[source]))["A"])
        there = to_u8(translator(from_u8(img), source, target))
        back = to_u8(translator(from_u8(there), target, source))
        distance = (back.float() - img.float()).abs().mean() / 127.5
        expected[f"cycle_mae_{'AB'[number]}to{'BA'[number]}"] = pytest.approx(float(distance), rel=1e-5)
    printed = metrics("--network", snapshot, "--data", domains, "--metrics", "cycle_mae", "--json")
    found = json.loads(printed.splitlines()[-1])["results"]
    assert found == {**expected, "cycle_mae": pytest.approx(sum(found[name] for name in expected) / 2)}


def test_its_pictures_show_input_output_reconstruction_and_identity(whole):
    snapshot = load_snapshot(whole / "network-snapshot-000000.032.safetensors")
    nets = {}
    for name in ("G_A", "G_B"):
        nets[name] = build_network(config_from_json(snapshot.config[name]))
        nets[name].load_state_dict(snapshot.networks[name])
    for (side, other), rows in zip(("AB", "BA"), (2, 3), strict=True):  # of 9 and 14 images, four in a row
        path = whole / f"translations_{side}000000.032.png"
        samples = samples_of(path, columns=4, rows=rows, images=4, size=SIZE)
        img, *shown = torch.from_numpy(samples.transpose(1, 0, 4, 2, 3).copy())
        assert (img.float().mean(dim=[1, 2, 3]) > 128).all() == (side == "A")
        assert len({x.numpy().tobytes() for x in img}) == rows * 4
        there, back = nets[f"G_{side}"], nets[f"G_{other}"]
        with torch.no_grad():
            expected = [there(from_u8(img)), back(there(from_u8(img))), back(from_u8(img))]
        for x, y in zip(shown, expected, strict=True):
            assert (x.int() - to_u8(y).int()).abs().max() <= 1


def test_resuming_is_bit_for_bit_what_an_uninterrupted_run_gives(whole, domains, tmp_path):
    run = tmp_path / "run"
    # In the middle of a tick, when pools are full and fakes were exchanged.
    process = python(
        "-c",
        "import os, signal, sys\n"
        "import ggdr.torch_utils.loop as loop\n"
        "run = loop.PhaseRunner.iteration\n"
        "def iteration(self, batch, at):\n"
        "    if at.step == 4: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return run(self, batch, at)\n"
        "loop.PhaseRunner.iteration = iteration\n"
        "from ggdr.scripts.cli import main\n"
        "main(['translate', 'train', *sys.argv[1:]])\n",
        *["--data", domains, "--outdir", run, *TINY, *SMALL_POOL, "--kimg", 0.032],
    )
    output = process.communicate()[0]
    assert process.returncode == 130 and "stopped by SIGTERM at 0.02 kimg" in output, output
    assert f"ggdr translate train --outdir {run} --resume latest" in output
    pools = load_state(run / "training-state.pt")["task"]["pools"]
    assert [len(pool["images"]) for pool in pools.values()] == [6, 6]
    translate("--outdir", run, "--resume", "latest")
    assert_same_weights(run, whole)
    assert timeless(run) == timeless(whole)
    final = [load_state(path / "training-state.pt")["task"]["pools"] for path in (run, whole)]
    for side, pool in pools.items():
        assert torch.equal(*(pools[side]["images"] for pools in final))
        assert not torch.equal(pool["images"], final[0][side]["images"])
    assert "already finished" in translate("--outdir", run, "--resume", "latest", "--model", "cyclegan")


def test_two_processes_give_what_one_gives(whole, domains, tmp_path):
    run = tmp_path / "two"
    words = ["--data", domains, "--outdir", run, *TINY, *SMALL_POOL, "--kimg", 0.032]
    code, output = torchrun("-m", "ggdr", "translate", "train", *words)
    assert code == 0, output
    # Later ticks differ as rounding grows; in the second one fakes are exchanged for older ones already.
    for a, b in zip(read_stats(whole)[:2], read_stats(run)[:2], strict=True):
        keys = [key for key in a if key.startswith(("loss", "score", "cycle", "identity", "ggdr", "rate"))]
        assert len(keys) > 15
        assert {k: a[k] for k in keys} == pytest.approx({k: b[k] for k in keys}, rel=1e-3, abs=1e-4)


def test_presets_are_those_of_the_paper_and_small_on_a_cpu(domains, tmp_path):
    args = ["--model", "cyclegan", "--data", domains, "--outdir", tmp_path / "run", "--device", "cpu"]
    paper = settings_of(*args)
    resnet = {"network": "resnet_generator", "channels": 64, "blocks": 9, "norm": "instance", "dropout": False}
    assert all(resnet.items() <= paper[name].items() for name in ("G_A", "G_B"))
    # An epoch is over the larger domain.
    assert paper["optim"]["constant_nimg"] == paper["optim"]["falling_nimg"] == 100 * NUM["zebra"]
    loss = {"gan_loss": "least_squares", "gan_weight": 1, "cycle_weight_A": 10, "cycle_weight_B": 10}
    assert {**loss, "identity_weight": 5, "pool_size": 50, "lr": 2e-4}.items() <= paper["optim"].items()
    assert paper["crop"]["size"] == 256 and paper["loop"]["batch"] == 1 and paper["D_A"]["layers"] == 3
    assert paper["regularizers"]["ggdr"]["guide_res"] == [64] and not (tmp_path / "run").exists()
    small = settings_of(*args, "--cfg", "cpu", "--cycle-weight", "7,0", "--gan-weight", 0, "--generator", "unet")
    assert small["crop"]["size"] == 32 and small["G_A"]["network"] == "unet_generator"
    assert [small["optim"][name] for name in ("cycle_weight_A", "cycle_weight_B", "gan_weight")] == [7, 0, 0]


def test_every_model_has_the_same_presets():
    assert PRESETS.keys() == set(MODELS)
    assert len({tuple(presets) for presets in PRESETS.values()}) == 1


def test_terms_of_weight_0_are_neither_computed_nor_reported(domains, tmp_path):
    args = ["--data", domains, "--outdir", tmp_path / "run", *TINY, "--kimg", 0.008, "--no-ggdr"]
    translate(*args, "--cycle-weight", "10,0", "--gan-weight", 0, "--identity-weight", 0, "--pool-size", 0)
    terms = {key for key in read_stats(tmp_path / "run")[0] if key.startswith(("loss_term", "cycle", "identity"))}
    assert terms == {"loss_term/cycle_A", "cycle/A", *(f"loss_term/D_{s}_{k}" for s in "AB" for k in ("fake", "real"))}
    declared = json.loads((tmp_path / "run" / "training_options.json").read_text())["panels"]
    assert {x["group"] for x in declared} >= {"Cycle"} and not {x["group"] for x in declared} & {"Identity"}


def test_a_run_starts_from_the_weights_of_a_snapshot_with_its_networks(whole, tmp_path):
    snapshot, run = whole / "network-snapshot-000000.032.safetensors", tmp_path / "run"
    other = make_domains(tmp_path / "other", {"apple": 8, "zebra": 8})
    args = [*TINY[:4], *TINY[8:], "--data", other, "--kimg", 0.008]
    output = translate(*args, "--outdir", run, "--resume", snapshot, "--ggdr-res", 16, "--lr", 1e-12)
    assert "no weights of ggdr_A like this run's" in output
    assert "the networks of horse go on with apple" in plain(output)
    after = load_snapshot(run / "network-snapshot-000000.008.safetensors")
    assert after.config["domains"] == ["apple", "zebra"]
    for name, value in load_snapshot(snapshot).networks["G_B"].items():
        torch.testing.assert_close(after.networks["G_B"][name], value, rtol=0, atol=1e-6)
    # The networks are known also without the snapshot, and the model without --model.
    assert "kimg 0.008 -> 0.012" in translate("--outdir", run, "--resume", "latest", "--kimg", 0.012)
    message = plain(translate(*args[2:], "--outdir", tmp_path / "b", "--resume", snapshot, "--norm", "batch", code=2))
    assert "'--norm': the networks are those of" in message
    grey = [*args, "--outdir", tmp_path / "c", "--resume", snapshot, "--img-channels", 1]
    assert "its images have 1 and 1 channels" in plain(translate(*grey, code=2))


def test_a_run_that_goes_on_keeps_its_domains(whole, domains, tmp_path):
    renamed, run = tmp_path / "renamed", tmp_path / "run"
    shutil.copytree(domains, renamed)
    (renamed / "zebra").rename(renamed / "donkey")
    shutil.copytree(whole, run)
    output = plain(translate("--outdir", run, "--resume", "latest", "--data", renamed, "--kimg", 0.04, code=2))
    assert "a run cannot go on with another data.domains horse, zebra -> donkey, horse" in output


@pytest.mark.parametrize("names", [["horse", "mule"], ["mule", "ox"]], ids=["one-is-there", "none-is-there"])
def test_metrics_refuse_data_without_the_domains_of_the_snapshot(whole, domains, tmp_path, names):
    other = make_domains(tmp_path / "other", dict.fromkeys(names, 4))
    missing = ", ".join(name for name in NUM if name not in names)
    expected = f"holds no domain {missing}; it has {', '.join(names)}"
    out, metric = tmp_path / "out", ["--metrics", "cycle_mae0.004k"]
    output = metrics("--network", whole, "--data", other, *metric, "--outdir", out, code=2)
    assert expected in plain(output) and not list(out.glob("metric-*"))
    run = ["--data", domains, "--outdir", tmp_path / "run", *TINY, *metric, "--metrics-data", other]
    assert expected in plain(translate(*run, code=2)) and not (tmp_path / "run").exists()


def test_domains_without_names_are_measured_by_order_which_is_told(whole, domains, tmp_path):
    lettered, metric = tmp_path / "lettered", "cycle_mae0.004k"
    for name, side in zip(NUM, "AB", strict=True):
        shutil.copytree(domains / name, lettered / f"train{side}")
    output = metrics("--network", whole, "--data", lettered, "--metrics", metric, "--outdir", tmp_path / "a")
    assert "A as horse, B as zebra" in plain(output)
    metrics("--network", whole, "--data", domains, "--metrics", metric, "--outdir", tmp_path / "b")
    assert results(tmp_path / "a", metric) == results(tmp_path / "b", metric)


def test_snapshots_and_runs_of_other_models_are_refused_by_name(whole, domains, tmp_path):
    snapshot = whole / "network-snapshot-000000.032.safetensors"
    pairs = make_pairs(tmp_path / "pairs", num=4)
    args = ["--model", "pix2pix", "--cfg", "cpu", "--data", pairs, "--outdir", tmp_path / "run"]
    for output in (
        translate(*args, "--resume", snapshot, code=2),
        ggdr_train("--data", domains, "--outdir", tmp_path / "run", "--resume", snapshot, code=2),
    ):
        assert "a snapshot of cyclegan, and this run is one of" in plain(output)
    output = plain(translate("--model", "pix2pix", "--outdir", whole, "--resume", "latest", code=2))
    assert "the run is one of cyclegan, and this command trains pix2pix" in output
    short = [*args, "--kimg", 0.004, "--channels", 4, "--no-ggdr", "--tick", 0.004, "--snap", 1]
    translate(*short)
    theirs = tmp_path / "run" / "network-snapshot-000000.004.safetensors"
    output = translate(*TINY[:4], "--data", domains, "--outdir", tmp_path / "b", "--resume", theirs, code=2)
    assert "a snapshot of pix2pix, and this run is one of cyclegan" in plain(output)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "cyclgan"], "combogan or oasis or cc-fpse, got 'cyclgan'; did you mean 'cyclegan'?"),
        (["--direction", "BtoA"], "'--direction': has no meaning for cyclegan; in pix2pix, oasis and cc-fpse it says"),
        (["--l1-weight", "1"], "'--l1-weight': has no meaning for cyclegan; in pix2pix it weighs the distance"),
        (["--cycle-weight", "1,2,3"], "expected one weight, or FORWARD,BACKWARD, from 0 to 1e+06; got '1,2,3'"),
        (["--cycle-weight", "1,nan"], "got '1,nan'"),
        (["--pool-size", "-1"], "expected a whole number from 0, got '-1'"),
        (["--gan-weight", "0", "--cycle-weight", "0", "--identity-weight", "0"], "all of G's losses are 0"),
        (["--epochs", "5", "--kimg", "1"], "'--epochs': and --kimg both say how long"),
        (["--d-layers", "12"], "'--d-layers': a discriminator of 12 layers takes images from 12288 pixels up"),
        (["--crop", "20"], "'--crop': a discriminator of 3 layers takes images from 24 pixels up, got 20"),
        (["--crop", "38"], "'--crop': regularisers need images whose side is a multiple of 4"),
        (["--downs", "6"], "'--downs': has no meaning for --generator resnet"),
        (["--fit", "none", "--crop", "64"], "00.png: is 32x32, smaller than the crop of 64x64"),
        (["--ggdr-res", "4"], "expected a whole number from 8, got '4'"),
        (["--data", "nowhere"], "--data: nowhere: no such file or folder; expected a folder or zip with the images of"),
    ],
)  # fmt: skip
def test_bad_input_is_a_message_and_writes_nothing(args, message, domains, tmp_path):
    run = tmp_path / "run"
    output = translate("--data", domains, "--outdir", run, *TINY, *args, code=2)
    assert message in plain(output) and not run.exists()


def test_a_unet_that_halves_too_often_is_blamed_on_its_option(domains, tmp_path):
    args = [
        "--data",
        domains,
        "--outdir",
        tmp_path / "run",
        "--model",
        "cyclegan",
        "--cfg",
        "cpu",
        "--generator",
        "unet",
    ]
    output = plain(translate(*args, "--downs", 6, code=2))
    assert "'--downs': regularisers need images whose side is a multiple of 64 for this generator, got 32" in output


def test_data_of_other_than_two_domains_are_named(tmp_path):
    three = make_domains(tmp_path / "three", {"a": 2, "b": 2, "c": 2})
    output = plain(translate("--data", three, "--outdir", tmp_path / "run", *TINY, code=2))
    assert "three: holds 3 domains, a, b, c; cyclegan translates between two" in output


@pytest.mark.parametrize("option", [name for name, of in MODEL_OPTIONS.items() if "pix2pix" not in of.models])
def test_options_of_others_are_refused_for_pix2pix(option, tmp_path):
    pairs, word = make_pairs(tmp_path / "pairs", num=2), f"--{option.replace('_', '-')}"
    value = {"domains": "a,b"}.get(option, 1)
    # The model is given, since --add-domain alone means combogan.
    args = ["--model", "pix2pix", "--data", pairs, "--outdir", tmp_path / "run", "--cfg", "cpu", word, value]
    output = plain(translate(*args, code=2))
    models = " and ".join(MODEL_OPTIONS[option].models)
    assert f"'{word}': has no meaning for pix2pix; in {models} it " in output and not (tmp_path / "run").exists()


def test_a_folder_without_a_run_is_named_before_data_are_asked_for(tmp_path):
    output = plain(translate("--outdir", tmp_path / "none", "--resume", "latest", code=2))
    assert "--resume: there is no run in" in output and "to go on with; give --data to start one" in output


def test_a_truncated_state_is_named_once(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    state = run / "training-state.pt"
    state.write_bytes(state.read_bytes()[:5000])
    output = translate("--outdir", run, "--resume", "latest", "--kimg", 0.04, code=2)
    assert output.count("training-state.pt") == 1 and "not a readable training state" in plain(output)


def test_a_longer_run_numbers_no_tick_twice(domains, tmp_path):
    run = tmp_path / "run"
    args = ["--data", domains, "--outdir", run, *TINY[:10], "--no-ggdr", "--tick", 0.008]
    ticks = re.compile(r"^tick (\S+)", re.MULTILINE)
    assert ticks.findall(translate(*args, "--batch", 4, "--kimg", 0.012)) == ["1", "1.5"]
    assert ticks.findall(translate("--outdir", run, "--resume", "latest", "--kimg", 0.016)) == ["2"]


def test_cycle_weights_are_read_as_they_are_meant():
    assert parse_cycle_weight("10") == (10, 10) and parse_cycle_weight("10,0") == (10, 0)
    for text in ("", ",", "1,", "a", "-1", "1,2,3", "inf"):
        with pytest.raises(ValueError, match="expected one weight"):
            parse_cycle_weight(text)


def test_domains_of_the_data_are_chosen_and_have_their_order(tmp_path):
    data, run = make_domains(tmp_path / "data", {"apple": 4, "horse": 5, "zebra": 6}), tmp_path / "run"
    args = ["--data", data, *TINY, "--kimg", 0.008]
    assert "3 domains, apple, horse, zebra; cyclegan translates between two, which --domains chooses" in plain(
        translate(*args, "--outdir", run, code=2)
    )
    metric = ["--metrics", "cycle_mae0.004k"]
    assert "A is zebra, B is apple" in translate(*args, *metric, "--outdir", run, "--domains", "zebra,apple")
    found = json.loads((run / "training_options.json").read_text())["data"]
    assert found["domains"] == ["zebra", "apple"] and found["num_images"] == [6, 4]
    metrics("--network", run, "--data", data, *metric, "--outdir", tmp_path)
    assert results(tmp_path, metric[1]) == results(run, metric[1])
    go_on = ["--outdir", run, "--resume", "latest", "--kimg", 0.012]
    refused = translate(*go_on, "--domains", "apple,horse", code=2)
    assert "cannot go on with another data.domains zebra, apple -> apple, horse" in plain(refused)
    assert "A is zebra, B is apple" in translate(*go_on)
    combogan = ["--model", "combogan", "--cfg", "cpu", "--data", data, "--outdir", tmp_path / "b"]
    assert settings_of(*combogan, "--domains", "zebra,apple")["data"]["domains"] == ["zebra", "apple"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("horse,donkey", "holds no domain donkey; it has horse, zebra"),
        ("horse", "expected two different names or more, as in horse,zebra; got 'horse'"),
        ("horse,horse", "expected two different names or more"),
        ("horse,", "expected names of 1 to 100 characters, as in horse,zebra; got '' in 'horse,'"),
    ],
)
def test_domains_that_are_not_there_are_a_message(names, message, domains, tmp_path):
    output = plain(translate("--data", domains, "--outdir", tmp_path / "run", *TINY, "--domains", names, code=2))
    assert "'--domains': " in output and message in output
