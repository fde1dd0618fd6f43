# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train --resume` from networks that others trained."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from ggdr.decoder import FeatureDecoder
from ggdr.scripts.cli import main
from ggdr.scripts.importing import published as published_networks
from ggdr.torch_utils.checkpoint import load_snapshot, load_state, save_snapshot
from tests.conftest import write_dataset
from tests.download_server import cache, send, server  # noqa: F401
from tests.published_files import pickled, small_networks, with_decoder, write_pickle
from tests.scripts.test_train import assert_same_weights, printed_settings


def ggdr_train(*args, code=0):
    """Runs `ggdr train`; returns what it printed, in one line."""
    result = CliRunner().invoke(main, ["train", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def train(data, outdir, *args, kimg=0.016, code=0):
    shape = ["--batch", 4, "--device", "cpu", "--tick", 0.008, "--snap", 1, "--kimg", kimg]
    return ggdr_train("--data", data, "--outdir", outdir, *shape, *args, code=code)


def pickle_of(path, **size):
    G, D = small_networks(**size)
    decoder = FeatureDecoder({"b8": (8, 4, 4), "b16": (8, 8, 8)}, {"guide": (8, 8, 8)})
    return write_pickle(path, {"G": pickled(G), "D": with_decoder(D, decoder), "G_ema": pickled(G)})


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A network of sizes that no preset has, with a decoder."""
    folder = tmp_path_factory.mktemp("imported")
    args = ["import-weights", str(pickle_of(folder / "x.pkl")), str(folder / "net.safetensors")]
    assert CliRunner().invoke(main, args).exit_code == 0
    return folder / "net.safetensors"


def without(snapshot, path, *names):
    whole = load_snapshot(snapshot)
    networks = {name: state for name, state in whole.networks.items() if name not in names}
    save_snapshot(path, networks, whole.config)
    return path


def test_fine_tuning_takes_the_networks_as_they_are(imported, dataset_zip, tmp_path):
    run = printed_settings(train(dataset_zip, tmp_path / "run", "--resume", imported, "--dry-run"))
    stored = load_snapshot(imported).config
    free = ("num_half_res", "conv_clamp", "mbstd_group_size")
    for net in ("G", "D"):
        assert {k: v for k, v in run[net].items() if k not in free} == {
            k: v for k, v in stored[net].items() if k not in free
        }
    assert run["D"]["mbstd_group_size"] == 4 and run["augment"]["speed_kimg"] == 100
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_the_weights_and_the_decoder(imported, dataset_zip, tmp_path):
    output = train(dataset_zip, tmp_path / "run", "--resume", imported, "--lr", 1e-30, kimg=0.008)
    assert "untrained" not in output
    after = load_state(tmp_path / "run" / "training-state.pt")["task"]["networks"]
    for name, state in load_snapshot(imported).networks.items():
        for key, value in state.items():
            if key != "mapping.w_avg":
                torch.testing.assert_close(after[name][key], value)


def test_continuing_a_fine_tuned_run_is_exact_even_without_the_snapshot(imported, dataset_zip, tmp_path):
    args = ["--freezed", 2, "--resume", without(imported, tmp_path / "copy.safetensors")]
    train(dataset_zip, tmp_path / "whole", *args, kimg=0.032)
    train(dataset_zip, tmp_path / "run", *args, kimg=0.016)
    (tmp_path / "copy.safetensors").unlink()
    output = ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.032)
    assert "differ from the resumed run: kimg 0.016 -> 0.032" in output
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_frozen_layers_stay_as_they_were_imported(imported, dataset_zip, tmp_path):
    train(dataset_zip, tmp_path / "run", "--resume", imported, "--freezed", 3)
    before = load_snapshot(imported).networks["D"]
    after = load_state(tmp_path / "run" / "training-state.pt")["task"]["networks"]["D"]
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved and not any(name.startswith(("b16.fromrgb", "b16.conv0", "b16.conv1")) for name in moved)


def test_a_snapshot_without_G_starts_from_its_average(imported, dataset_zip, tmp_path):
    snapshot = without(imported, tmp_path / "x.safetensors", "G", "ggdr")
    output = train(dataset_zip, tmp_path / "run", "--resume", snapshot, "--lr", 1e-30, kimg=0.008)
    assert "has no G; it starts as G_ema" in output and "starts untrained" in output
    after = load_state(tmp_path / "run" / "training-state.pt")["task"]["networks"]["G"]
    torch.testing.assert_close(after["synthesis.b4.const"], load_snapshot(imported).networks["G"]["synthesis.b4.const"])


def test_options_that_say_the_same_are_accepted(imported, dataset_zip, tmp_path):
    # 8 maps at 4x4 and 8x8, 4 at 16x16.
    args = ["--channel-base", 64, "--channel-max", 8, "--cfg", "stylegan2", "--dry-run"]
    run = printed_settings(train(dataset_zip, tmp_path / "run", "--resume", imported, *args))
    assert run["G"]["mapping_num_layers"] == 2 and run["loss"]["r1_gamma"] == 10


def test_what_does_not_fit_is_refused_with_the_option_that_mends_it(imported, dataset_zip, tmp_path):
    small = write_dataset(tmp_path / "small.zip", res=8)
    grey = write_dataset(tmp_path / "grey.zip", channels=1)
    lone = without(imported, tmp_path / "lone.safetensors", "D")
    theirs = pickle_of(tmp_path / "x.pkl")
    cases = [
        (dataset_zip, ["--channel-max", 4], "'--channel-max': NET has channel_max 8 (this run: 4)"),
        (dataset_zip, ["--channel-base", 32], "'--channel-base': NET has channel_base 64 (this run: 32)"),
        (
            small,
            [],
            f"its images are 8x8x3, and NET is for 16x16x3; convert them: ggdr dataset {small} NEW.zip --resolution 16 "
            "--small upscale",
        ),
        (grey, [], f"ggdr dataset {grey} NEW.zip --resolution 16"),
        (dataset_zip, ["--cond"], "'--cond': NET has no classes; leave --cond out"),
        (dataset_zip, ["--resume", lone], "holds G, G_ema, ggdr, but no D"),
        (
            dataset_zip,
            ["--resume", theirs],
            f"ggdr import-weights {theirs} NEW.safetensors, then --resume NEW.safetensors",
        ),
    ]
    for data, args, message in cases:
        output = train(data, tmp_path / "run", "--resume", imported, *args, code=2)
        assert message.replace("NET", str(imported)) in output, output
        assert not (tmp_path / "run").exists()


def test_conditional_networks_need_the_classes(dataset_zip, tmp_path):
    G, D = small_networks(c_dim=2)
    write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G), "D": pickled(D)})
    args = ["import-weights", str(tmp_path / "x.pkl"), str(tmp_path / "x.safetensors")]
    assert CliRunner().invoke(main, args).exit_code == 0
    resume = ["--resume", tmp_path / "x.safetensors"]
    assert "has 2 classes; give --cond" in train(dataset_zip, tmp_path / "run", *resume, code=2)
    assert "it has 3 classes, and" in train(dataset_zip, tmp_path / "run", *resume, "--cond", code=2)
    train(write_dataset(tmp_path / "two.zip", classes=2), tmp_path / "run", *resume, "--cond", kimg=0.008)


def test_a_checkpoint_of_others_is_sent_to_the_importer(dataset_zip, tmp_path):
    torch.save({"g_ema": {}}, tmp_path / "theirs.pt")
    output = train(dataset_zip, tmp_path / "run", "--resume", tmp_path / "theirs.pt", code=2)
    assert "ggdr import-weights" in output


@pytest.mark.parametrize("data", [["--data", "absent.zip"], []])
def test_nothing_is_fetched_for_a_dataset_that_is_not_there(tmp_path, monkeypatch, data):
    def fetch(name):
        raise AssertionError(f"{name} is fetched")

    monkeypatch.setattr("ggdr.scripts.training.resume.snapshot_of", fetch)
    output = ggdr_train(*data, "--outdir", tmp_path / "run", "--resume", "ffhq256", code=2)
    assert ("absent.zip: no such file or folder" if data else "Missing option '--data'") in output


def test_a_published_network_is_fetched_by_name(server, cache, dataset_zip, tmp_path, monkeypatch):  # noqa: F811
    content = pickle_of(tmp_path / "served.pkl").read_bytes()
    server.answers = [send(content, length=len(content))]
    monkeypatch.setattr(published_networks, "ADDRESS", server.url.rpartition("/")[0])
    ops = ["--ops", "reference"]  # the cache is empty of compiled ones
    output = train(dataset_zip, tmp_path / "run", "--resume", "ffhq256", *ops, kimg=0.008)
    assert "NVIDIA Source Code License" in output and f"starting from the weights of {cache}" in output
    server.answers = [send(b"", length=0)]
    ggdr_train("--outdir", tmp_path / "run", "--resume", "latest", "--kimg", 0.016, *ops)
    assert len(server.requests) == 1
    # Another run from this one's weights knows it too.
    *_, snapshot = (tmp_path / "run").glob("network-snapshot-*.safetensors")
    train(dataset_zip, tmp_path / "next", "--resume", snapshot, *ops)
    url = f"{published_networks.ADDRESS}/{published_networks.NETWORKS['ffhq256'].path}"
    for run in ("run", "next"):
        source = json.loads((tmp_path / run / "training_options.json").read_text())["init_source"]
        assert source["url"] == url and len(source["sha256"]) == 64


def test_offline_it_says_what_to_fetch_and_how_to_import_it(cache, dataset_zip, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(published_networks, "ADDRESS", "http://127.0.0.1:9")
    output = train(dataset_zip, tmp_path / "run", "--resume", "ffhq256", code=2)
    name = "ffhq-res256-mirror-paper256-noaug.pkl"
    for part in (f"http://127.0.0.1:9/transfer-learning-source-nets/{name}", str(cache / name), "ggdr import-weights"):
        assert part in output
