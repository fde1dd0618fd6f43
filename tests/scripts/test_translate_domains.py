# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Domains that commands add to a trained ComboGAN, and take out of one."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.translation.snapshot import load_translator
from tests.scripts.test_train import assert_same_weights
from tests.scripts.test_translate import SIZE, plain, timeless, translate
from tests.scripts.test_translate_combogan import METRIC, MODEL, TINY, last_of, stopped_at
from tests.scripts.test_translate_cyclegan import make_domains, settings_of
from tests.scripts.test_translate_metrics import metrics, results

OLD, NEW = ["autumn", "spring", "winter"], "fog"  # the new one is not the last by name
NUM = {"autumn": 8, "fog": 7, "haze": 3, "spring": 9, "winter": 12}
SHORT = [*MODEL, *TINY[-6:], "--kimg", 0.024]


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return make_domains(tmp_path_factory.mktemp("data") / "domains", NUM)


@pytest.fixture(scope="module")
def before(tmp_path_factory, domains):
    """A finished run on the three old domains."""
    data, run = tmp_path_factory.mktemp("data") / "old", tmp_path_factory.mktemp("runs") / "before"
    for name in OLD:
        shutil.copytree(domains / name, data / name)
    translate("--data", data, "--outdir", run, *TINY, "--kimg", 0.016, "--metrics", "none")
    return run


@pytest.fixture(scope="module")
def added(tmp_path_factory, domains, before):
    """A run that adds a domain to that one."""
    run = tmp_path_factory.mktemp("runs") / "added"
    args = ["--data", domains, "--outdir", run, "--resume", before, "--add-domain", NEW, *SHORT, *METRIC]
    output = plain(translate(*args))
    assert f"starting from the weights of {last_of(before)}" in output
    assert "fog alone is trained; autumn, spring, winter stay as they are" in output
    assert "left out are the images of haze" in output
    return run


def remove(*args, code=0):
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["translate", "remove-domain", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return plain(result.output)


def test_only_the_added_domain_is_trained(before, added):
    old, new = load_snapshot(last_of(before)), load_snapshot(last_of(added))
    assert new.config["domains"] == [*OLD, NEW] and new.config["training"]["frozen"] == OLD
    assert new.networks.keys() == old.networks.keys() | {"D_3", "ggdr_3"}
    for name in old.networks.keys() - {"G"}:
        assert all(torch.equal(value, new.networks[name][key]) for key, value in old.networks[name].items()), name
    G = new.networks["G"]
    for key, value in old.networks["G"].items():
        is_wider = key.startswith("shared") and value.ndim == 4
        assert torch.equal(value, G[key][:, :-1] if is_wider else G[key]), key
        assert not is_wider or not G[key][:, -1].any()
    first = load_snapshot(added / "network-snapshot-000000.016.safetensors").networks
    assert not torch.equal(first["G"]["encoders.3.model.1.weight"], G["encoders.3.model.1.weight"])
    img = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    there = [load_translator(last_of(run))(img, "spring", "winter") for run in (before, added)]
    torch.testing.assert_close(*there, rtol=0, atol=1e-5)


def test_what_is_measured_has_the_networks_order(domains, added, tmp_path):
    assert "cycle_mae0.004k_0to3" in results(added, "cycle_mae0.004k")[24]
    # "fog" is domain 3 of the networks, and 1 in the data.
    printed = metrics("--network", last_of(added), "--data", domains, "--metrics", "cycle_mae0.004k", "--json")
    found = json.loads(printed.splitlines()[-1])["results"]
    assert found == pytest.approx(results(added, "cycle_mae0.004k")[24], rel=1e-5)
    two = make_domains(tmp_path / "two", {"autumn": 4, "fog": 4})
    message = metrics("--network", last_of(added), "--data", two, "--metrics", "cycle_mae0.004k", code=2)
    assert "holds no domain spring, winter; it has autumn, fog" in plain(message)


def test_numbered_domains_are_measured_in_the_networks_order_which_is_told(domains, added, tmp_path):
    metric, numbered = "cycle_mae0.004k", tmp_path / "numbered"
    for i, name in enumerate([*OLD, NEW]):
        shutil.copytree(domains / name, numbered / f"train{i}")
    output = metrics("--network", last_of(added), "--data", numbered, "--metrics", metric, "--outdir", tmp_path)
    assert "0 as autumn, 1 as spring, 2 as winter, 3 as fog, in 6 of 12 directions, from and to fog" in plain(output)
    assert results(tmp_path, metric)[24] == pytest.approx(results(added, metric)[24], rel=1e-5)


def test_directions_that_stay_as_they_are_are_not_measured(domains, before, added, tmp_path):
    names = {f"cycle_mae0.004k_{a}to{b}" for i in range(3) for a, b in ((i, 3), (3, i))}
    assert results(added, "cycle_mae0.004k")[24].keys() == {"cycle_mae0.004k", *names}
    text = "in 6 of 12 directions, from and to fog: the others stay as they are"
    assert text in (added / "log.txt").read_text()
    assert text in metrics("--network", added, "--data", domains, "--metrics", "cycle_mae0.004k")
    # Default metrics take more images of fewer directions.
    many = make_domains(tmp_path / "many", dict.fromkeys([*OLD, NEW], 200))
    args = ["--data", many, "--outdir", tmp_path / "run", *SHORT, "--resume"]
    assert settings_of(*args, before, "--add-domain", NEW)["metrics"] == ["kd_offline0.2k_full", "cycle_psnr0.2k"]
    assert settings_of(*args, last_of(added))["metrics"] == ["kd_offline0.1k_full", "cycle_psnr0.1k"]


def test_such_a_run_resumes_bit_for_bit(domains, before, added, tmp_path):
    run = tmp_path / "run"
    args = ["--data", domains, "--outdir", run, "--resume", before, "--add-domain", NEW, *SHORT, *METRIC]
    stopped_at(3, *args)
    translate("--outdir", run, "--resume", "latest")
    assert_same_weights(run, added)
    assert timeless(run) == timeless(added)


def test_a_domain_that_was_begun_to_be_added_goes_on_from_a_snapshot(domains, added, tmp_path):
    args = ["--data", domains, "--outdir", tmp_path / "run", "--resume", added, "--add-domain", NEW, "--device", "cpu"]
    settings = settings_of(*args)
    assert settings["frozen"] == OLD and settings["data"]["domains"] == [*OLD, NEW]
    # It has a part in each iteration: 200 epochs are as many passes over its images.
    assert settings["optim"]["constant_nimg"] == settings["optim"]["falling_nimg"] == 100 * NUM["winter"]


def test_all_domains_of_such_a_run_can_be_trained_on(domains, added, tmp_path):
    args = ["--data", domains, "--outdir", tmp_path / "run", "--resume", last_of(added), *MODEL]
    settings = settings_of(*args)
    assert settings["data"]["domains"] == [*OLD, NEW] and settings["frozen"] == []
    assert settings["data"]["num_images"] == [NUM[name] for name in (*OLD, NEW)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--add-domain", "winter"], "has a domain 'winter' already; its domains are autumn, spring, winter"),
        (["--add-domain", "mist"], "lacks mist of the domains autumn, spring, winter, mist, of which the last is"),
        (["--add-domain", NEW, "--channels", "8"], "'--channels': the networks are those of"),
        (["--add-domain", NEW, "--resume", "latest"], "'--add-domain': needs --resume with a snapshot or run"),
        (["--add-domain", NEW, "--resume", "training-state.pt"], "expected a snapshot or a run folder, got a state"),
        (["--add-domain", NEW, "--resume", "nowhere"], "--resume: nowhere: no such file"),
        (["--add-domain", NEW, "--resume", "."], "a folder that holds no snapshot to add a domain to"),
    ],
)  # fmt: skip
def test_a_domain_that_cannot_be_added_is_a_message(args, message, domains, before, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    assert message in plain(translate("--data", domains, "--outdir", run, "--resume", before, *SHORT, *args, code=2))
    assert not run.exists()


@pytest.mark.parametrize("more", [[], ["--resume", "latest"]], ids=["nothing", "latest"])
def test_a_domain_is_added_to_something(more, domains, tmp_path):
    run = tmp_path / "run"
    message = plain(translate("--data", domains, "--outdir", run, "--add-domain", NEW, *more, code=2))
    assert "'--add-domain': needs --resume with a snapshot or run of combogan" in message and not run.exists()


@pytest.mark.parametrize(
    ("networks", "name"),
    [
        ({"G_A": {"network": "resnet_generator"}}, "is a CycleGAN (cyclegan)"),
        ({"G": {"network": "oasis_generator"}}, "is an OASIS (oasis)"),
    ],
    ids=["cyclegan", "oasis"],
)
def test_domains_are_taken_out_of_a_combogan_alone(networks, name, tmp_path):
    network, out = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
    save_snapshot(network, {key: {"w": torch.zeros(1)} for key in networks}, networks)
    message = remove("--network", network, "fog", "--out", out, code=2)
    assert f"{network}: {name}, expected a ComboGAN" in message and not out.exists()


def test_data_that_lack_an_old_domain_are_named(before, tmp_path):
    data = make_domains(tmp_path / "data", {"autumn": 3, NEW: 3})
    args = ["--data", data, "--outdir", tmp_path / "run", "--resume", before, "--add-domain", NEW, *SHORT]
    assert "lacks spring, winter of the domains autumn, spring, winter, fog" in plain(translate(*args, code=2))


def test_a_run_goes_on_with_the_domain_that_it_adds_only(added):
    output = plain(translate("--outdir", added, "--resume", "latest", "--kimg", 0.1, "--add-domain", "haze", code=2))
    assert "'--add-domain': the resumed run was begun with 'fog', got 'haze'" in output


def test_a_domain_is_taken_out_and_the_others_stay(before, added, domains, tmp_path):
    out = tmp_path / "smaller.safetensors"
    assert remove("--network", last_of(added), "spring", "--out", out).endswith("3 domains, autumn, winter, fog")
    old, new = load_snapshot(last_of(added)), load_snapshot(out)
    assert new.networks.keys() == {"G", *(f"{name}_{i}" for name in ("D", "ggdr") for i in range(3))}
    assert "D_3" not in new.config and new.config["training"]["data"]["domains"] == ["autumn", "winter", "fog"]
    for now, then in ((0, 0), (1, 2), (2, 3)):
        for name in ("D", "ggdr"):
            theirs = old.networks[f"{name}_{then}"]
            assert all(torch.equal(value, theirs[key]) for key, value in new.networks[f"{name}_{now}"].items())
    img = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    there = [load_translator(path)(img, "winter", "fog") for path in (out, last_of(added))]
    torch.testing.assert_close(*there, rtol=0, atol=1e-5)
    printed = metrics("--network", out, "--data", domains, "--metrics", "cycle_mae0.004k", "--json")
    assert len(json.loads(printed.splitlines()[-1])["results"]) == 1 + 3 * 2
    # What was taken out can be added anew.
    args = ["--data", domains, "--outdir", tmp_path / "run", "--resume", out, "--add-domain", "spring", *SHORT]
    assert settings_of(*args)["data"]["domains"] == ["autumn", "winter", "fog", "spring"]


def test_a_domain_that_cannot_be_taken_out_is_a_message(before, tmp_path):
    snapshot, out = last_of(before), tmp_path / "out.safetensors"
    assert "has no domain 'fog'; its domains are autumn, spring, winter" in remove(
        "--network", snapshot, "fog", "--out", out, code=2
    )
    assert "expected a name ending in .safetensors, got 'out.pt'" in remove(
        "--network", snapshot, "spring", "--out", tmp_path / "out.pt", code=2
    )
    remove("--network", snapshot, "spring", "--out", out)
    assert "exists; name another file" in remove("--network", snapshot, "spring", "--out", out, code=2)
    message = remove("--network", out, "winter", "--out", tmp_path / "b.safetensors", code=2)
    assert "has two domains, autumn, winter, and needs both" in message
