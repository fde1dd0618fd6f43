# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Run folders, resuming and metrics of a host unlike StyleGAN2."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass

import pytest
import torch

from ggdr.metrics.image_sets import GeneratedImages
from ggdr.scripts.benches.step_timing import step_timer
from ggdr.scripts.errors import CliError
from ggdr.scripts.measuring.judge import GeneratorJudge
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.plan import resolve_run
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.run import start_run
from ggdr.scripts.training.settings import RunSettings, resolve_metrics
from ggdr.torch_utils.checkpoint import load_snapshot, load_state
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import LoopConfig
from ggdr.torch_utils.runlog import read_stats
from tests.scripts.test_train import ggdr_train
from tests.toy_host import TOTAL_NIMG, ToyTask, batches

BATCH = 4
GROUP = ProcessGroup()


@dataclass(frozen=True)
class ToySettings(RunSettings):
    """With one setting of its own, which a resumed run may not change."""

    width: int


class ToySnapshot:
    """Grey images, as bright as a snapshot's first weight says."""

    def __init__(self, path, device, labels):
        weight = load_snapshot(path).networks["G_A"]["0.weight"][0, 0]
        self.level = (weight.sigmoid() * 255).to(device, torch.uint8)

    def images(self, num):
        return GeneratedImages(lambda numbers: self.level.expand(len(numbers), 3, 16, 16))

    def measure_paths(self, spec, numbers, distance):
        raise AssertionError("no metric of these tests asks for paths")


class ToyHost:
    """See `scripts.training.host.Host`."""

    name = "toy"
    command = "toy train"
    data = "toys are drawn"
    replaces = {}
    compiled_on = ()
    has_published = False
    network_options = ()

    def prepare(self, command, origin, group):
        settings = ToySettings(
            host=self.name,
            cfg="toy",
            regularizers={},
            loop=LoopConfig(command["nimg"], BATCH, BATCH, tick_nimg=8, snap_ticks=2),
            precision="fp32",
            num_processes=group.world,
            seed=0,
            init_snapshot=origin.init_snapshot,
            init_source=None,
            metrics=resolve_metrics(command["metrics"]),
            width=command["width"],
        )
        snapshot = None if origin.init_snapshot is None else load_snapshot(origin.init_snapshot)
        return Prepared(settings, command["data"], snapshot, ["a toy"])

    def build(self, settings, data, group):
        return ToyTask(group)

    def batches(self, settings, data, group, start_nimg):
        return batches(start_nimg, BATCH, group)

    def load_weights(self, task, snapshot):
        task.load_state({**task.state(), "networks": snapshot.networks})
        return ["with the weights of another toy"]

    def open_judge(self, training, data, job):
        assert training["width"] == 8
        return GeneratorJudge(data, job, ToySnapshot)

    def is_fixed(self, name):
        return name == "width"

    def advice(self, settings):
        return "a lower rate"

    def memory_trials(self, settings):
        return [(settings, settings)]

    def memory_advice(self, settings):
        return "fewer toys"

    def summary(self, settings, data):
        return f"toys of width {settings.width} from {data}"


@pytest.fixture
def toy_train(dataset_zip, monkeypatch):
    """What a command of this host does."""
    monkeypatch.setitem(HOSTS, "toy", ToyHost())
    defaults = {"data": dataset_zip, "resume": None, "nimg": TOTAL_NIMG, "metrics": None, "width": 8}

    def run(outdir, **options):
        command = {**defaults, "outdir": outdir, **options}
        return start_run(resolve_run("toy", command, set(options), GROUP), GROUP, ["--width", "8"])

    return run


def networks(run):
    return load_state(run / "training-state.pt")["task"]["networks"]


def assert_same(a, b):
    assert all(torch.equal(value, b[net][key]) for net, state in a.items() for key, value in state.items())


def test_its_steps_can_be_timed(toy_train, dataset_zip):
    command = {"data": dataset_zip, "nimg": TOTAL_NIMG, "metrics": None, "width": 8}
    prepared = HOSTS["toy"].prepare(command, Origin(), GROUP)
    with step_timer(prepared.settings, prepared.data, GROUP) as timer:
        timer.run()
    assert {"data", "step_end"} < timer.seconds().keys()


def test_its_run_folder_holds_what_its_task_declares(toy_train, tmp_path):
    run = tmp_path / "run"
    assert toy_train(run)
    assert [line["nimg"] for line in read_stats(run)] == [8, 16, 24, 32, 40, 48]
    assert {"loss/D_A", "loss_term/cycle", "rate", "margin/A"} <= read_stats(run)[0].keys()
    options = json.loads((run / "training_options.json").read_text())
    assert options["host"] == "toy" and options["width"] == 8 and options["argv"] == ["--width", "8"]
    assert {"rate", "margin/A"} <= {panel["name"] for panel in options["panels"]}
    log = (run / "log.txt").read_text()
    assert "a toy" in log and "toys of width 8 from" in log
    assert load_snapshot(run / "network-snapshot-000000.048.safetensors").networks.keys() == networks(run).keys()


def test_its_runs_go_on_exactly_and_not_with_another_network(toy_train, tmp_path):
    toy_train(tmp_path / "whole")
    run = tmp_path / "run"
    toy_train(run, nimg=24)
    assert toy_train(run, resume="latest", nimg=TOTAL_NIMG)
    assert_same(networks(run), networks(tmp_path / "whole"))
    assert "kimg 0.024 -> 0.048" in (run / "log.txt").read_text()
    with pytest.raises(CliError, match="cannot go on with another width 8 -> 9"):
        toy_train(run, resume="latest", width=9)
    assert "the run is one of toy, and this command trains stylegan2" in " ".join(
        ggdr_train("--outdir", run, "--resume", "latest", code=2).split()
    )


def test_its_runs_start_from_snapshots(toy_train, tmp_path):
    toy_train(tmp_path / "first")
    snapshot = tmp_path / "first" / "network-snapshot-000000.048.safetensors"
    toy_train(tmp_path / "second", resume=snapshot, nimg=4)
    assert "with the weights of another toy" in (tmp_path / "second" / "log.txt").read_text()


def test_its_snapshots_are_measured_with_its_own_images(toy_train, tmp_path):
    run = tmp_path / "run"
    toy_train(run, metrics="fd_offline0.1k_full")
    lines = [json.loads(line) for line in (run / "metric-fd_offline0.1k_full.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == [16, 32, 48]
    best = load_snapshot(run / "network-best.safetensors").config["best"]
    assert best["value"] == min(line["results"]["fd_offline0.1k_full"] for line in lines)


METRIC = "fd_offline0.1k_full"  # two batches of fakes


def measured(run, metric=METRIC):
    """The image counts that a run has results for."""
    path = run / f"metric-{metric}.jsonl"
    return [json.loads(line)["nimg"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def stopped_in_metrics(monkeypatch):
    """A function: from now on SIGTERM arrives while images of snapshots are made; or not any more."""
    make = ToySnapshot.images

    def images(self, num):
        def stopped(numbers):
            os.kill(os.getpid(), signal.SIGTERM)
            return made.draw(numbers)

        made = make(self, num)
        return GeneratedImages(stopped)

    return lambda is_on=True: monkeypatch.setattr(ToySnapshot, "images", images if is_on else make)


def test_a_signal_during_metrics_is_answered_and_the_resumed_run_computes_them(toy_train, tmp_path, stopped_in_metrics):
    run = tmp_path / "run"
    stopped_in_metrics()
    assert not toy_train(run, metrics=METRIC)
    # The state is that of the snapshot, not of a later one; of the metrics there is nothing.
    assert load_state(run / "training-state.pt")["counters"]["nimg"] == 16 and measured(run) == []
    stopped_in_metrics(False)
    assert toy_train(run, resume="latest", metrics=METRIC)
    assert measured(run) == [16, 32, 48]
    toy_train(tmp_path / "whole", metrics=METRIC)
    assert_same(networks(run), networks(tmp_path / "whole"))


def test_a_run_that_ended_without_its_last_metrics_computes_them_and_no_others(
    toy_train, tmp_path, stopped_in_metrics, capsys
):
    run, other = tmp_path / "run", "fd_offline0.2k_full"
    toy_train(run, nimg=16, metrics=METRIC)
    state = (run / "training-state.pt").read_bytes()
    stopped_in_metrics()
    assert not toy_train(run, resume="latest", nimg=16, metrics=f"{METRIC},{other}")
    stopped_in_metrics(False)
    assert toy_train(run, resume="latest", nimg=16, metrics=f"{METRIC},{other}")
    assert measured(run) == [16] and measured(run, other) == [16]
    capsys.readouterr()
    assert toy_train(run, resume="latest", nimg=16, metrics=f"{METRIC},{other}")
    assert "already finished" in capsys.readouterr().out
    assert (run / "training-state.pt").read_bytes() == state


def test_the_state_is_saved_before_the_metrics(toy_train, tmp_path, monkeypatch):
    def killed(self, num):
        raise KeyboardInterrupt  # nothing that a run could answer to

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ToySnapshot, "images", killed)
        with pytest.raises(KeyboardInterrupt):
            toy_train(run, metrics=METRIC)
    assert toy_train(run, resume="latest", metrics=METRIC)
    assert measured(run) == [16, 32, 48]
