# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train` as its users run it: run folders, resuming, signals, bad input."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.regularizers import is_fixed
from ggdr.scripts.training.run import kimg_name
from ggdr.scripts.training.settings import differences
from ggdr.stylegan2 import load_generator
from ggdr.stylegan2.samples import Samples
from ggdr.torch_utils.checkpoint import load_snapshot, load_state
from ggdr.torch_utils.loop import LoopConfig
from ggdr.torch_utils.runlog import read_stats
from tests.conftest import TINY_RUN, write_dataset
from tests.report_runs import OPTIONS


def ggdr_train(*args, code=0):
    """Runs `ggdr train` in this process; returns what it printed."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["train", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def train(data, outdir, *args, kimg=0.064, code=0):
    return ggdr_train("--data", data, "--outdir", outdir, *TINY_RUN, "--kimg", kimg, "--tick", 0.032, *args, code=code)


def printed_settings(output):
    """The JSON in what `--dry-run` printed, notes and all."""
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


def assert_same_weights(run_a, run_b):
    """Networks, optimisers, random state and counters are bit for bit the same."""
    a, b = (flat(load_state(run / "training-state.pt")) for run in (run_a, run_b))
    a, b = ({k: v for k, v in x.items() if not k.startswith("options")} for x in (a, b))
    assert a.keys() == b.keys()
    different = [k for k in a if not (torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k])]
    assert not different


def flat(value, prefix=""):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in items for k, v in flat(item, f"{prefix}{key}.").items()}
    return {prefix: value}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, dataset_zip):
    """A run of 8 iterations in two ticks."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(dataset_zip, run, "--snap", 1)
    return run


def test_a_run_folder_holds_what_the_readme_promises(finished_run):
    names = {p.name for p in finished_run.iterdir()}
    expected = {"training_options.json", "log.txt", "stats.jsonl", "reals.png", "training-state.pt"}
    assert expected <= names
    assert {"fakes000000.000.png", "fakes000000.064.png", "network-snapshot-000000.064.safetensors"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    stats = read_stats(finished_run)
    assert [line["nimg"] for line in stats] == [32, 64]
    keys = "loss/G loss/D loss/D_r1 score/real score/fake sign/real sign/fake ggdr/distance ada/p grad_norm/G"
    assert set(keys.split()) <= stats[0].keys()
    assert Image.open(finished_run / "reals.png").size == Image.open(finished_run / "fakes000000.064.png").size
    options = json.loads((finished_run / "training_options.json").read_text())
    assert options["G"]["img_resolution"] == 16 and options["command"]["cfg"] == "demo"


def test_a_preset_for_gpus_is_said_to_be_one_on_a_cpu(dataset_zip, tmp_path):
    shape = [
        "--device",
        "cpu",
        "--batch",
        4,
        "--kimg",
        0.004,
        "--tick",
        0.004,
        "--channel-base",
        64,
        "--channel-max",
        8,
    ]
    hint = "--cfg cpu trains a small network"
    for cfg, expected in (("auto", True), ("cpu", False)):
        output = ggdr_train("--data", dataset_zip, "--outdir", tmp_path / cfg, "--cfg", cfg, *shape)
        assert (hint in output) == expected


def test_the_snapshot_generates(finished_run):
    G = load_generator(finished_run / "network-snapshot-000000.064.safetensors")
    assert G(torch.randn(2, G.z_dim)).shape == (2, 3, 16, 16)
    assert "b8_dec.weight" in load_snapshot(finished_run / "network-snapshot-000000.064.safetensors").networks["ggdr"]


def test_resuming_is_bit_for_bit_what_an_uninterrupted_run_gives(finished_run, dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", "--snap", 1, kimg=0.032)
    assert read_stats(tmp_path / "run")[-1]["nimg"] == 32
    output = ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.064)
    assert "at 0.032 kimg" in output and "resumed run: kimg 0.032 -> 0.064" in output
    assert_same_weights(finished_run, tmp_path / "run")
    computed = [key for key in read_stats(finished_run)[0] if not key.startswith(("time", "memory/"))]
    for a, b in zip(read_stats(finished_run), read_stats(tmp_path / "run"), strict=True):
        assert {k: v for k, v in a.items() if k in computed} == {k: v for k, v in b.items() if k in computed}


def test_resuming_a_finished_run_says_so_and_writes_nothing(finished_run):
    before = {p: p.stat().st_mtime_ns for p in finished_run.iterdir()}
    output = ggdr_train("--outdir", finished_run, "--resume", "latest")
    assert output == "already finished at 0.064 kimg; a larger --kimg goes on\n"
    assert {p: p.stat().st_mtime_ns for p in finished_run.iterdir()} == before


def test_a_run_can_be_continued_in_another_folder(finished_run, dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", kimg=0.032)
    before = (tmp_path / "run" / "training-state.pt").read_bytes()
    ggdr_train("--outdir", tmp_path / "fork", "--resume", tmp_path / "run", "--kimg", 0.064)
    assert_same_weights(finished_run, tmp_path / "fork")
    assert (tmp_path / "run" / "training-state.pt").read_bytes() == before


@pytest.mark.parametrize(("precision", "advice"), [("fp16", "fp32 or bf16"), ("bf16", "fp32")])
def test_the_advice_after_a_nan_is_a_safer_precision_than_the_runs(precision, advice):
    settings = SimpleNamespace(precision=precision)
    assert HOSTS["stylegan2"].advice(settings) == f"--precision {advice}, a larger --gamma, a smaller --lr"


def test_transfer_learning_starts_from_the_snapshots_weights(finished_run, dataset_zip, tmp_path):
    snapshot = finished_run / "network-snapshot-000000.064.safetensors"
    train(dataset_zip, tmp_path / "run", "--resume", snapshot, "--lr", 1e-30, "--freezed", 2, kimg=0.008)
    options = json.loads((tmp_path / "run" / "training_options.json").read_text())
    assert options["augment"]["speed_kimg"] == 100 and options["optim"]["ema_rampup"] is None
    # It stays a transfer run when it is resumed.
    output = ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.016)
    assert "settings that differ from the resumed run: kimg 0.008 -> 0.016\n" in output
    before, after = load_snapshot(snapshot).networks["G"], load_state(tmp_path / "run" / "training-state.pt")
    for name, value in before.items():
        if name != "mapping.w_avg":
            torch.testing.assert_close(after["task"]["networks"]["G"][name], value)


def test_transfer_learning_with_another_guide_starts_a_new_decoder(finished_run, dataset_zip, tmp_path):
    snapshot = finished_run / "network-snapshot-000000.064.safetensors"
    output = train(dataset_zip, tmp_path / "run", "--resume", snapshot, "--ggdr-res", 16, kimg=0.008)
    assert "has no weights of ggdr like this run's; it starts untrained" in output


def test_a_run_without_a_state_is_started_again_as_it_was(finished_run, dataset_zip, tmp_path):
    snapshot = finished_run / "network-snapshot-000000.064.safetensors"
    train(dataset_zip, tmp_path / "run", "--resume", snapshot, "--lr", 1e-30)
    for path in [*(tmp_path / "run").glob("network-*"), tmp_path / "run" / "training-state.pt"]:
        path.unlink()  # as if killed before the first save
    output = ggdr_train("--outdir", tmp_path / "run", "--resume", "latest")
    assert "saved no state yet" in output
    assert [line["nimg"] for line in read_stats(tmp_path / "run")] == [32, 64]
    after = load_state(tmp_path / "run" / "training-state.pt")["task"]["networks"]["G"]
    for name, value in load_snapshot(snapshot).networks["G"].items():
        if name != "mapping.w_avg":
            torch.testing.assert_close(after[name], value)


def test_options_that_only_fit_another_mode_are_forgotten(dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", "--aug", "fixed", "--p", 0.5, kimg=0.008)
    ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--aug", "ada", "--kimg", 0.016)
    ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--batch-gpu", 4, "--kimg", 0.024)


def test_resume_latest_starts_a_run_that_is_not_there_yet(dataset_zip, tmp_path):
    assert "starting from scratch" in train(dataset_zip, tmp_path / "run", "--resume", "latest", kimg=0.008)


def test_dry_run_prints_the_settings_and_writes_nothing(dataset_zip, tmp_path):
    output = train(dataset_zip, tmp_path / "run", "--dry-run", "--cond", "--mirror")
    options = printed_settings(output)
    assert "preset demo is for images of 32x32, these have 16x16: --gamma 0.02 may not fit them" in output
    assert options["G"]["c_dim"] == 3 and options["data"]["num_images"] == 48
    assert options["regularizers"]["ggdr"] == {"guide_res": [8], "weight": 10.0}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "args",
    [
        ["--cond", "--mirror", "--ggdr-res", 8, "--ggdr-res", 16],
        ["--no-ggdr", "--aug", "noaug", "--gamma", 0],
        ["--aug", "fixed", "--p", 0.7, "--augpipe", "bgcfnc", "--batch-gpu", 4],
        ["--precision", "bf16", "--subset", 5, "--workers", 1],
        ["--cfg", "cifar", "--batch", 8, "--batch-gpu", 8],
        ["--cfg", "auto", "--batch", 4],
    ],
)
def test_options_train(dataset_zip, tmp_path, args):
    train(dataset_zip, tmp_path / "run", *args, kimg=0.016)
    assert (tmp_path / "run" / "training-state.pt").exists()


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_rgba_datasets_train(tmp_path, channels):
    data = write_dataset(tmp_path / "d.zip", channels=channels, classes=0)
    train(data, tmp_path / "run", kimg=0.008)
    assert Image.open(tmp_path / "run" / "fakes000000.008.png").mode == {1: "L", 4: "RGBA"}[channels]


def test_bad_input_is_named_without_traceback_and_nothing_is_written(dataset_zip, finished_run, tmp_path):
    snapshot = finished_run / "network-snapshot-000000.064.safetensors"
    notes = tmp_path / "notes.txt"
    notes.write_text("no snapshot")
    unlabelled = write_dataset(tmp_path / "unlabelled.zip", classes=0)
    (tmp_path / "truncated.zip").write_bytes(dataset_zip.read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    cases = [
        (tmp_path / "absent.zip", [], "absent.zip"),
        (tmp_path / "truncated.zip", [], "truncated.zip"),
        (tmp_path / "empty", [], "empty"),
        (unlabelled, ["--cond"], "no labels"),
        (dataset_zip, ["--cfg", "ffhq"], "'ffhq' is not one of 'auto', 'stylegan2'"),
        (dataset_zip, ["--resume", notes], "not a readable network snapshot"),
        (dataset_zip, ["--resume", "ffhq-256"], "ffhq-256: no such file; expected latest, a run folder, a"),
        (dataset_zip, ["--resume", "ffhq-256"], "cifar10, brecahad; did you mean 'ffhq256'?"),
        (dataset_zip, ["--resume", tmp_path / "no.pt"], "no.pt: no such file; expected latest, a run folder"),
        (dataset_zip, ["--resume", tmp_path], "holds no training-state.pt"),
        (dataset_zip, ["--resume", snapshot, "--channel-max", 4], "channel_max 8 (this run: 4)"),
        (dataset_zip, ["--ggdr-res", 32], "32 is not among the feature maps 8, 16"),
        (dataset_zip, ["--batch-gpu", 3], "3 does not divide the 8 images"),
        (dataset_zip, ["--aug", "fixed"], "fixed needs --p"),
        (dataset_zip, ["--p", 0.5], "needs --aug fixed"),
        (dataset_zip, ["--precision", "fp16"], "fp16 needs a GPU"),
        (dataset_zip, ["--device", "tpu"], "'tpu' is none of auto, cpu, cuda"),
        (dataset_zip, ["--channel-base", 8], "8 leaves no feature maps at 16x16"),
        (dataset_zip, ["--seed", -1], "--seed"),
        (dataset_zip, ["--lr", "nan"], "expected a number above 0, got 'nan'"),
        (dataset_zip, ["--gamma", "inf"], "expected a number from 0, got 'inf'"),
        (dataset_zip, ["--no-ggdr", "--ggdr-res", 8], "needs --ggdr"),
        (dataset_zip, ["--no-ggdr", "--ggdr-weight", 5], "needs --ggdr, got --no-ggdr"),
        (dataset_zip, ["--freezed", 8], "8 is more than the 7 layers of D that can be frozen"),
        (dataset_zip, ["--batch", 6], "'--batch': 6 images in a forward are not a multiple"),
    ]
    for data, args, message in cases:
        output = train(data, tmp_path / "run", *args, code=2)
        assert message in " ".join(output.split()), output
        assert not (tmp_path / "run").exists()


def test_a_last_batch_that_passes_the_end_does_not_skip_a_tick(dataset_zip, tmp_path):
    # Batches of 8 end ticks of 18 images at 24 and 40, beyond the 36 of the run.
    output = train(dataset_zip, tmp_path / "run", "--tick", 0.018, kimg=0.036)
    assert re.findall(r"^tick (\d+)", output, re.MULTILINE) == ["1", "2"]


@pytest.mark.parametrize(
    ("tick", "batch", "total", "expected"),
    [
        (1000, 100, 1500, ["000000", "000001", "000001.500"]),
        (1000, 100, 3000, ["000000", "000001", "000002", "000003"]),
        (1000, 64, 2200, ["000000", "000001", "000002", "000002.240"]),
        (4000, 100, 9500, ["000000", "000004", "000008", "000009.500"]),
        (4000, 64, 9000, ["000000", "000004", "000008", "000009"]),
        (1500, 100, 3000, ["000000", "000001.500", "000003"]),
        (4000, 100, 300, ["000000", "000000.300"]),
        (1100, 800, 5000, ["000000", "000001", "000002", "000004", "000004.800", "000005"]),
        (500, 100, 1100, ["000000.000", "000000.500", "000001.000", "000001.100"]),
    ],
)
def test_each_snapshot_of_a_run_has_a_name_of_its_own(tick, batch, total, expected):
    loop = LoopConfig(total_nimg=total, batch=batch, batch_gpu=batch, tick_nimg=tick, snap_ticks=1)
    counts = range(0, total + batch, batch)
    snaps = [n for n in counts if n in (0, counts[-1]) or n // tick > (n - batch) // tick]
    assert [kimg_name(nimg, loop) for nimg in snaps] == expected


def test_a_folder_with_a_run_is_not_overwritten(dataset_zip, finished_run):
    before = {p: p.stat().st_mtime_ns for p in finished_run.iterdir()}
    assert "already holds a run" in train(dataset_zip, finished_run, code=2)
    assert {p: p.stat().st_mtime_ns for p in finished_run.iterdir()} == before


def test_an_output_folder_that_cannot_be_made_is_named(dataset_zip, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in train(dataset_zip, tmp_path / "file" / "run", code=2)


def test_resuming_with_what_cannot_be_says_what_differs(finished_run, tmp_path):
    other = write_dataset(tmp_path / "other.zip", res=32)
    output = ggdr_train("--outdir", finished_run, "--resume", "latest", "--data", other, code=2)
    assert "G.img_resolution 16 -> 32" in output
    for option, name in (
        (["--no-ggdr"], "ggdr: guide_res 8, weight 10 -> off;"),
        (["--ggdr-res", 8, "--ggdr-res", 16], "ggdr: guide_res 8 -> 8, 16;"),
        (["--freezed", 2], "optim.freeze_d 0 -> 2;"),
    ):
        assert f"another {name}" in ggdr_train("--outdir", finished_run, "--resume", "latest", *option, code=2)


def test_differences_name_nested_settings():
    old, new = {"loop": {"batch": 8}, "G": {"w_dim": 4}}, {"loop": {"batch": 16}, "G": {"w_dim": 8}}
    changes = differences(old, new)
    assert changes == {"loop.batch": (8, 16), "G.w_dim": (4, 8)} and list(
        filter(HOSTS["stylegan2"].is_fixed, changes)
    ) == ["G.w_dim"]
    assert is_fixed("regularizers.ggdr") and is_fixed("regularizers.ggdr.guide_res")
    assert not is_fixed("regularizers.ggdr.weight") and not is_fixed("loop.batch")


def test_rows_of_a_conditional_sample_grid_show_one_class_each(dataset_zip):
    from ggdr.torch_utils.data.loader import ImageDataset
    from tests.stylegan2.test_task import make_task

    samples = Samples(make_task(), ImageDataset(dataset_zip, use_labels=True), seed=0)
    classes = samples.c.argmax(dim=1).reshape(samples.grid.rows, samples.grid.columns)
    assert (classes == classes[:, :1]).all() and len(set(classes[:, 0].tolist())) == 3


def test_a_run_declares_what_the_readers_of_its_folder_read(finished_run):
    options = json.loads((finished_run / "training_options.json").read_text())
    keys = {key for line in read_stats(finished_run) for key in line}
    assert {panel["name"] for panel in options["panels"]} - {"memory/gpu_gib"} <= keys
    # The format that the tests of report, curves and card write by hand is that of a run.
    assert OPTIONS.keys() <= options.keys()
    for part in ("panels", "pictures"):
        assert options[part][0].keys() == OPTIONS[part][0].keys()
    assert options["device"].keys() == OPTIONS["device"].keys()
