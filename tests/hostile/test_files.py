# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Snapshots and training states made to do harm: refused by our own errors, in little memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from dataclasses import asdict
from typing import Any

import pytest
import safetensors.torch
import torch

from ggdr.stylegan2 import load_generator
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.torch_utils.checkpoint import (
    SNAPSHOT_FORMAT,
    SnapshotError,
    load_snapshot,
    load_state,
    save_snapshot,
    save_state,
)
from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError, Vocabulary, read_pickle
from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file
from tests.fuzzing import run_bounded
from tests.tiny import save_tiny, tiny_generator

ESCAPE = "\x1b[2J"

# Snapshots.


def safetensors_file(header: dict[str, Any] | bytes, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def network_header(config: str = "{}", **tensors: dict[str, Any]) -> dict[str, Any]:
    sound = {"G_ema.w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    return {"__metadata__": {"format": SNAPSHOT_FORMAT, "config": config}, **(tensors or sound)}


def tensor(dtype: str = "F32", shape: list[int] | None = None, start: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4] if shape is None else shape, "data_offsets": [start, end]}


LYING = {
    "length beyond the file": safetensors_file(network_header(), length=2**40),
    "length of 2^64": safetensors_file(network_header(), length=2**64 - 1),
    "offsets beyond the file": safetensors_file(network_header(**{"G.w": tensor(shape=[2**38], end=2**40)})),
    "offsets backwards": safetensors_file(network_header(**{"G.w": tensor(start=16, end=0)})),
    "tensors over each other": safetensors_file(network_header(**{"G.a": tensor(), "G.b": tensor()})),
    "shape beyond its bytes": safetensors_file(network_header(**{"G.w": tensor(shape=[2**40])})),
    "shape whose product overflows": safetensors_file(network_header(**{"G.w": tensor(shape=[2**32, 2**32, 4])})),
    "negative shape": safetensors_file(network_header(**{"G.w": tensor(shape=[-4])})),
    "unknown type": safetensors_file(network_header(**{"G.w": tensor("F33")})),
    "no JSON": safetensors_file(b"{" * 100),
    "deep JSON": safetensors_file(b"[" * 1_000_000),
    "duplicate keys": safetensors_file(
        json.dumps(network_header()).encode()[:-1] + b', "G_ema.w": {"dtype":"F32","shape":[8],"data_offsets":[0,32]}}'
    ),
    "key without a dot": safetensors_file(network_header(w=tensor())),
    "key of a network of no name": safetensors_file(network_header(**{ESCAPE + ".w": tensor()})),
    "key of nothing": safetensors_file(network_header(**{"G.": tensor()})),
    "no networks": safetensors_file({"__metadata__": {"format": SNAPSHOT_FORMAT, "config": "{}"}}, b""),
    "settings of no JSON": safetensors_file(network_header("{")),
    "settings of a list": safetensors_file(network_header("[1]")),
    "settings nested deeply": safetensors_file(network_header('{"G":' * 100_000 + "0" + "}" * 100_000)),
    "settings nested a little too deeply": safetensors_file(network_header('{"G":' * 70 + "0" + "}" * 70)),
    "a number of 10,000 digits": safetensors_file(network_header('{"G": ' + "9" * 10_000 + "}")),
}


@pytest.mark.parametrize("attack", LYING)
def test_lying_snapshots_are_refused(tmp_path, attack):
    path = tmp_path / "s.safetensors"
    path.write_bytes(LYING[attack])
    with pytest.raises(SnapshotError, match=str(path)):
        load_snapshot(path)
    path.write_bytes(safetensors_file(network_header()))
    assert load_snapshot(path).networks["G_ema"]["w"].shape == (4,)  # what the attacks were made from is sound


ABSURD = [
    {"img_resolution": 2**40},
    {"img_resolution": 2**14},
    {"img_resolution": 16.0},
    {"img_resolution": True},
    {"img_resolution": "16"},
    {"img_channels": 3.0},
    {"img_channels": [3]},
    {"c_dim": -1},
    {"c_dim": 10**9},
    {"channel_base": 10**12},
    {"channel_max": 10**12},
    {"channel_max": 0},
    {"num_half_res": 10**9},
    {"num_half_res": None},
    {"conv_clamp": "256"},
    {"conv_clamp": float("nan")},
    {"conv_clamp": -1},
    {"architecture": ["skip"]},
    {"architecture": None},
    {"z_dim": 0},
    {"z_dim": "512"},
    {"z_dim": True},
    {"z_dim": 10**10},
    {"w_dim": 2.5},
    {"mapping_num_layers": 10**9},
    {"mapping_num_layers": -1},
    {"mapping_lr_multiplier": float("inf")},
    {"mapping_lr_multiplier": 0},
    {"unknown": 1},
    {ESCAPE: 1},
]


@pytest.mark.parametrize("setting", ABSURD, ids=str)
def test_settings_of_no_network_are_refused_and_named(tmp_path, setting):
    G = tiny_generator()
    save_snapshot(tmp_path / "s", {"G_ema": G.state_dict()}, {"G": {**asdict(G.config), **setting}})
    with pytest.raises(SnapshotError, match="settings of G do not describe") as error:
        load_generator(tmp_path / "s")
    assert next(iter(setting)).isidentifier() is False or next(iter(setting)) in str(error.value)
    assert "\x1b" not in str(error.value)


def test_settings_of_the_discriminator_are_checked_too():
    for setting in ({"mbstd_group_size": 0}, {"mbstd_group_size": 2.0}, {"mbstd_num_channels": 3}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            DiscriminatorConfig(16, channel_base=64, **setting)
    assert DiscriminatorConfig(16, channel_base=64, mbstd_group_size=None, mbstd_num_channels=0)


def test_a_small_file_that_describes_a_huge_network_takes_no_memory(tmp_path):
    """8192x8192 pixels, widths of 65536: hundreds of gigabytes, if the network were built."""
    huge = GeneratorConfig(8192, c_dim=2**16, z_dim=2**16, w_dim=2**16, channel_base=2**20, channel_max=2**16)
    save_snapshot(tmp_path / "s", {"G_ema": {"w": torch.zeros(4)}}, {"G": asdict(huge)})
    body = """
        import sys
        from ggdr.stylegan2 import load_generator
        from ggdr.torch_utils.checkpoint import SnapshotError
        # bounded
        try:
            load_generator(sys.argv[1])
        except SnapshotError as error:
            print(error)
    """
    assert "do not fit their settings" in run_bounded(body, tmp_path / "s", megabytes=200)


def test_weights_of_other_types_become_float32_or_are_refused(tmp_path):
    G = tiny_generator()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        weights = {name: t.to(dtype) for name, t in G.state_dict().items()}
        save_snapshot(tmp_path / "s", {"G_ema": weights}, {"G": asdict(G.config)})
        state = load_generator(tmp_path / "s").state_dict()
        assert all(t.dtype == torch.float32 and torch.equal(t, weights[name].float()) for name, t in state.items())
    whole = {**G.state_dict(), "mapping.w_avg": torch.zeros(5, dtype=torch.int64)}
    save_snapshot(tmp_path / "s", {"G_ema": whole}, {"G": asdict(G.config)})
    with pytest.raises(SnapshotError, match=r"of another type: mapping.w_avg torch.int64 instead of torch.float32"):
        load_generator(tmp_path / "s")


def test_a_loaded_network_does_not_change_with_its_file(tmp_path):
    path = save_tiny(tmp_path / "s.safetensors", tiny_generator())
    G, whole = load_generator(path), path.read_bytes()
    before = {name: t.clone() for name, t in G.state_dict().items()}
    with open(path, "r+b") as file:  # the same file, which a mapping would show
        file.seek(len(whole) // 2)
        file.write(b"\xff" * (len(whole) // 2))
    assert all(torch.equal(t, before[name]) for name, t in G.state_dict().items())


def test_safetensors_of_others_are_told_from_ours(tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(1)}, metadata={"format": "\x1b[2J" * 100}))
    with pytest.raises(SnapshotError, match="not a network snapshot") as error:
        load_snapshot(path)
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 600


# Training states, and other files of torch.save.


def torch_file(value: Any, *, is_zip: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


def zip_around(data: bytes, compression: int = zipfile.ZIP_STORED, **storages: bytes) -> bytes:
    """A file of torch.save's new format with this pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return file.getvalue()


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    "function",
    [
        lambda marker: Calls(os.system, f"touch {marker}"),
        lambda marker: Calls(eval, f"open({str(marker)!r}, 'w')"),
        lambda marker: Calls(getattr, Calls(open, str(marker), "w"), "close"),
        lambda marker: Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, str(marker)))),
        lambda marker: Calls(torch.save, 1, str(marker)),
        lambda marker: Calls(bytearray, 2**40),
        lambda marker: Calls(torch.UntypedStorage, 2**40),
        lambda marker: Calls(torch.empty, 2**40),
    ],
    ids=["system", "eval", "getattr", "nested pickle", "torch.save", "bytearray", "storage", "empty"],
)
def test_states_that_call_something_are_refused_and_nothing_is_called(tmp_path, function, is_zip):
    path, marker = tmp_path / "training-state.pt", tmp_path / "marker"
    path.write_bytes(torch_file({"format": "ggdr-training-state-1", "x": function(marker)}, is_zip=is_zip))
    marker.unlink(missing_ok=True)
    with pytest.raises(SnapshotError, match="asks for .* to be loaded, .*; nothing of it was run"):
        load_state(path)
    assert not marker.exists()


def strided(offset: int, size: tuple, stride: tuple) -> bytes:
    """A pickle of one tensor in a storage of four numbers."""

    class Tensor:
        def __reduce__(self) -> tuple:
            return torch._utils._rebuild_tensor_v2, (Persistent(), offset, size, stride, False, None)

    class Persistent:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(obj, Persistent) else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(Tensor())
    return zip_around(file.getvalue(), s0=bytes(16))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2**40,), (0,)),
        (0, (2**20, 2**20, 2**20), (0, 0, 0)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1,) * 100, (1,) * 100),
        (0, (2.0,), (1,)),
        (0, (2**70,), (1,)),
        (0, (0, 2**47, 2**47), (1, 1, 1)),
    ],
    ids=str,
)
def test_tensors_that_reach_beyond_their_storage_are_refused(offset, size, stride):
    with pytest.raises(TensorFileError, match="a tensor"):
        read_tensor_file(strided(offset, size, stride))
    assert read_tensor_file(strided(1, (3,), (1,))).tolist() == [0, 0, 0]


def test_storages_that_lie_about_their_size_are_refused():
    state = {"w": torch.arange(4.0)}
    legacy, new = torch_file(state, is_zip=False), torch_file(state)
    four, more = b"K\x04", b"\x8a\x06" + (2**44).to_bytes(6, "little")
    assert legacy.count(b"cpu") == 1
    at = legacy.index(four, legacy.index(b"cpu"))
    for number in (more, b"K\x05", b"K\x03", b"J\xff\xff\xff\xff"):
        with pytest.raises(TensorFileError, match="storage"):
            read_tensor_file(legacy[:at] + number + legacy[at + 2 :])
    end = len(legacy) - 16 - 8
    with pytest.raises(TensorFileError, match="another size"):
        read_tensor_file(legacy[:end] + struct.pack("<q", 2**60) + legacy[end + 8 :])
    with zipfile.ZipFile(io.BytesIO(new)) as archive:
        data = archive.read("archive/data.pkl")
    at = data.index(four, data.index(b"cpu"))
    for number in (more, b"K\x05", b"K\x03"):
        with pytest.raises(TensorFileError, match="storage"):
            read_tensor_file(zip_around(data[:at] + number + data[at + 2 :], s0=bytes(16)))


def op_lists(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


# Those whose harm is in the tree of values; tests/torch_utils/untrusted/test_pickle_limits.py has the others.
# Instructions: ] list, q N store, h N fetch, a append, ( mark, \x85 tuple of one, } dict, s set item.
BOMBS = {
    "lists 100,000 deep": op_lists(100_000),
    "lists a little too deep": op_lists(70),
    "a tuple of 200,000 deep as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a billion laughs": b"\x80\x02]q\x00" + b"(" + b"N" * 9 + b"e" + b"".join(
        b"]q" + bytes([i]) + b"(" + b"h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e" for i in range(1, 60)
    ) + b".",
    "more instructions than any state": b"\x80\x02" + b"N" * 400_000 + b".",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickle_bombs_are_refused_in_little_memory(tmp_path, bomb):
    path = tmp_path / "training-state.pt"
    path.write_bytes(zip_around(BOMBS[bomb]))
    with pytest.raises(SnapshotError, match="not a readable training state"):
        load_state(path)
    with pytest.raises(InertPickleError):
        read_pickle(BOMBS[bomb], Vocabulary())


def test_all_pickle_bombs_together_stay_below_their_bound(tmp_path):
    for i, data in enumerate(BOMBS.values()):
        (tmp_path / f"{i}.pt").write_bytes(zip_around(data))
    body = """
        import sys
        from pathlib import Path
        from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file
        # bounded
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                read_tensor_file(path)
            except TensorFileError:
                print("refused")
    """
    assert run_bounded(body, tmp_path, megabytes=300).count("refused") == len(BOMBS)


def test_zips_with_compressed_entries_entries_over_each_other_or_lies_are_refused():
    state = {"w": torch.zeros(1 << 20)}
    with zipfile.ZipFile(io.BytesIO(torch_file(state))) as archive:
        data = archive.read("archive/data.pkl")
    bomb = zip_around(data, zipfile.ZIP_DEFLATED, s0=bytes(4 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(TensorFileError, match="compressed or encrypted"):
        read_tensor_file(bomb)

    sound = bytearray(torch_file({"w": torch.zeros(4)}))
    directory = [i for i in range(len(sound)) if sound[i : i + 4] == b"PK\1\2"]
    for offset, number, message in [
        (20, 2**31, "compressed|beyond|damaged"),  # compressed size
        (24, 2**31, "compressed|beyond|damaged"),  # size
        (42, 0, "over each other|damaged"),  # where the entry begins
        (42, 2**31, "beyond|damaged|over each other"),
    ]:
        lying = bytearray(sound)
        at = directory[2] + offset
        lying[at : at + 4] = struct.pack("<L", number)
        with pytest.raises(TensorFileError, match=message):
            read_tensor_file(bytes(lying))


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path):
    path = tmp_path / "training-state.pt"
    save_state(path, {"w": torch.arange(1000.0)})
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(500.0, 502.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="storage 0 is damaged"):
        load_state(path)


def test_what_torch_save_writes_is_read_as_torch_reads_it():
    shared = torch.arange(12.0)
    state = {
        "views": [shared[2:6], shared.view(3, 4).t()],
        "types": [torch.ones(2, 3, dtype=t) for t in (torch.bfloat16, torch.int64, torch.bool, torch.complex64)],
        "plain": {"a": (1, -2.5, None, True, "ü", 2**60), 3: b"\x00\xff"},
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 5),
        "net": torch.nn.BatchNorm2d(3).state_dict(),
    }
    for is_zip in (True, False):
        data = torch_file(state, is_zip=is_zip)
        ours, theirs = read_tensor_file(data), torch.load(io.BytesIO(data), weights_only=True)
        assert ours["plain"] == theirs["plain"] == state["plain"] and list(ours["net"]) == list(theirs["net"])
        pairs = [(ours[k], theirs[k]) for k in ("scalar", "empty")] + [
            pair for k in ("views", "types") for pair in zip(ours[k], theirs[k], strict=True)
        ]
        pairs += [(ours["net"][k], theirs["net"][k]) for k in ours["net"]]
        for a, b in pairs:
            assert a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
        one, two = ours["views"]
        assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()
        parameter = read_tensor_file(torch_file(torch.nn.Parameter(shared), is_zip=is_zip))
        assert torch.equal(parameter, shared) and not parameter.requires_grad
