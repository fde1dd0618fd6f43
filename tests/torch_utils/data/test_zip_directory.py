# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Directories of zips are read as zipfile reads them, in little memory, and stay with the main process."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ggdr.torch_utils.data import container as containers
from ggdr.torch_utils.data.container import Container, digest
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.file_table import PLACE, FileTable, Names
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.loader import ImageLoader
from ggdr.torch_utils.data.zip_directory import read_directory
from tests.torch_utils.data.conftest import IMAGES, our_files, png, write

FILES = {"b/ü.png": b"one", "a.png": b"two" * 500, "b/": b"", "猫.txt": b"", "B.png": b"three"}


def zip_of(path: Path, compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
        archive.comment = comment
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"PK\5\6 in a comment"])
def test_files_are_those_that_zipfile_finds(tmp_path, compression, comment):
    path = zip_of(tmp_path / "a.zip", compression, comment)
    with open(path, "rb") as file:
        found = read_directory(file)
    with zipfile.ZipFile(zip_of(tmp_path / "plain.zip", compression)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    assert list(found.names) == sorted(infos)
    for file in found:
        info = infos[file.name]
        assert (file.offset, file.packed, file.size) == (info.header_offset, info.compress_size, info.file_size)
        assert (file.crc, file.method, file.flags) == (info.CRC, info.compress_type, info.flag_bits)


def test_names_in_the_old_code_page_and_with_backslashes_are_read(tmp_path):
    data = zip_of(tmp_path / "a.zip").read_bytes()
    data = data.replace("b/ü.png".encode(), b"b\\\x81\x20.png").replace(
        b"PK\1\2\x14\x03\x14\x00\x00\x08", b"PK\1\2\x14\x03\x14\x00\x00\x00"
    )
    (tmp_path / "a.zip").write_bytes(data)
    assert "b/ü .png" in Container(tmp_path / "a.zip").image_files().names


def test_bytes_that_are_no_utf8_survive_in_names():
    raw = [b"caf\xe9.png", b"a.png", "猫.png".encode()]
    table = FileTable(Names(raw))
    assert [name.encode("utf-8", "surrogateescape") for name in table.names] == sorted(raw)
    assert table.find("caf\udce9.png").name == "caf\udce9.png" and table.find("b.png") is None


@pytest.mark.parametrize("damage", ["cut", "entry", "size", "zip64"])
def test_damaged_directories_are_refused(tmp_path, damage):
    data = bytearray(zip_of(tmp_path / "a.zip").read_bytes())
    first = data.index(b"PK\1\2")
    if damage == "cut":
        data = data[:first] + data[first + 30 :]
    elif damage == "entry":
        data[first + 46 :] = data[first + 47 :]
    elif damage == "size":
        struct.pack_into("<L", data, len(data) - 10, 2**31)
    else:
        struct.pack_into("<L", data, first + 42, 0xFFFFFFFF)  # an offset that stands in a field that is not there
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: no zip, or a corrupt or truncated one"):
        Container(tmp_path / "a.zip").image_files()


def test_the_digest_is_that_of_names_sizes_and_checksums(tmp_path):
    import hashlib

    container = Container(zip_of(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        infos = [archive.getinfo(name) for name in ("B.png", "a.png", "b/ü.png")]
    expected = hashlib.sha256("".join(f"{i.filename}\0{i.file_size}\0{i.CRC}\n" for i in infos).encode()).hexdigest()
    assert digest(container, container.image_files()) == expected


def test_a_listing_takes_less_than_a_hundred_bytes_a_file():
    num = 10_000
    names = [f"{i // 1000:05d}/img{i:08d}.png".encode() for i in range(num)]
    table = FileTable(Names(names), np.zeros(num, PLACE))
    assert len(pickle.dumps(table)) < 100 * num and table[num - 1].name == names[-1].decode()


def test_workers_are_sent_files_and_no_listing(tmp_path, monkeypatch):
    """What goes to a worker does not grow with the set, and a process without a listing can read with it."""
    sizes = []
    for num in (10, 1000):
        path = write(tmp_path / f"{num}.zip", {f"{i:04d}.png": png(IMAGES[i % 10]) for i in range(num)})
        dataset = ImageDataset(path, cache_mb=0)
        sent = pickle.dumps((dataset.decoder, dataset.files_at(np.arange(4))))
        sizes.append(len(sent))
    assert abs(sizes[1] - sizes[0]) < 16
    monkeypatch.setattr(containers, "read_directory", None)
    decoder, files = pickle.loads(sent)
    assert (decoder(files) == IMAGES[:4].transpose(0, 3, 1, 2)).all()


def test_a_worker_that_is_a_process_reads_by_offsets(tmp_path):
    dataset = ImageDataset(write(tmp_path / "a.zip", our_files()), cache_mb=0)
    batches = iter(ImageLoader(dataset, 5, num_workers=1))
    (images, _), expected = next(batches), iter(ImageLoader(dataset, 5, num_workers=0))
    batches.close()
    assert (images == next(expected)[0]).all()


def test_encrypted_files_are_named_as_such(tmp_path):
    path = write(tmp_path / "a.zip", our_files())
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"img00000000\.png: is encrypted; unpack the zip with its password first"):
        ImageDataset(path)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="reads with a lock anyway")
def test_systems_without_pread_read_the_same(tmp_path, monkeypatch):
    container = Container(zip_of(tmp_path / "a.zip"))
    monkeypatch.delattr(os, "pread")
    assert container.read(container.find("a.png")) == FILES["a.png"]
