# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Arrays of .npz files of anyone; tests/hostile/test_datasets.py has what commands make of them."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest

from ggdr.torch_utils.untrusted.npz import NpzError, open_npz


def write_npz(path, header: str, data: bytes):
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy)
    return path


@pytest.mark.parametrize("order", "<>")
def test_text_is_of_characters(tmp_path, order):
    header = f"{{'descr': '{order}U2', 'fortran_order': False, 'shape': (1,)}}"
    for last, refused in ((0x10FFFF, False), (0x110000, True), (2**32 - 1, True)):
        path = write_npz(tmp_path / "a.npz", header, struct.pack(f"{order}2I", ord("a"), last))
        with open_npz(path) as file:
            if refused:
                with pytest.raises(NpzError, match="no characters"):
                    file["a"]
            else:
                assert file["a"].tolist() == ["a\U0010ffff"]


@pytest.mark.parametrize(
    "shape", ["(-1, -1)", "(-1,)", "(0, -1)", "(True, 2)", "(2**1,)", f"(0, {2**70})", "1", "()()"]
)
def test_shapes_of_no_array_are_refused(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
    with (
        open_npz(write_npz(tmp_path / "a.npz", header, bytes(4))) as file,
        pytest.raises(NpzError, match=r"npz\[a\]: "),
    ):
        file["a"]


@pytest.mark.parametrize("descr", ["'O'", "'<U0'", "'<M8'", "[('x', '<f4')]", "'(1,)<f4'", "'<f4' * 2"])
def test_types_of_no_numbers_and_no_text_are_refused(tmp_path, descr):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,)}}"
    with (
        open_npz(write_npz(tmp_path / "a.npz", header, bytes(4))) as file,
        pytest.raises(NpzError, match=r"npz\[a\]: "),
    ):
        file["a"]


@pytest.mark.parametrize(
    "header", ["-" * 4000 + "1", "(" * 4000, "[" * 90 + "]" * 90, "9" * 4000, "{'descr': '<f4'}", "{'", "'''"]
)
def test_headers_of_no_array_are_refused(tmp_path, header):
    with open_npz(write_npz(tmp_path / "a.npz", header, bytes(4))) as file, pytest.raises(NpzError, match="damaged"):
        file["a"]


def test_text_comes_back_as_numpy_wrote_it(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array(["", "\u00fc", "\U0001f600"]), none=np.array([], "U1"), one=np.array("x"))
    with open_npz(tmp_path / "a.npz") as file:
        assert file["a"].tolist() == ["", "\u00fc", "\U0001f600"] and len(file["none"]) == 0 and str(file["one"]) == "x"
