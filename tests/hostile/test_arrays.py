# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Archives and arrays made to do harm: refused, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ggdr.metrics.image_sets import ArrayImages, is_statistics, load_statistics
from ggdr.torch_utils.data.archives import open_source
from ggdr.torch_utils.data.image_files import DataError
from tests.dataset_files import cifar_tar
from tests.hostile_files import npy, npz, tree


def batch(shape: tuple = (1, 3072), data: bytes = bytes(3072), labels: object = (0,), dtype: str = "u1") -> bytes:
    """A batch whose array says of itself what it likes."""

    class Array:
        def __reduce__(self) -> tuple:
            about = (1, shape, np.dtype(dtype), False, data)
            return (*np.zeros(0).__reduce__()[:1], (np.ndarray, (0,), b"b"), about)

    return pickle.dumps({b"data": Array(), b"labels": list(labels) if isinstance(labels, tuple) else labels}, 2)


@pytest.mark.parametrize(
    "data",
    [
        batch(shape=(2**40, 3072)),
        batch(shape=(2, 3072)),
        batch(shape=(-1, 3072)),
        batch(shape=(3072, 1)),
        batch(dtype="O"),
        batch(dtype="f8"),
        batch(labels=5),
        batch(labels=(-1,)),
        batch(labels=(10**30,)),
        batch(labels=("x",)),
        batch(labels=()),
        pickle.dumps([1], 2),
        pickle.dumps({b"data": bytearray(10)}, 5),
        b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x85R.",  # ndarray((2**40,))
        b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
        b"]" * 200_000,
        b"\x80\x02Nr\xff\xff\xff\xff",
        b"",
    ],
    ids=range(18),
)
def test_hostile_pickles_in_the_cifar_archive_are_refused(tmp_path, data):
    with pytest.raises(DataError, match="data_batch_1"):
        open_source(str(cifar_tar(tmp_path / "cifar.tar.gz", data_batch_1=data)))
    sound = open_source(str(cifar_tar(tmp_path / "cifar.tar.gz", data_batch_1=batch())))
    assert sound.count == 1


def test_links_and_devices_in_the_cifar_archive_are_left_alone(tmp_path):
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("../../data_batch_1")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    before = tree(tmp_path)
    with pytest.raises(DataError, match="holds no data_batch_N"):
        open_source(str(tmp_path / "cifar.tar.gz"))
    assert tree(tmp_path) == before


class Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_arrays_of_objects_are_refused_and_not_unpickled(tmp_path):
    np.savez(tmp_path / "s.npz", mu=np.array([Marker(tmp_path / "ran")], object), sigma=np.eye(1))
    np.savez(tmp_path / "i.npz", images=np.array([Marker(tmp_path / "ran")], object))
    assert is_statistics(tmp_path / "s.npz")
    with pytest.raises(DataError, match="mu"):
        load_statistics(tmp_path / "s.npz")
    with pytest.raises(DataError, match="images"):
        ArrayImages(tmp_path / "i.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "mu",
    [
        npy(2),
        npy(2**40),
        npy(2**70),
        npy(2**32, 2**32),
        npy(1, dtype="|O"),
        npy(1, dtype="<U2"),
        npy(1, dtype="<M8"),
        npy(1, dtype="<c8"),
        npy(1, dtype="|S0", data=b""),
        npy(1, data=struct.pack("<d", float("nan"))),
        npy(1, 1),
        npy(1).replace(b"(1,)", b"__import__('os')"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
        b"",
    ],
    ids=range(14),
)
def test_arrays_that_lie_are_refused(tmp_path, mu):
    (tmp_path / "s.npz").write_bytes(npz({"mu.npy": mu, "sigma.npy": npy(1, 1)}))
    with pytest.raises(DataError, match=r"s\.npz"):
        load_statistics(tmp_path / "s.npz")
    (tmp_path / "s.npz").write_bytes(npz({"mu.npy": npy(1), "sigma.npy": npy(1, 1)}))
    assert load_statistics(tmp_path / "s.npz")[0].tolist() == [0]


def test_arrays_that_inflate_to_much_more_than_their_file_are_refused(tmp_path):
    num = 2**17
    array = npy(num, 32, 32, 3, dtype="|u1", data=bytes(num * 3072))
    bomb = npz({"images.npy": array}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**20
    (tmp_path / "i.npz").write_bytes(bomb)
    with pytest.raises(DataError, match="bytes say that they hold"):
        ArrayImages(tmp_path / "i.npz")


def test_what_numpy_writes_is_read_as_numpy_reads_it(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "i.npz", images=np.asfortranarray(images), labels=np.arange(3))
        found = ArrayImages(tmp_path / "i.npz")
        assert (found.images == images).all() and found.labels.tolist() == [0, 1, 2]
