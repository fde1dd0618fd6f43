# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Snapshots and training states: written whole or not at all, and files that are not what they should be."""

from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch

from ggdr.stylegan2 import load_discriminator, load_generator
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, load_state, save_snapshot, save_state
from tests.stylegan2.test_networks import tiny_generator

SAVE = {
    "snapshot": lambda path, x: save_snapshot(path, {"G": {"w": x}}, {"a": 1}),
    "state": lambda path, x: save_state(path, {"w": x}),
}
LOAD = {"snapshot": lambda path: load_snapshot(path).networks["G"]["w"], "state": lambda path: load_state(path)["w"]}


@pytest.mark.parametrize("kind", SAVE)
def test_round_trip(tmp_path, kind):
    x = torch.randn(3, 4).t()
    SAVE[kind](tmp_path / "f", x)
    assert torch.equal(LOAD[kind](tmp_path / "f"), x)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_at_each_step_of_a_write_leaves_the_last_good_file(tmp_path, monkeypatch, kind, step):
    path = tmp_path / "f"
    SAVE[kind](path, torch.ones(2))

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"ggdr.torch_utils.atomic_write.os.{step}", full_disk)
    with pytest.raises(OSError, match="No space left"):
        SAVE[kind](path, torch.zeros(2))
    assert torch.equal(LOAD[kind](path), torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("kind", SAVE)
def test_truncated_and_foreign_files_are_named(tmp_path, kind):
    path = tmp_path / "f"
    SAVE[kind](path, torch.randn(1000))
    whole = path.read_bytes()
    contents = [whole[: len(whole) // 2], b"", b"\x89PNG\r\n\x1a\n" * 9, pickle.dumps({"a": 1}, protocol=2), whole[:9]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(SnapshotError, match=str(path)):
            LOAD[kind](path)
    with pytest.raises(SnapshotError, match="no such file"):
        LOAD[kind](tmp_path / "absent")


def test_settings_are_read_without_the_tensors(tmp_path):
    path = tmp_path / "f"
    save_snapshot(path, {"G": {"w": torch.ones(1000)}}, {"nimg": 7})
    snapshot = load_snapshot(path, tensors=False)
    assert snapshot.nimg == 7 and snapshot.networks == {}
    for damaged in (path.read_bytes()[:100], path.read_bytes().replace(b"nimg", b"ni\\g")):
        path.write_bytes(damaged)
        with pytest.raises(SnapshotError, match=str(path)):
            load_snapshot(path, tensors=False)


def test_safetensors_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    safetensors.torch.save_file({"w": torch.ones(1)}, path)
    with pytest.raises(SnapshotError, match="not a network snapshot of this project .* `ggdr import-weights`"):
        load_snapshot(path)


@pytest.mark.parametrize("nimg", [None, "7", 7.5, True, -1, 10**400, [7]], ids=lambda nimg: str(nimg)[:9])
def test_a_count_of_images_that_is_none_is_as_good_as_no_count(tmp_path, nimg):
    networks = {"G": {"w": torch.ones(2)}}
    save_snapshot(tmp_path / "f", networks, {"nimg": nimg})
    assert load_snapshot(tmp_path / "f").nimg is None
    save_snapshot(tmp_path / "f", networks, {"nimg": 7})
    assert load_snapshot(tmp_path / "f").nimg == 7


def test_a_state_with_code_in_it_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "boom"), "w")

    torch.save({"format": "ggdr-training-state-1", "x": Bomb()}, tmp_path / "f")
    with pytest.raises(SnapshotError, match="not a readable training state"):
        load_state(tmp_path / "f")
    assert not (tmp_path / "boom").exists()


def test_load_generator_gives_the_averaged_generator(tmp_path):
    G, G_ema = tiny_generator(), tiny_generator()
    config = {"G": G.config.__dict__, "D": {"img_resolution": 16}}
    save_snapshot(tmp_path / "s", {"G": G.state_dict(), "G_ema": G_ema.state_dict()}, config)
    loaded, z = load_generator(tmp_path / "s"), torch.randn(2, 8)
    assert torch.equal(loaded(z, noise_mode="const"), G_ema(z, noise_mode="const"))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(SnapshotError, match="holds G, G_ema, but no D"):
        load_discriminator(tmp_path / "s")


def test_settings_that_do_not_fit_the_weights_are_named(tmp_path):
    G = tiny_generator()
    for config, message in [
        ({}, "settings of G do not describe"),
        ({"G": {"img_resolution": 48}}, "power of two from 8 up, got 48"),
        ({"G": {**G.config.__dict__, "w_dim": 16}}, "weights of G_ema do not fit"),
    ]:
        save_snapshot(tmp_path / "s", {"G_ema": G.state_dict()}, config)
        with pytest.raises(SnapshotError, match=message):
            load_generator(tmp_path / "s")
