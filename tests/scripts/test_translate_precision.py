# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate train --precision`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import FP16_MAX_SKIPS
from ggdr.scripts.translating.train import train as train_command
from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import PhaseRunner
from ggdr.torch_utils.runlog import read_stats
from tests.scripts.test_train import assert_same_weights
from tests.scripts.test_translate import TINY, make_pairs, plain, translate

MODELS = ("pix2pix", "cyclegan", "combogan")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs for pix2pix, and the domains trainA and trainB for CycleGAN."""
    folder = make_pairs(tmp_path_factory.mktemp("data") / "images")
    for side in "AB":
        (folder / side).rename(folder / f"train{side}")
    return folder


def words(pairs, run, model, *args):
    return ["--model", model, "--data", pairs, "--outdir", run, *TINY, "--metrics", "none", *args]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_in_bfloat16_resumes_exactly_and_saves_float32(pairs, tmp_path, model):
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ["--precision", "bf16", "--lr", 1e-3]
    output = translate(*words(pairs, whole, model, *options, "--epochs", "2+0"))
    assert ", bf16 on 1 x cpu" in plain(output)
    translate(*words(pairs, run, model, *options, "--epochs", "1+0"))
    translate("--outdir", run, "--resume", "latest", "--epochs", "2+0")
    assert_same_weights(run, whole)
    for path in whole.glob("*.safetensors"):
        dtypes = {x.dtype for state in load_snapshot(path).networks.values() for x in state.values()}
        assert dtypes == {torch.float32}
    translate(*words(pairs, tmp_path / "fp32", model, "--lr", 1e-3, "--epochs", "2+0"))
    half, full = read_stats(whole)[0], read_stats(tmp_path / "fp32")[0]  # before rounding has led them apart
    losses = [key for key in full if key.startswith("loss/")]
    assert {key: half[key] for key in losses} == pytest.approx({key: full[key] for key in losses}, rel=0.1)
    assert any(half[key] != full[key] for key in losses)


def test_a_run_goes_on_in_another_precision(pairs, tmp_path):
    run = tmp_path / "run"
    translate(*words(pairs, run, "pix2pix", "--kimg", 0.008))
    output = translate("--outdir", run, "--resume", "latest", "--kimg", 0.016, "--precision", "bf16")
    assert "precision fp32 -> bf16" in plain(output) and "bf16 on 1 x cpu" in plain(output)


@pytest.mark.parametrize("model", MODELS)
def test_float16_on_a_cpu_is_refused(pairs, tmp_path, model):
    run = tmp_path / "run"
    message = plain(translate(*words(pairs, run, model, "--precision", "fp16"), code=2))
    assert "'--precision': fp16 needs a GPU; on a CPU use fp32 or bf16" in message and not run.exists()


def prepared(pairs, model, *args, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    command = train_command.make_context("train", [*map(str, words(pairs, "run", model, *args))]).params
    return HOSTS[model].prepare(command, Origin(), ProcessGroup(device=torch.device(device)))


@pytest.mark.parametrize("model", MODELS)
def test_auto_is_float32_on_a_cpu_and_float16_on_a_gpu(pairs, model, monkeypatch):
    on = {device: prepared(pairs, model, device=device, monkeypatch=monkeypatch).settings for device in ("cpu", "cuda")}
    assert {device: settings.precision for device, settings in on.items()} == {"cpu": "fp32", "cuda": "fp16"}
    assert [settings.loop.max_skips for settings in on.values()] == [0, FP16_MAX_SKIPS]


def test_bfloat16_on_a_gpu_without_it_is_said_to_be_slow(pairs, monkeypatch):
    notes = prepared(pairs, "pix2pix", "--precision", "bf16", device="cuda", monkeypatch=monkeypatch).notes
    assert any("Tesla T4 has no bfloat16" in note for note in notes)


@pytest.mark.parametrize(("precision", "advice"), [("fp32", ""), ("bf16", "--precision fp32, ")])
def test_a_loss_that_becomes_nan_ends_the_run_with_an_advice(pairs, tmp_path, monkeypatch, precision, advice):
    iteration = PhaseRunner.iteration

    def damaged(self, batch, at):
        if at.step == 1:
            next(self.task.G.parameters()).data.fill_(float("nan"))
        return iteration(self, batch, at)

    monkeypatch.setattr(PhaseRunner, "iteration", damaged)
    args = words(pairs, tmp_path / "run", "pix2pix", "--precision", precision)
    message = plain(translate(*args, code=2))
    assert "loss of phase D became nan in step 1" in message
    assert f"If it happens again: {advice}a smaller --lr" in message


@pytest.mark.parametrize("model", MODELS)
def test_what_to_change_names_a_safer_or_a_smaller_precision(model):
    settings = SimpleNamespace(precision="fp16", loop=SimpleNamespace(batch_gpu=1))
    host = HOSTS[model]
    assert host.advice(settings) == "--precision fp32 or bf16, a smaller --lr"
    assert "--precision" not in host.memory_advice(settings)
    settings.precision = "fp32"
    assert host.memory_advice(settings).startswith("--precision fp16 or bf16, ")


def test_the_settings_say_the_precision(pairs, tmp_path):
    output = translate(*words(pairs, tmp_path / "run", "cyclegan", "--precision", "bf16", "--dry-run"))
    assert json.loads(output[output.index("{") : output.rindex("}") + 1])["precision"] == "bf16"
