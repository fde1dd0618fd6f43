# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Tensors in pickles that nobody trusts: sizes that lie, code in their own files, and values that multiply."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct

import pytest
import torch

from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError
from tests.pickle_cases import MARK, Calls, parse


def storage_file(tensor: torch.Tensor) -> bytes:
    """A storage as it pickles itself."""
    (payload,) = (arg for o, arg, _ in pickletools.genops(pickle.dumps(tensor, 4)) if o.name == "BINBYTES")
    return payload


def tensor_pickle(*, count: int = 6, offset=0, size=(2, 3), stride=(3, 1), payload: bytes | None = None) -> bytes:
    """A pickled tensor of 6 numbers, with other figures written into it."""
    if payload is None:
        payload = storage_file(torch.arange(6.0)).replace(b"K\x06N", b"J" + struct.pack("<i", count) + b"N")
        at = payload.rindex(struct.pack("<q", 6))
        payload = payload[:at] + struct.pack("<q", count) + payload[at + 8 :]
    numbers = pickle.dumps((offset, size, stride), 2)[2:-1]
    unpacked = pickle.loads(b"\x80\x02" + numbers + b".")
    parts = b"".join(pickle.dumps(part, 2)[2:-1].replace(b"q\x00", b"") for part in unpacked)
    storage = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(payload)) + payload + b"tR"
    return b"\x80\x03ctorch._utils\n_rebuild_tensor_v2\n(" + storage + parts + b"\x89ccollections\nOrderedDict\n)RtR."


def test_a_tensor_written_by_hand_is_read():
    assert torch.equal(parse(tensor_pickle()), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "figures",
    [
        {"count": 2**31 - 1},
        {"count": 7},
        {"count": 5},
        {"count": -1},
        {"size": (2, 4)},
        {"size": (3, 3)},
        {"offset": 1},
        {"offset": -1},
        {"stride": (4, 1)},
        {"stride": (-3, 1)},
        {"size": (2**40,), "stride": (0,)},
        {"size": (2**20, 2**20), "stride": (0, 0)},
        {"size": (7,), "stride": (0,)},
        {"size": (2**62, 2**62), "stride": (0, 0)},
        {"size": (0, 2**62), "stride": (1, 1)},
        {"size": (2,), "stride": (1, 1)},
        {"size": (1.5, 2), "stride": (1, 1)},
        {"size": (True, 2), "stride": (1, 1)},
        {"size": (1,) * 1000, "stride": (1,) * 1000},
        {"payload": b""},
        {"payload": b"PK\3\4" + bytes(100)},
        {"payload": pickle.dumps(Calls(os.mkdir, MARK))},
    ],
)
def test_sizes_that_lie_are_refused(tmp_path, monkeypatch, figures):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InertPickleError):
        parse(tensor_pickle(**figures))
    assert not os.listdir(tmp_path)


def test_code_in_a_tensors_own_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for zipped in (False, True):
        buffer = io.BytesIO()
        torch.save([Calls(os.mkdir, MARK)], buffer, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InertPickleError, match="mkdir"):
            parse(tensor_pickle(payload=buffer.getvalue()))
    assert not os.listdir(tmp_path)


def test_tensors_of_one_storage_share_its_memory():
    payload = storage_file(torch.zeros(100_000))
    storage = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(payload)) + payload + b"tRq\x000"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(h\x00K\x01J\x9f\x86\x01\x00\x85K\x01\x85\x89NtR"
    data = b"\x80\x03" + storage + b"](%se."
    tensors = parse(data % (view * 50))
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1 and len(tensors[7]) == 99_999


# Each is made of a long value, and of instructions to make something of it once more.
REPEATED = {
    "a storage": (storage_file(torch.zeros(100_000)), b"ctorch.storage\n_load_from_bytes\nh\x00\x85R"),
    "bytes from text": ("x" * 100_000, b"c_codecs\nencode\nh\x00Vlatin1\n\x86R"),
    "a set": (list(range(10_000)), b"cbuiltins\nset\nh\x00\x85R"),
    "an OrderedDict": ([(i, i) for i in range(10_000)], b"ccollections\nOrderedDict\nh\x00\x85R"),
    "a record of many arguments": ((None,) * 10_000, b"cnumpy\ndtype\nh\x00R"),
}


@pytest.mark.parametrize("name", REPEATED)
def test_little_in_the_file_does_not_become_much(name):
    value, again = REPEATED[name]
    # Without the frame, the memo and the end.
    start = pickletools.optimize(pickle.dumps(value, 3))[:-1] + b"q\x000"
    assert len(parse(start + b"](" + again + b"e.")) == 1
    with pytest.raises(InertPickleError, match="more than the file holds"):
        parse(start + b"](" + again * 50 + b"e.")
