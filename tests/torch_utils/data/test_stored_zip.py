# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Zips are written as zipfile would, and read as zipfile would."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.stored_zip import StoredZip

FILES = {
    "00000/img00000000.png": b"some pixels",
    "empty.png": b"",
    "ünïcode.png": b"\0" * 70_000,
    "dataset.json": b"{}",
}


def write_with_zipfile(path: Path, files: dict[str, bytes], start: int = 0) -> bytes:
    with open(path, "wb") as file:
        file.seek(start)
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o644 << 16
                archive.writestr(info, data)
    return tail(path, start)


def write_stored(path: Path, files: dict[str, bytes], start: int = 0) -> bytes:
    with open(path, "wb") as file:
        file.seek(start)
        archive = StoredZip(file)
        for name, data in files.items():
            archive.add(name, data)
        archive.close()
    return tail(path, start)


def tail(path: Path, start: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read()


@pytest.mark.parametrize("count", [0, 1, 65535, 65536])
def test_any_number_of_files_makes_the_bytes_that_zipfile_makes(tmp_path, count):
    files = FILES if count == 1 else {f"{i}": b"x" for i in range(count)}
    assert write_stored(tmp_path / "a.zip", files) == write_with_zipfile(tmp_path / "b.zip", files)


@pytest.mark.parametrize("start", [2**31 - 80, 2**31 - 53, 2**32 - 80])
def test_beyond_two_and_four_gib_too(tmp_path, start):
    files = {"a.png": b"0123456789", "b.png": b"xyz"}  # the file in front of them is a hole
    written = write_stored(tmp_path / "a.zip", files, start)
    assert written == write_with_zipfile(tmp_path / "b.zip", files, start)
    container = Container(tmp_path / "a.zip")
    assert {name: container.read(container.find(name)) for name in files} == files


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("front", [b"", b"#!/bin/sh\nexit\n"])
def test_zips_of_other_writers_are_read(tmp_path, compression, front):
    with open(tmp_path / "a.zip", "wb") as file:
        file.write(front)
        with zipfile.ZipFile(file, "a", compression) as archive:
            for name, data in FILES.items():
                info = zipfile.ZipInfo(name)
                info.compress_type = compression
                info.extra = b"\xfe\xca\x04\x00data"  # in the local header too, at no place that the directory tells
                archive.writestr(info, data)
    container = Container(tmp_path / "a.zip")
    assert {name: container.read(container.find(name)) for name in FILES} == FILES


@pytest.mark.parametrize("where", ["header", "name", "data"])
def test_damage_is_noticed_wherever_it_is(tmp_path, where):
    path = tmp_path / "a.zip"
    write_stored(path, FILES)
    data = bytearray(path.read_bytes())
    data[{"header": 0, "data": data.index(b"some"), "name": 26}[where]] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"img00000000.png: cannot be read, the file is damaged"):
        container = Container(path)
        container.read(container.find("00000/img00000000.png"))
