# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr metrics` as its users run it, metrics during training, and their curves."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ggdr.metrics.lpips import LPIPS
from ggdr.metrics.vgg import shapes_of
from ggdr.scripts.measuring.snapshot_images import SEED_STRIDE
from ggdr.scripts.measuring.snapshot_metrics import BEST_FILE
from ggdr.scripts.reports.panels import read_metrics
from ggdr.stylegan2.config import GeneratorConfig
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent.sampling import generate_images
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.torch_utils.runlog import read_stats
from tests.conftest import TINY_RUN, torchrun, write_dataset
from tests.metric_cases import DETECTOR, limited, noise_images, write_images
from tests.scripts.test_generate import tiny_generator

LABELS = np.arange(40) % 3


@pytest.fixture
def network(tmp_path) -> Path:
    return save(tmp_path / "net.safetensors", tiny_generator())


@pytest.fixture
def reals(tmp_path) -> Path:
    return write_images(tmp_path / "reals.zip", noise_images(40, res=8), labels=LABELS)


def save(path: Path, G) -> Path:
    save_snapshot(path, {"G_ema": G.state_dict()}, {"G": asdict(G.config), "nimg": 4000})
    return path


def ggdr_metrics(*args: object, code: int = 0) -> str:
    from ggdr.scripts.cli import main

    command = ["metrics", "--device", "cpu", "--detector", DETECTOR, *map(str, args)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def results(output: str) -> dict[str, float]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {name: value for line in lines for name, value in line["results"].items()}


NAMES = "fd_custom0.03k_full,kd_custom0.03k_full,pr_custom0.03k3_full"


def test_a_snapshot_is_measured_as_the_images_that_generate_makes(network, reals, tmp_path):
    seeds = [SEED_STRIDE + i for i in range(30)]
    images = [batch for _, batch, _ in generate_images(
        tiny_generator(), seeds, device="cpu", batch_size=30, noise_mode="random")]  # fmt: skip
    np.savez(tmp_path / "fakes.npz", images=torch.cat(images).permute(0, 2, 3, 1).numpy())
    by_network = ggdr_metrics("--network", network, "--data", reals, "--metrics", NAMES, "--seed", 1, "--json")
    by_images = ggdr_metrics("--fakes", tmp_path / "fakes.npz", "--reals", reals, "--metrics", NAMES, "--json")
    assert results(by_network)["fd_custom0.03k_full"] == results(by_images)["fd_custom0.03k_full"]
    other_seed = ggdr_metrics("--network", network, "--data", reals, "--metrics", NAMES, "--json")
    assert results(other_seed)["fd_custom0.03k_full"] != results(by_network)["fd_custom0.03k_full"]


def test_json_is_one_object_a_line_that_says_everything(network, reals):
    output = ggdr_metrics("--network", network, "--data", reals, "--metrics", NAMES, "--trunc", 0.7, "--json")
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["metric"] for line in lines] == NAMES.split(",")
    fakes = lines[0]["choices"]["fakes"]
    assert (fakes["psi"], fakes["seed"], fakes["noise_mode"], fakes["size"]) == (0.7, 0, "random", [8, 8])
    assert any("truncated" in warning for warning in lines[0]["warnings"])


def test_people_get_values_choices_and_warnings(network, reals):
    output = ggdr_metrics("--network", network, "--data", reals, "--metrics", "fd_custom0.03k_full")
    assert output.startswith("fd_custom0.03k_full ")
    assert "30 fakes, 40 reals" in output and "covariance / N;" in output and "warning: 30 fakes" in output


def test_num_fakes_renames_the_metric(network, reals):
    output = ggdr_metrics(
        "--network", network, "--data", reals, "--metrics", "fd_custom50k_full", "--num-fakes", 20, "--json"
    )
    assert list(results(output)) == ["fd_custom0.02k_full"]


def test_labels_of_fakes_are_as_frequent_as_those_of_reals(tmp_path, reals):
    network = save(tmp_path / "cond.safetensors", tiny_generator(c_dim=3))
    output = ggdr_metrics("--network", network, "--data", reals, "--metrics", "intra_fd_custom0.03k_full", "--json")
    assert list(json.loads(output)["choices"]["classes"]) == ["0", "1", "2"]
    other = write_images(tmp_path / "other.zip", noise_images(40, res=8), labels=np.arange(40) % 4)
    message = ggdr_metrics("--network", network, "--data", other, "--metrics", "fd_custom0.03k_full", code=2)
    assert "has labels of 3 numbers, those of the reals have 4" in message


def test_stored_statistics_replace_the_reals(reals, tmp_path):
    fakes = write_images(tmp_path / "fakes", noise_images(30, seed=1, res=8))
    stats, names = tmp_path / "stats.npz", "fd_custom0.03k_full"
    ggdr_metrics("--reals", reals, "--metrics", names, "--save-stats", stats)
    same = ggdr_metrics("--fakes", fakes, "--reals", stats, "--metrics", names, "--mode", "pytorch-fid", "--json")
    direct = ggdr_metrics("--fakes", fakes, "--reals", reals, "--metrics", names, "--mode", "pytorch-fid", "--json")
    assert results(same) == pytest.approx(results(direct))
    other = ggdr_metrics(
        "--fakes", fakes, "--reals", stats, "--metrics", "fd_offline0.03k_full", "--mode", "pytorch-fid", code=2
    )
    assert "custom" in other and "offline" in other


def test_statistics_give_the_same_distance_in_each_mode(reals, tmp_path):
    fakes = write_images(tmp_path / "fakes", noise_images(30, seed=1, res=8))
    stats, names = tmp_path / "stats.npz", "fd_custom0.03k_full"
    ggdr_metrics("--reals", reals, "--metrics", names, "--save-stats", stats)
    images = ["--fakes", fakes, "--metrics", names, "--json", "--mode"]
    for mode in ("stylegan", "clean"):
        stored = ggdr_metrics("--reals", stats, *images, mode)
        assert results(stored) == pytest.approx(results(ggdr_metrics("--reals", reals, *images, mode)), rel=1e-9)
        # The file was made in another mode, whose way of reading files matters to some images.
        assert ("turned by EXIF or transparent" in stored) == (mode == "clean")


def test_misleading_comparisons_are_pointed_out(reals, tmp_path):
    fakes = write_images(tmp_path / "fakes", noise_images(30, seed=1, res=16), suffix=".jpg")
    output = ggdr_metrics("--fakes", fakes, "--reals", reals, "--metrics", "fd_custom0.03k_full")
    assert "differ in size (8x8 and 16x16)" in output and "only the fakes are JPEG" in output
    write_images(fakes / "more", noise_images(4, res=8), suffix=".jpg")
    output = ggdr_metrics("--fakes", fakes, "--reals", reals, "--metrics", "fd_custom0.03k_full", "--mode", "clean")
    assert "the fakes differ in size among themselves (8x8 to 16x16)" in output
    assert "30 fakes (at random from 34), 40 reals; mode clean: files as stored, without alpha" in output


# Where results go.


def test_a_half_written_line_takes_no_result_with_it(network, reals, tmp_path):
    out = tmp_path / "out"
    args = ["--network", network, "--data", reals, "--metrics", "fd_custom0.03k_full", "--outdir", out]
    ggdr_metrics(*args)
    path = out / "metric-fd_custom0.03k_full.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes()[:-20])  # what a kill or a full disk leaves
    ggdr_metrics(*args)
    first, second = lines(out, "fd_custom0.03k_full")
    assert first["results"] == second["results"]
    assert len(read_metrics(out)) == 1


def in_run(network: Path, tmp_path: Path) -> Path:
    """The network in a run folder whose results cannot be added to, whoever runs the test."""
    (tmp_path / "training_options.json").write_text("{}")
    (tmp_path / "metric-fd_custom0.03k_full.jsonl").mkdir()
    return network


def test_results_of_a_run_that_cannot_be_written_to_are_printed(network, reals, tmp_path):
    args = ["--network", in_run(network, tmp_path), "--data", reals, "--metrics", "fd_custom0.03k_full"]
    output = ggdr_metrics(*args)
    assert "metric-fd_custom0.03k_full.jsonl: Is a directory: results are printed only; --outdir DIR" in output
    assert "30 fakes, 40 reals" in output and "appended" not in output


@pytest.mark.parametrize("option, value", [("--outdir", "{folder}"), ("--save-stats", "{folder}/none/stats.npz")])
def test_folders_that_cannot_be_written_to_are_refused_before_any_work(
    network, reals, tmp_path, monkeypatch, option, value
):  # fmt: skip
    monkeypatch.setattr("ggdr.scripts.metrics._measure", None)
    args = ["--network", in_run(network, tmp_path), "--data", reals, "--metrics", "fd_custom0.03k_full"]
    output = ggdr_metrics(*args, option, value.format(folder=tmp_path), code=2)
    assert ("none: No such file" if option == "--save-stats" else "jsonl: Is a directory") in output


def test_a_disk_that_is_full_in_the_end_costs_no_value(network, reals, tmp_path, monkeypatch):
    def fail(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("ggdr.scripts.measuring.results.append_line", fail)
    args = ["--network", network, "--data", reals, "--metrics", "fd_custom0.03k_full", "--outdir", tmp_path / "out"]
    output = ggdr_metrics(*args, code=2)
    assert output.startswith("fd_custom0.03k_full ") and "No space left on device" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "fid50k"], "did you mean 'fid50k_full'"),
        (["--metrics", "is50k"], "Missing option '--network' or '--fakes'"),
        (["--fakes", "{reals}", "--metrics", "fid50k_full"], "Missing option '--data'"),
        (["--fakes", "{reals}", "--network", "{network}", "--metrics", "is50k"], "expected one of them, got both"),
        (["--fakes", "{reals}", "--reals", "{reals}", "--metrics", "fd_custom1k_full"], "needs 1000 fakes, got 40"),
        (["--network", "{reals}", "--metrics", "ppl2_wend"], "not a readable network snapshot"),
    ],
)
def test_bad_options_are_named(network, reals, options, message):
    output = ggdr_metrics(*(option.format(network=network, reals=reals) for option in options), code=2)
    assert message in output.replace("\n", " ")


def test_missing_weights_without_a_network_say_what_to_do(network, reals, monkeypatch, tmp_path, ops_cache):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    output = ggdr_metrics("--network", network, "--data", reals, "--metrics", "fid0.03k_full", code=2)
    for part in ("pt_inception-2015-12-05-6726825d.pth", "6726825d0af5f729", "--inception", str(ops_cache)):
        assert part in output.replace("\n", "")


@pytest.fixture
def lpips_files(tmp_path) -> list[str]:
    """Options that name random weights of LPIPS."""
    shapes = shapes_of(LPIPS())
    rng = torch.Generator().manual_seed(0)
    vgg = {k: torch.randn(v, generator=rng) * 0.05 for k, v in shapes.items() if not k.startswith("linear.")}
    names = [f"lin{i}.model.1.weight" for i in range(5)]
    linear = {k: torch.rand(shapes[f"linear.{i}"], generator=rng) for i, k in enumerate(names)}
    torch.save(vgg, tmp_path / "vgg.pth")
    torch.save(linear, tmp_path / "lpips.pth")
    return ["--vgg", str(tmp_path / "vgg.pth"), "--lpips", str(tmp_path / "lpips.pth")]


def test_path_lengths_of_a_snapshot_do_not_depend_on_the_batch(tmp_path, lpips_files):
    torch.manual_seed(0)
    G = Generator(GeneratorConfig(16, 1, 0, z_dim=6, w_dim=5, mapping_num_layers=1, channel_base=64)).eval()
    network = save(tmp_path / "grey.safetensors", G)
    found = []
    for batch in (6, 4):
        names = "ppl2_wend0.006k,ppl2_wfull0.006k,ppl2_zfull0.006k"
        output = ggdr_metrics("--network", network, "--metrics", names, *lpips_files, "--batch", batch, "--json")
        found.append(results(output))
    assert found[0] == pytest.approx(found[1], rel=0.02)  # float32's rounding, over 1e-8
    assert min(found[0].values()) > 0 and len(set(found[0].values())) == 3
    assert "none: paths are shorter" in output


def test_a_diverged_network_is_named(reals, tmp_path):
    G = tiny_generator()
    G.synthesis.b8.conv1.weight.fill_(float("nan"))
    output = ggdr_metrics(
        "--network", save(tmp_path / "nan.safetensors", G), "--data", reals, "--metrics", "fd_custom0.03k_full", code=2
    )
    assert "the network has diverged" in output


def test_processes_share_the_work_and_change_nothing(network, reals):
    args = ["--network", network, "--data", reals, "--metrics", NAMES, "--json", "--no-cache", "--device", "cpu"]
    args += ["--detector", DETECTOR, "--batch", 7]
    code, output = torchrun("-m", "ggdr", "metrics", *args)
    assert code == 0, output
    assert results(output) == pytest.approx(results(ggdr_metrics(*args[:-4])), rel=1e-9)
    assert output.count('"metric"') == 3


def test_an_unreadable_image_ends_all_processes(network, tmp_path):
    folder = write_images(tmp_path / "reals", noise_images(40, res=8))
    (folder / "img00031.png").write_bytes(b"broken")
    args = ["--network", network, "--data", folder, "--metrics", NAMES, "--device", "cpu", "--detector", DETECTOR]
    code, output = torchrun("-m", "ggdr", "metrics", *args)
    assert code != 0
    assert "img00031.png: cannot be decoded" in output


# During training.


def train(data: Path, outdir: Path, *args: object, code: int = 0) -> str:
    from ggdr.scripts.cli import main

    command = ["train", "--data", data, "--outdir", outdir, *TINY_RUN, "--tick", 0.032, "--snap", 1, *args]
    result = CliRunner().invoke(main, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / f"metric-{name}.jsonl").read_text().splitlines()]


METRICS = ("--metrics", "fd_offline0.1k_full,pr_offline0.1k3_full")


def test_each_snapshot_is_measured_and_the_best_is_kept(dataset_zip, tmp_path):
    run = tmp_path / "run"
    output = train(dataset_zip, run, *METRICS, "--kimg", 0.096)
    found = lines(run, "fd_offline0.1k_full")
    assert [line["nimg"] for line in found] == [32, 64, 96]
    best = min(found, key=lambda line: line["results"]["fd_offline0.1k_full"])
    snapshot = load_snapshot(run / BEST_FILE)
    assert snapshot.config["best"] == {
        "metric": "fd_offline0.1k_full", "value": best["results"]["fd_offline0.1k_full"], "nimg": best["nimg"]
    }  # fmt: skip
    original = load_snapshot(run / best["snapshot"])
    assert all(
        torch.equal(value, snapshot.networks["G_ema"][name]) for name, value in original.networks["G_ema"].items()
    )
    assert "(the best so far)" in output
    logged = [line for line in read_stats(run) if "metric/fd_offline0.1k_full" in line]
    assert [line["nimg"] for line in logged] == [32, 64, 96] and all("time/metrics_sec" in line for line in logged)
    # The same snapshot by hand: the same numbers, one line more.
    by_hand = ggdr_metrics("--network", run / best["snapshot"], "--data", dataset_zip, METRICS[0], METRICS[1], "--json")
    assert results(by_hand)["fd_offline0.1k_full"] == best["results"]["fd_offline0.1k_full"]
    assert len(lines(run, "fd_offline0.1k_full")) == 4


def test_resuming_measures_what_was_lost_again_and_nothing_twice(dataset_zip, tmp_path):
    run = tmp_path / "run"
    train(dataset_zip, run, *METRICS, "--kimg", 0.064)
    with open(run / "metric-fd_offline0.1k_full.jsonl", "a") as file:
        file.write('{"metric": "fd_offline0.1k_full", "results": {"fd_offline0.1k_full": 1}, "nimg": 96}\n{"metr')
    (run / "metric-x.jsonl").write_bytes(b'\xff\n{"metric": "fd_offline1k_full", "results": {}}\n')
    train(dataset_zip, run, "--resume", "latest", "--kimg", 0.096)
    assert [line["nimg"] for line in lines(run, "fd_offline0.1k_full")] == [32, 64, 96]
    assert lines(run, "fd_offline0.1k_full")[2]["results"]["fd_offline0.1k_full"] != 1
    assert len(lines(run, "x")) == 1  # of images of no run, and no damaged line


def test_a_metric_that_fails_does_not_end_the_training(dataset_zip, tmp_path, monkeypatch):
    def fail(specs, job):
        raise OSError(28, "No space left on device", "features")

    monkeypatch.setattr("ggdr.scripts.measuring.judge.evaluate", fail)
    output = train(dataset_zip, tmp_path / "run", *METRICS, "--kimg", 0.064)
    assert output.count("network-best.safetensors is chosen without it; training goes on") == 2
    assert "No space left" in output and "done: 0.064 kimg" in output


def test_a_metric_that_does_not_fit_the_memory_is_said_in_plain_words(dataset_zip, tmp_path, monkeypatch):
    def fail(self, numbers, labels):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("ggdr.scripts.measuring.snapshot_images.SnapshotGenerator._draw", fail)
    output = train(dataset_zip, tmp_path / "run", *METRICS, "--kimg", 0.032)
    text = "failed: not enough GPU memory for the fakes, even for one at a time; network-best.safetensors is chosen"
    assert text in output and "done: 0.032 kimg" in output


def test_images_that_do_not_fit_the_memory_are_made_fewer_at_a_time(network, reals, monkeypatch):
    names = [NAMES, "--json", "--no-cache"]
    whole = ggdr_metrics("--network", network, "--data", reals, "--metrics", *names, "--batch", 3)
    sizes = with_room_for(3, monkeypatch)
    parts = ggdr_metrics("--network", network, "--data", reals, "--metrics", *names, "--batch", 24)
    assert sizes[:4] == [24, 12, 6, 3] and sum(size for size in sizes if size <= 3) == 30
    assert results(parts) == results(whole)


def with_room_for(num: int, monkeypatch) -> list[int]:
    """Makes a generator fail at more images; returns how many it was asked for, from now on."""
    from ggdr.scripts.measuring.snapshot_images import SnapshotGenerator

    sizes, draw = [], SnapshotGenerator._draw

    monkeypatch.setattr(
        SnapshotGenerator,
        "_draw",
        lambda self, *args: limited(partial(draw, self), num, sizes)(*args),
    )
    return sizes


def test_results_that_cannot_be_kept_are_in_the_log_and_training_goes_on(dataset_zip, tmp_path):
    (tmp_path / "run" / "metric-fd_offline0.1k_full.jsonl").mkdir(parents=True)
    output = train(dataset_zip, tmp_path / "run", *METRICS, "--kimg", 0.032)
    assert "Is a directory" in output and "training goes on" in output and "done: 0.032 kimg" in output
    assert "metric/fd_offline0.1k_full" in read_stats(tmp_path / "run")[-1]


def test_unusable_metrics_are_refused_before_training(dataset_zip, tmp_path):
    message = train(dataset_zip, tmp_path / "run", "--metrics", "fid50k", "--kimg", 0.064, code=2)
    assert "did you mean 'fid50k_full'" in message and not (tmp_path / "run").exists()
    unlabelled = write_dataset(tmp_path / "unlabelled.zip", classes=0)
    message = train(unlabelled, tmp_path / "run", "--metrics", "intra_fd_offline5k_full", code=2)
    assert "needs the classes of the images" in message and not (tmp_path / "run").exists()


def test_two_processes_measure_as_one(dataset_zip, tmp_path):
    args = ["--data", dataset_zip, *TINY_RUN, "--tick", 0.032, "--kimg", 0.032, *METRICS, "--outdir", tmp_path / "two"]
    code, output = torchrun("-m", "ggdr", "train", *args)
    assert code == 0, output
    (network,) = (tmp_path / "two").glob("network-snapshot-*")
    by_hand = ggdr_metrics("--network", network, "--data", dataset_zip, *METRICS, "--json", "--outdir", tmp_path)
    (line,) = lines(tmp_path / "two", "fd_offline0.1k_full")
    assert line["results"] == pytest.approx({"fd_offline0.1k_full": results(by_hand)["fd_offline0.1k_full"]}, rel=1e-5)


# Curves.


def test_curves_show_each_metric_over_kimg(tmp_path):
    for kimg, value in ((4, 30.0), (2, 50.0), (4, 20.0)):
        record = {"metric": "pr50k3_full", "results": {"pr50k3_full_precision": value, "pr50k3_full_recall": 0.1}}
        with open(tmp_path / "metric-pr50k3_full.jsonl", "a") as file:
            file.write(json.dumps({**record, "kimg": kimg}) + "\n")
    assert [line["kimg"] for line in read_metrics(tmp_path)] == [2, 4]
    assert read_metrics(tmp_path)[1]["result/pr50k3_full_precision"] == 20.0  # measured twice: the last counts
    (tmp_path / "metric-fid50k_full.jsonl").write_text('{"results": {}}\n')
    with pytest.raises(ValueError, match="metric-fid50k_full.jsonl, line 1: expected a metric's result"):
        read_metrics(tmp_path)
