# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pickles that would take all memory or all time, and damaged ones: refused, and nothing else."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
import torch

from ggdr.stylegan2.weights.common import ForeignNetworkError
from ggdr.stylegan2.weights.nvidia import read_published
from ggdr.torch_utils.untrusted.pickle_reader import MAX_INSTRUCTIONS, InertPickleError
from tests.fuzzing import mutations, run_bounded
from tests.pickle_cases import VALUES, parse
from tests.published_files import augment_pipe, pickled, small_networks, write_pickle

BOMBS = {
    "a memo of 2^32 entries": b"\x80\x02]r\xff\xff\xff\xff.",
    "bytes of an exabyte": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc.",
    "text of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"abc.",
    "bytes of 2^64-1": b"\x80\x04\x8e" + b"\xff" * 8 + b"abc.",
    "bytes of 4 GB": b"\x80\x03B\xff\xff\xff\xffabc.",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "a number of 255 bytes": b"\x80\x02\x8a\xff" + b"\x01" * 255 + b".",
    "a number of -1 bytes": b"\x80\x02\x8b\xff\xff\xff\xff\x01.",
    "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"K\x01" * 3,
    "a number of a million bytes": b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6 + b".",
    "a number of 10^7 digits": b"L" + b"9" * 10**7 + b"L\n.",
    "an integer of 10^7 digits": b"I" + b"9" * 10**7 + b"\n.",
    "a float of 10^7 digits": b"F" + b"9" * 10**7 + b"\n.",
    "an entry of the memo of 10^7 digits": b"Ng" + b"9" * 10**7 + b"\n.",
    "a name of 10^7 letters": b"c" + b"a" * 10**7 + b"\nb\n.",
    "10^5 keys of one hash": b"}("
    + b"".join(b"\x8a\x0a" + (i * (2**61 - 1) + 1).to_bytes(10, "little") + b"N" for i in range(10**5))
    + b"u.",
    "10^6 lists in each other": b"(" * 10**6 + b"l" * 10**6 + b".",
    "10^6 empty lists": b"](" + b"]" * 10**6 + b"e.",
    "10^6 tuples in each other": b")" + b"\x85" * 10**6 + b".",
    "10^6 marks": b"(" * 10**6 + b".",
    "a thousand lists of a thousand": b"](" + (b"](" + b"N" * 1000 + b"e") * 1000 + b"e.",
}


def test_bombs_are_refused_within_little_memory(tmp_path):
    for i, content in enumerate(BOMBS.values()):
        (tmp_path / str(i)).write_bytes(content)
    size = max(map(len, BOMBS.values())) >> 20
    lines = run_bounded(READ_ALL, tmp_path, len(BOMBS), megabytes=100 + 2 * size).splitlines()
    read = [name for name, line in zip(BOMBS, lines, strict=True) if line != "refused"]
    assert read == ["a memo of 2^32 entries"]  # which is one entry here


READ_ALL = """
    import sys
    from ggdr.stylegan2.weights.nvidia_pickle import load_published
    from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError
    # bounded
    for i in range(int(sys.argv[2])):
        try:
            print("read", load_published(f"{sys.argv[1]}/{i}"))
        except InertPickleError:
            print("refused")
"""


@pytest.mark.parametrize("line", [b"I9", b"L9", b"F9", b"Np1", b"Ng1", b"ca", b"cos\na", b"P1"])
def test_lines_of_numbers_and_names_have_a_length(line):
    with pytest.raises(InertPickleError, match="too long"):
        parse(line + line[-1:] * 250 + b"\n.")


def test_values_that_double_take_no_memory_and_may_be_thrown_away(tmp_path):
    for i, step in enumerate((b"2\x86", b"22\x87")):
        (tmp_path / str(i)).write_bytes(b"\x80\x02N" + step * 60_000 + b"0}.")
    assert run_bounded(READ_ALL, tmp_path, 2, megabytes=100).split() == ["read", "{}"] * 2


def test_the_number_of_instructions_has_a_limit_far_above_real_files(tmp_path):
    G, D = small_networks()
    path = write_pickle(tmp_path / "x.pkl", {"G": pickled(G), "D": pickled(D), "G_ema": pickled(G)})
    num = sum(1 for _ in pickletools.genops(path.read_bytes()))
    assert num * 10 < MAX_INSTRUCTIONS


# Damage.


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    G, D = small_networks(res=8)
    content = {"G": pickled(G), "D": pickled(D), "G_ema": pickled(G), "augment_pipe": augment_pipe(0.5)}
    return write_pickle(tmp_path_factory.mktemp("pickles") / "x.pkl", content).read_bytes()


def test_a_truncated_file_is_refused_wherever_it_ends(whole):
    places = [position for _, _, position in pickletools.genops(whole)]
    for end in {*places[:: len(places) // 80], *range(0, 200, 9), *range(len(whole) - 30, len(whole))}:
        with pytest.raises(InertPickleError, match="ends in the middle"):
            parse(whole[:end])


def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pkl"
    counts = {"read": 0, "refused": 0}
    for data in mutations(whole, count=300, seed=1):
        path.write_bytes(data)
        try:
            read_published(path)
            counts["read"] += 1
        except ForeignNetworkError:
            counts["refused"] += 1
    assert min(counts.values()) > 20
    assert os.listdir(tmp_path) == ["x.pkl"]


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_damaged_values_are_read_or_refused_and_nothing_else(protocol):
    value = {**VALUES, "tensor": torch.randn(3, 4), "size": torch.Size([1]), "array": np.zeros(2)}
    counts = {"read": 0, "refused": 0}
    for data in mutations(pickle.dumps(value, protocol), count=700, seed=protocol):
        try:
            parse(data)
            counts["read"] += 1
        except InertPickleError:
            counts["refused"] += 1
    assert min(counts.values()) > 20
