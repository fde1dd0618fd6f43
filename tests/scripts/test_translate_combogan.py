# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate train --model combogan` as its users run it: run folders, resuming, transfer, bad input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.scripts.options.translation import COMBOGAN_BLOCKS, MODEL_OPTIONS
from ggdr.scripts.reports.read_run import read_run
from ggdr.scripts.training.hosts import translator_host
from ggdr.torch_utils.checkpoint import load_snapshot, load_state
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.torch_utils.runlog import read_stats
from ggdr.translation.config import ComboGANGeneratorConfig, config_from_json
from ggdr.translation.data.datasets import UnpairedImages, domain_pairs
from ggdr.translation.snapshot import load_translator
from tests.conftest import python, torchrun
from tests.scripts.test_train import assert_same_weights
from tests.scripts.test_translate import SIZE, plain, timeless, translate
from tests.scripts.test_translate_cyclegan import make_domains, settings_of
from tests.scripts.test_translate_metrics import results

NUM = {"autumn": 8, "spring": 9, "winter": 12}
MODEL = ["--model", "combogan", "--cfg", "cpu", "--device", "cpu"]
TINY = [*MODEL, "--channels", 4, "--encoder-blocks", 1, "--decoder-blocks", 1, "--shared-encoder-blocks", 1]
TINY += ["--batch", 4, "--tick", 0.008, "--snap", 2, "--pool-size", 6]
METRIC = ["--metrics", "cycle_mae0.004k"]


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return make_domains(tmp_path_factory.mktemp("data") / "domains", NUM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, domains):
    """A run of 12 iterations in six ticks."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    translate("--data", domains, "--outdir", run, *TINY, *METRIC, "--kimg", 0.048)
    return run


def last_of(run):
    return max(run.glob("network-snapshot-*.safetensors"))


def stopped_at(step, *args):
    """Runs the command in a process of its own that gets SIGTERM in an iteration; what it printed."""
    process = python(
        "-c",
        "import os, signal, sys\n"
        "import ggdr.torch_utils.loop as loop\n"
        "run = loop.PhaseRunner.iteration\n"
        "def iteration(self, batch, at):\n"
        f"    if at.step == {step}: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return run(self, batch, at)\n"
        "loop.PhaseRunner.iteration = iteration\n"
        "from ggdr.scripts.cli import main\n"
        "main(['translate', 'train', *sys.argv[1:]])\n",
        *args,
    )
    output = process.communicate()[0]
    assert process.returncode == 130, output
    return output


def test_a_run_folder_holds_settings_pictures_and_snapshots(whole, domains):
    stats = [line for line in read_stats(whole) if "rate" in line]
    assert [line["nimg"] for line in stats] == [8, 16, 24, 32, 40, 48] and stats[-1]["rate"] == 0
    terms = {key for key in stats[0] if key.startswith("loss_term")}
    assert terms == {f"loss_term/{name}" for name in ("D_fake", "D_real", "G_gan", "cycle", "ggdr")}
    assert {"loss/D", "loss/G", "score/real", "cycle/distance", "ggdr/distance"} <= stats[0].keys()
    options = json.loads((whole / "training_options.json").read_text())
    assert options["host"] == options["command"]["model"] == "combogan" and options["frozen"] == []
    assert config_from_json(options["G"]) == ComboGANGeneratorConfig(3, 4, 1, 1, 1, 0, domains=3)
    assert options["data"]["domains"] == list(NUM) and options["data"]["num_images"] == list(NUM.values())
    snapshot = load_snapshot(last_of(whole))
    assert snapshot.networks.keys() == {"G", *(f"{name}_{i}" for name in ("D", "ggdr") for i in range(3))}
    assert snapshot.config["domains"] == list(NUM)
    text = f"3 domains, 8 of autumn, 9 of spring, 12 of winter, from {domains}, 32x32 pixels, 4 channels, batch 4"
    assert text in (whole / "log.txt").read_text()


def test_its_picture_shows_inputs_as_each_domain(whole, domains):
    picture = np.asarray(Image.open(whole / "translations000000.048.png"))
    data, translator = UnpairedImages(domains), load_translator(last_of(whole))
    rows = 6  # two of each domain
    scale = picture.shape[0] // (rows * SIZE)
    assert (picture[: -rows * SIZE * scale] == 255).any()  # the names at the top
    picture = picture[-rows * SIZE * scale :, -4 * SIZE * scale :][::scale, ::scale]  # without names
    cells = torch.from_numpy(picture.reshape(rows, SIZE, 4, SIZE, 3).transpose(0, 2, 4, 1, 3).copy())
    for row, source in enumerate(name for name in NUM for _ in range(2)):
        img = cells[row, :1]
        assert (img.float().mean() > 128) == (source == "autumn")
        for column, target in enumerate(NUM, 1):
            expected = to_u8(translator(from_u8(img), source, target))
            assert (expected.int() - cells[row, column].int()).abs().max() <= 1
    assert data.names == list(NUM)


def test_all_directions_are_measured_by_numbers_in_the_order_of_the_settings(whole):
    names = {"cycle_mae0.004k", *(f"cycle_mae0.004k_{a}to{b}" for a in range(3) for b in range(3) if a != b)}
    assert results(whole, "cycle_mae0.004k")[48].keys() == names
    assert (whole / "network-best.safetensors").exists()


def test_reports_call_directions_by_the_names_of_domains(whole):
    metric, *ways = read_run(whole, "run").metrics
    assert metric.label == metric.group == "cycle_mae0.004k"
    labels = {way.name: way.label for way in ways}
    expected = {f"_{i}to{j}": f"{a} to {b}" for i, a in enumerate(NUM) for j, b in enumerate(NUM) if a != b}
    assert labels == {f"{metric.name}{name}": label for name, label in expected.items()}


def test_default_metrics_take_fewer_images_where_there_are_many_directions(tmp_path):
    few, many = (make_domains(tmp_path / str(n), {f"d{i}": 150 for i in range(n)}) for n in (2, 4))
    found = [settings_of("--data", data, "--outdir", tmp_path / "run", *TINY)["metrics"] for data in (few, many)]
    assert found == [[f"kd_offline{n}k_full", f"cycle_psnr{n}k"] for n in (0.15, 0.1)]


def test_resuming_is_bit_for_bit_what_an_uninterrupted_run_gives(whole, domains, tmp_path):
    run = tmp_path / "run"
    output = stopped_at(5, "--data", domains, "--outdir", run, *TINY, *METRIC, "--kimg", 0.048)
    assert "stopped by SIGTERM at 0.024 kimg" in output
    pools = load_state(run / "training-state.pt")["task"]["pools"]
    assert any(len(pool["images"]) == 6 for pool in pools.values())
    # The draws of domains before and after differ, so that a draw begun anew would be seen.
    pairs = domain_pairs(0, 12, 3, seed=0)
    assert (pairs[6:12] != pairs[:6]).any()
    translate("--outdir", run, "--resume", "latest")
    assert_same_weights(run, whole)
    assert timeless(run) == timeless(whole)
    final = [load_state(path / "training-state.pt")["task"]["pools"] for path in (run, whole)]
    assert all(torch.equal(*(pools[i]["images"] for pools in final)) for i in "012")


def test_two_processes_give_what_one_gives(whole, domains, tmp_path):
    run = tmp_path / "two"
    words = ["--data", domains, "--outdir", run, *TINY, "--metrics", "none", "--kimg", 0.048]
    code, output = torchrun("-m", "ggdr", "translate", "train", *words)
    assert code == 0, output
    # Later ticks differ as rounding grows.
    for a, b in zip(read_stats(whole)[:2], read_stats(run)[:2], strict=True):
        keys = [key for key in a if key.startswith(("loss", "score", "cycle/", "ggdr", "rate"))]
        assert len(keys) > 10
        assert {k: a[k] for k in keys} == pytest.approx({k: b[k] for k in keys}, rel=1e-3, abs=1e-4)


def test_a_snapshot_of_no_run_is_known_by_its_generator(whole):
    snapshot = load_snapshot(last_of(whole), tensors=False)
    del snapshot.config["training"]
    assert translator_host(snapshot).name == "combogan"


def test_a_run_that_goes_on_keeps_its_domains(whole, domains, tmp_path):
    renamed, run = tmp_path / "renamed", tmp_path / "run"
    shutil.copytree(domains, renamed)
    shutil.copytree(whole, run)
    go_on = ["--outdir", run, "--resume", "latest", "--data", renamed, "--kimg", 0.052]
    make_domains(renamed / "more", {"fog": 3})
    (renamed / "more" / "fog").rename(renamed / "fog")
    (renamed / "more").rmdir()
    output = plain(translate(*go_on))
    assert "left out are the images of fog" in output and "resuming" in output
    (renamed / "winter").rename(renamed / "april")
    output = plain(translate(*go_on[:-1], 0.06, code=2))
    assert "a run cannot go on with another" in output and "data.domains autumn, spring, winter -> " in output


def test_presets_are_those_of_the_paper_and_small_on_a_cpu(domains, tmp_path):
    args = ["--model", "combogan", "--data", domains, "--outdir", tmp_path / "run", "--device", "cpu"]
    paper = settings_of(*args)
    assert paper["G"] == {"network": "combogan_generator", **ComboGANGeneratorConfig(domains=3).to_json()}
    # For three domains, over the largest one.
    assert paper["optim"]["constant_nimg"] == paper["optim"]["falling_nimg"] == 3 * 50 * NUM["winter"]
    loss = {"gan_loss": "least_squares", "cycle_weight": 10, "identity_weight": 0, "latent_weight": 0}
    assert {**loss, "forward_weight": 0, "pool_size": 50, "lr": 2e-4}.items() <= paper["optim"].items()
    assert paper["crop"]["size"] == 256 and paper["loop"]["batch"] == 1 and paper["D"]["layers"] == 4
    assert paper["regularizers"]["ggdr"]["guide_res"] == [64] and not (tmp_path / "run").exists()
    small = settings_of(*args, "--cfg", "cpu", "--cycle-weight", 7, "--epochs", "2+1", "--shared-decoder-blocks", 2)
    assert small["crop"]["size"] == 32 and small["optim"]["cycle_weight"] == 7
    assert [small["G"][name] for name in COMBOGAN_BLOCKS] == [3, 3, 0, 2]
    assert small["optim"]["constant_nimg"] == 2 * NUM["winter"]  # epochs that are typed are as they are typed


def test_terms_are_there_by_their_weights(domains, tmp_path):
    args = ["--data", domains, *TINY, "--kimg", 0.008, "--no-ggdr", "--metrics", "none"]
    translate(*args, "--outdir", tmp_path / "a", "--cycle-weight", 0)
    every = ["--identity-weight", 1, "--latent-weight", 1, "--forward-weight", 0.2]
    translate(*args, "--outdir", tmp_path / "b", *every)
    terms = [{key for key in read_stats(tmp_path / run)[0] if key.startswith(("loss_term/", "cycle"))} for run in "ab"]
    of_G = {f"loss_term/{name}" for name in ("cycle", "identity", "latent", "forward")}
    assert terms[0] == {"loss_term/D_fake", "loss_term/D_real", "loss_term/G_gan"}
    assert terms[1] == {*terms[0], *of_G, "cycle/distance"}


def test_a_run_starts_from_the_weights_of_a_snapshot_by_the_names_of_domains(whole, domains, tmp_path):
    snapshot, run = last_of(whole), tmp_path / "run"
    other = tmp_path / "other"
    shutil.copytree(domains, other)
    (other / "spring").rename(other / "zen")  # now the last by name
    short = [*MODEL, "--data", other, "--kimg", 0.004, "--metrics", "none", "--resume", snapshot, "--lr", 1e-12]
    output = plain(translate(*short, "--outdir", run))
    assert "the networks of spring go on with winter; the networks of winter go on with zen" in output
    torch.testing.assert_close(
        load_snapshot(last_of(run)).networks, load_snapshot(snapshot).networks, rtol=0, atol=1e-6
    )
    output = plain(translate(*short, "--outdir", tmp_path / "b", "--encoder-blocks", 2, code=2))
    assert "'--encoder-blocks': the networks are those of" in output
    shutil.rmtree(other / "zen")
    output = plain(translate(*short, "--outdir", tmp_path / "b", code=2))
    assert "holds 2 domains, autumn, winter;" in output and "is for 3" in output


@pytest.mark.parametrize("option", [name for name, of in MODEL_OPTIONS.items() if "combogan" not in of.models])
def test_options_of_others_are_refused(option, domains, tmp_path):
    word = f"--{option.replace('_', '-')}"
    value = {"direction": ["AtoB"], "generator": ["unet"], "norm": ["batch"], "dropout": [], "downs": [5]}
    output = translate("--data", domains, "--outdir", tmp_path / "run", *TINY, word, *value.get(option, [2]), code=2)
    assert f"'{word}': has no meaning for combogan; in " in plain(output) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["latent_weight", "encoder_blocks", "add_domain"])
def test_its_options_are_refused_for_others(option, domains, tmp_path):
    word = f"--{option.replace('_', '-')}"
    output = translate("--data", domains, "--outdir", tmp_path / "run", "--model", "cyclegan", word, 1, code=2)
    assert f"'{word}': has no meaning for cyclegan; in combogan it" in plain(output)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--cycle-weight", "10,0"], "'--cycle-weight': expected one weight for combogan, from 0 to 1e+06; got '10,0'"),
        (["--crop", "38"], "'--crop': combogan takes multiples of 4 from 8 up, got 38"),
        (["--img-channels", "1"], "'--img-channels': combogan judges luminance and colours: expected 3"),
        (["--fit", "none", "--crop", "64"], "00.png: is 32x32, smaller than the crop of 64x64"),
        (["--ggdr-res", "9"], "'--ggdr-res': 9 is not among the feature maps 8, 16, 32"),
        (["--add-domain", "fog"], "'--add-domain': needs --resume with a snapshot or run of combogan"),
        (["--shared-decoder-blocks", "-1"], "expected a whole number from 0 to 64, got '-1'"),
    ],
)  # fmt: skip
def test_bad_input_is_a_message_and_writes_nothing(args, message, domains, tmp_path):
    run = tmp_path / "run"
    assert message in plain(translate("--data", domains, "--outdir", run, *TINY, *args, code=2)) and not run.exists()
