# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate train` as its users run it: run folders, resuming, signals, bad input."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.options.translation import parse_epochs
from ggdr.scripts.training.resume import host_of_run
from ggdr.scripts.translating.options import prepare_translator_ops
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot
from ggdr.torch_utils.ops import build
from ggdr.torch_utils.pictures.images import from_u8
from ggdr.torch_utils.runlog import read_stats
from ggdr.translation.config import UnetGeneratorConfig, config_from_json
from ggdr.translation.snapshot import load_translator
from tests.conftest import ggdr, python, torchrun
from tests.scripts.test_train import assert_same_weights, ggdr_train
from tests.tiny import save_tiny, tiny_generator
from tests.translation.pictures import samples_of

SIZE, NUM = 32, 12
TINY = ["--cfg", "cpu", "--channels", 4, "--device", "cpu", "--batch", 4, "--tick", 0.008, "--snap", 2]


def translate(*args, code=0):
    """Runs `ggdr translate train` in this process; returns what it printed."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["translate", "train", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def plain(text):
    """A message without its line ends."""
    return " ".join(text.split())


def make_pairs(folder, num=NUM, size=SIZE):
    """Smooth images in folder/B, and the same in grey in folder/A."""
    rng = np.random.RandomState(0)
    for i in range(num):
        img = Image.fromarray(rng.randint(0, 256, (4, 4, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        for name, each in (("A", img.convert("L")), ("B", img)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            each.save(folder / name / f"{i:02d}.png")
    return folder


def timeless(run):
    """What a run logged, but for what no two runs have in common."""
    return [{k: v for k, v in line.items() if not re.match("sec|time|.*mem", k)} for line in read_stats(run)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    """A run of 8 iterations in four ticks."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    translate("--data", pairs, "--outdir", run, *TINY, "--kimg", 0.032)
    return run


def test_a_run_says_which_operations_it_uses(pairs, tmp_path):
    translate("--data", pairs, "--outdir", tmp_path, *TINY, "--kimg", 0.008, "--ops", "reference")
    assert "fp32 on 1 x cpu with reference operations" in (tmp_path / "log.txt").read_text()
    device = json.loads((tmp_path / "training_options.json").read_text())["device"]
    assert device == {"type": "cpu", "processes": 1, "operations": "reference"}


def test_native_operations_stop_commands_before_they_write_where_there_are_none(
    pairs, whole, tmp_path, fresh_ops, no_compiler
):
    commands = [
        ["train", "--data", pairs, "--outdir", tmp_path / "run", *TINY],
        ["apply", pairs / "A", "--network", whole, "--outdir", tmp_path / "out", "--device", "cpu"],
        ["sheet", pairs / "A", "--network", whole, "--out", tmp_path / "sheet.png", "--device", "cpu"],
    ]
    for words in commands:
        assert "no C++ compiler" in ggdr("translate", *words, "--ops", "native", code=2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".png", ".json")]


def test_a_gpu_needs_no_library_for_translators(fresh_ops, monkeypatch):
    built = []
    monkeypatch.setattr(build, "load_library", built.append)
    prepare_translator_ops("native", torch.device("cuda"))
    assert not built
    prepare_translator_ops("native", torch.device("cpu"))
    assert built == ["cpu"]


def test_a_run_folder_holds_settings_pictures_and_snapshots(whole, pairs):
    names = {path.name for path in whole.iterdir()}
    snapshots = {f"network-snapshot-000000.{n}.safetensors" for n in ("016", "032")}
    pictures = {f"translations000000.{n}.png" for n in ("000", "016", "032")}
    assert snapshots | pictures | {"training_options.json", "log.txt", "stats.jsonl", "training-state.pt"} <= names
    lines = read_stats(whole)
    stats = [line for line in lines if "loss/G" in line]
    assert [line["nimg"] for line in stats] == [8, 16, 24, 32]
    assert [line["nimg"] for line in lines if "metric/psnr0.012k" in line] == [16, 32]
    keys = {"loss/G", "loss/D", "loss_term/G_l1", "score/real", "score/fake", "l1", "ggdr/distance", "rate"}
    assert keys <= stats[0].keys() and stats[-1]["rate"] == 0
    options = json.loads((whole / "training_options.json").read_text())
    assert options["host"] == "pix2pix" and options["data"]["direction"] == "AtoB"
    assert config_from_json(options["G"]) == UnetGeneratorConfig(3, 3, 4, 5, "instance", True)
    assert options["pictures"] == [{"name": "translations", "title": "Input, output, target", "once": False}]
    assert options["device"]["operations"] in ("compiled", "reference")
    assert load_snapshot(whole / min(snapshots)).networks.keys() == {"G", "D", "ggdr"}
    log = (whole / "log.txt").read_text()
    assert f"12 pairs from {pairs}, AtoB, 32x32 pixels, unet of 4 channels, batch 4, 0.032 kimg, GGDR x10 at 8x8" in log


def test_its_pictures_show_input_output_and_target(whole, pairs):
    samples = samples_of(whole / "translations000000.032.png", columns=4, rows=3, images=3, size=SIZE)
    inputs, outputs, targets = samples.transpose(1, 0, 2, 3, 4)
    assert (inputs == inputs[..., :1]).all() and not (outputs == outputs[..., :1]).all()
    # The middle of an image that was enlarged a little: nearer to its own pair than to any other.
    means = np.stack([np.asarray(Image.open(pairs / "B" / f"{i:02d}.png")).mean((0, 1)) for i in range(NUM)])
    distances = np.abs(targets.mean((1, 2))[:, None] - means[None]).sum(2)
    assert distances.argmin(axis=1).tolist() == list(range(NUM))
    translator = load_translator(whole / "network-snapshot-000000.032.safetensors")
    img = from_u8(torch.from_numpy(inputs.copy()).permute(0, 3, 1, 2))
    shown = from_u8(torch.from_numpy(outputs.copy()).permute(0, 3, 1, 2))
    assert (translator(img) - shown).abs().max() < 0.02
    assert translator(torch.zeros(1, 3, 20, 45)).shape == (1, 3, 20, 45)


def test_resuming_is_bit_for_bit_what_an_uninterrupted_run_gives(whole, pairs, tmp_path):
    run = tmp_path / "run"
    # In the middle of a tick, with the schedule of the whole run.
    args = ["--data", pairs, "--outdir", run, *TINY, "--kimg", 0.032]
    process = python(
        "-c",
        "import os, signal, sys\n"
        "import ggdr.torch_utils.loop as loop\n"
        "run = loop.PhaseRunner.iteration\n"
        "def iteration(self, batch, at):\n"
        "    if at.step == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return run(self, batch, at)\n"
        "loop.PhaseRunner.iteration = iteration\n"
        "from ggdr.scripts.cli import main\n"
        "main(['translate', 'train', *sys.argv[1:]])\n",
        *args,
    )
    output = process.communicate()[0]
    assert process.returncode == 130 and "stopped by SIGTERM at 0.012 kimg" in output, output
    assert f"ggdr translate train --outdir {run} --resume latest" in output
    translate("--outdir", run, "--resume", "latest")
    assert_same_weights(run, whole)
    assert timeless(run) == timeless(whole)
    assert "already finished" in translate("--outdir", run, "--resume", "latest")


def test_a_dry_run_prints_settings_and_writes_nothing(pairs, tmp_path):
    run = tmp_path / "run"
    output = translate("--data", pairs, "--outdir", run, "--direction", "BtoA", "--device", "cpu", "--dry-run")
    settings = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert not run.exists()
    assert settings["optim"]["constant_nimg"] == settings["optim"]["falling_nimg"] == 100 * NUM
    assert settings["loop"]["total_nimg"] == 200 * NUM and settings["loop"]["batch"] == 1
    assert settings["G"]["downs"] == 8 and settings["crop"]["size"] == 256 and settings["D"]["in_channels"] == 6
    assert settings["data"]["direction"] == "BtoA" and settings["regularizers"]["ggdr"]["guide_res"] == [64]
    assert "--cfg cpu trains a small network" in output
    changed = ["--epochs", "3+2", "--generator", "resnet", "--crop", 40, "--gan-loss", "least_squares", "--no-mirror"]
    changed += ["--no-dropout", "--d-layers", 2]
    output = translate("--data", pairs, "--outdir", run, *TINY, *changed, "--no-ggdr", "--dry-run")
    settings = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert (settings["optim"]["constant_nimg"], settings["optim"]["falling_nimg"]) == (3 * NUM, 2 * NUM)
    assert settings["G"]["network"] == "resnet_generator" and settings["G"]["blocks"] == 6
    assert not settings["G"]["dropout"] and settings["D"]["layers"] == 2
    assert settings["optim"]["gan_loss"] == "least_squares" and settings["regularizers"] == {}
    assert settings["crop"] == {"size": 40, "enlarge": 1.12, "fit": "stretch", "flip": False}


def test_the_direction_turns_input_and_target_round(pairs, tmp_path):
    translate("--data", pairs, "--outdir", tmp_path, *TINY, "--direction", "BtoA", "--kimg", 0.004, "--no-ggdr")
    path = tmp_path / "translations000000.000.png"
    inputs, _, targets = samples_of(path, columns=4, rows=3, images=3, size=SIZE).transpose(1, 0, 2, 3, 4)
    assert not (inputs == inputs[..., :1]).all() and (targets == targets[..., :1]).all()


def test_a_run_starts_from_the_weights_of_a_snapshot_with_its_networks(whole, pairs, tmp_path):
    snapshot, run = whole / "network-snapshot-000000.032.safetensors", tmp_path / "run"
    args = [*TINY[:2], *TINY[4:], "--data", pairs, "--outdir", run, "--kimg", 0.008]
    output = translate(*args, "--resume", snapshot, "--ggdr-res", 16, "--lr", 1e-12)
    assert "no weights of ggdr like this run's" in output
    state = load_snapshot(run / "network-snapshot-000000.008.safetensors").networks["G"]
    for name, value in load_snapshot(snapshot).networks["G"].items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=1e-6)
    # The networks are known also without the snapshot.
    output = translate("--outdir", run, "--resume", "latest", "--kimg", 0.012)
    assert "kimg 0.008 -> 0.012" in output
    message = plain(translate(*args, "--resume", run, "--outdir", tmp_path / "b", "--ggdr-res", 8, code=2))
    assert "a run cannot go on with another ggdr: guide_res 16 -> 8" in message
    for option in (["--channels", 4], ["--generator", "resnet"], ["--no-dropout"], ["--d-layers", 2]):
        for start in (
            [*args, "--outdir", tmp_path / "c", "--resume", snapshot],
            ["--outdir", run, "--resume", "latest"],
        ):
            message = plain(translate(*start, *option, code=2))
            assert f"'{option[0].replace('--no-', '--')}': the networks are those of" in message
    args = [*args, "--outdir", tmp_path / "d", "--img-channels", 1]
    assert "is for 3 and 3; see --img-channels" in plain(translate(*args, "--resume", snapshot, code=2))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "pix2pxi"], "combogan or oasis or cc-fpse, got 'pix2pxi'; did you mean 'pix2pix'?"),
        (["--direction", "BtoC"], "expected AtoB or BtoA, got 'BtoC'; did you mean 'BtoA'?"),
        (["--epochs", "ten"], "such as 100+100 or 50, 1 to 1000000 in all; got 'ten'"),
        (["--epochs", "0+0"], "got '0+0'"),
        (["--epochs", "5", "--kimg", "1"], "'--epochs': and --kimg both say how long"),
        (["--crop", "20"], "'--crop': a discriminator of 3 layers takes images from 24 pixels up, got 20"),
        (["--crop", "40"], "'--crop': regularisers need images whose side is a multiple of 32"),
        (["--fit", "none", "--crop", "64"], "00.png: is 32x32, smaller than the crop of 64x64"),
        (["--ggdr-res", "4"], "expected a whole number from 8, got '4'"),
        (["--ggdr-res", "32"], "32 is not among the feature maps 8, 16"),
        (["--blocks", "3"], "'--blocks': has no meaning for --generator unet"),
        (["--generator", "resnet", "--downs", "6"], "'--downs': has no meaning for --generator resnet"),
        (["--gan-weight", "0", "--l1-weight", "0"], "'--gan-weight': the weights of all of G's losses are 0"),
        (["--resume", "ffhq256"], "ffhq256: no such file; expected latest, a run folder or a network-snapshot-*"),
        (["--data", "nowhere"], "--data: nowhere: no such file or folder; expected a folder or zip with pairs"),
    ],
)  # fmt: skip
def test_bad_input_is_a_message_and_writes_nothing(args, message, pairs, tmp_path):
    run = tmp_path / "run"
    output = translate("--data", pairs, "--outdir", run, *TINY, *args, code=2)
    assert message in plain(output) and not run.exists()


def test_data_without_pairs_is_named(pairs, tmp_path):
    alone = make_pairs(tmp_path / "alone", num=3)
    (alone / "B" / "01.png").unlink()
    args = ["--outdir", tmp_path / "run", *TINY]
    assert "no partner in B for 01 of A" in plain(translate("--data", alone, *args, code=2))
    odd = tmp_path / "odd"
    odd.mkdir()
    Image.new("RGB", (31, 32)).save(odd / "0.png")
    assert "is 31x32; two images side by side have an even width" in plain(translate("--data", odd, *args, code=2))
    photographs = make_pairs(tmp_path / "photographs", num=40)
    (photographs / "A").rename(photographs / "labels")
    (photographs / "B").rename(photographs / "images")
    refused = plain(translate("--data", photographs, *args, code=2))
    assert "are grey photographs rather than label maps; these belong into trainA and trainB" in refused
    assert "Missing option '--data'" in translate(*args, code=2)


def test_it_says_which_images_it_takes_for_a_pair(pairs, tmp_path):
    args = ["--outdir", tmp_path / "run", *TINY, "--dry-run"]
    assert "the input is A/00.png, the target B/00.png" in plain(translate("--data", pairs, *args))
    swapped = plain(translate("--data", pairs, *args, "--direction", "BtoA"))
    assert "the input is B/00.png, the target A/00.png" in swapped
    halves = plain(translate("--data", pairs / "A", *args))
    assert "the input is the left half of 00.png, the target the right half of 00.png" in halves


def test_the_proposed_run_from_a_snapshot_starts_as_it_is_typed(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for number in (2, 3):
        output = translate("--outdir", run, "--resume", "latest", *(["--no-ggdr"] if number == 2 else []), code=2)
        words = shlex.split(plain(output).rpartition(": ggdr translate train ")[2])
        assert "--channels" not in words and "--no-dropout" not in words
        translate(*words, "--kimg", 0.004)
        assert (tmp_path / f"run-{number}" / "training-state.pt").is_file()
        # Without its state, it is the run as it was that another one is proposed for.
        (run / "training-state.pt").unlink(missing_ok=True)


def test_a_run_of_another_host_is_refused(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    path = other / "training_options.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "stylegan2"}))
    message = plain(translate("--outdir", other, "--resume", "latest", code=2))
    assert "the run is one of stylegan2, and this command trains pix2pix" in message
    assert f"{other}: the run" in message and f"go on with it: ggdr train --outdir {other} --resume latest" in message
    message = plain(ggdr_train("--outdir", whole, "--resume", "latest", code=2))
    assert "the run is one of pix2pix, and this command trains stylegan2" in message
    with pytest.raises(SnapshotError, match="holds a StyleGAN2, expected a translator"):
        load_translator(save_tiny(tmp_path / "network.safetensors", tiny_generator()))


def test_a_run_says_whose_it_is(whole, tmp_path):
    state, snapshot = whole / "training-state.pt", whole / "network-snapshot-000000.032.safetensors"
    assert [host_of_run(tmp_path, str(path)) for path in (whole, state)] == ["pix2pix"] * 2
    assert host_of_run(whole, "latest") == "pix2pix"
    assert host_of_run(tmp_path, str(snapshot)) == "pix2pix"
    assert [host_of_run(tmp_path, resume) for resume in (None, "latest", "nowhere")] == [None] * 3


def test_a_folder_with_a_run_is_not_trained_in_again(whole, pairs):
    message = plain(translate("--data", pairs, "--outdir", whole, *TINY, code=2))
    assert f"already holds a run; go on with it: ggdr translate train --outdir {whole} --resume latest" in message


def test_two_processes_give_what_one_gives(whole, pairs, tmp_path):
    run = tmp_path / "two"
    words = ["--data", pairs, "--outdir", run, *TINY, "--kimg", 0.032]
    code, output = torchrun("-m", "ggdr", "translate", "train", *words)
    assert code == 0, output
    one, two = read_stats(whole), read_stats(run)
    for a, b in zip(one, two, strict=True):
        keys = [key for key in a if key.startswith(("loss", "score", "l1", "ggdr", "rate"))]
        assert {k: a[k] for k in keys} == pytest.approx({k: b[k] for k in keys}, rel=2e-3, abs=2e-4)


def test_epochs_are_read_as_they_are_meant():
    assert parse_epochs("100+50") == (100, 50) and parse_epochs("7") == (7, 0) and parse_epochs("0+3") == (0, 3)
    for text in ("", "+5", "5+", "1.5", "-1+3", "1+2+3", "1000001"):
        with pytest.raises(ValueError, match="such as 100"):
            parse_epochs(text)
