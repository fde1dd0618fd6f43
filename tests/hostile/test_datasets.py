# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Datasets made to do harm: refused, in little memory, and nothing written but DEST."""

from __future__ import annotations

import gzip
import json
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from ggdr.metrics.image_sets import FileImages
from ggdr.torch_utils.data import image_files
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import MAX_FILE, DataError
from ggdr.torch_utils.data.labels import MAX_CLASSES
from tests.dataset_files import RGB, encode, run, write, write_zip
from tests.fuzzing import run_bounded
from tests.hostile_files import npy, npz, tar_header, tree

PNG = encode(RGB[0])
ESCAPE = "\x1b[2J\nname"


def read_all(path: Path) -> None:
    """Reads a dataset as training does."""
    dataset = ImageDataset(path)
    dataset.images_u8(range(len(dataset)))


# Names.


@pytest.mark.parametrize(
    "name",
    ["../../evil.png", "/tmp/evil.png", "C:\\evil.png", "..\\..\\evil.png", "a/../../../evil.png", "evil.png\0.txt"],
)
@pytest.mark.parametrize("dest", ["out.zip", "out"])
def test_names_in_a_zip_lead_nowhere(tmp_path, name, dest):
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    source = write_zip(home / "in.zip", {name: PNG, "ok.png": PNG})
    before, outside = tree(tmp_path), os.path.exists("/tmp/evil.png")
    run(source, home / dest)
    new = {path for path in tree(tmp_path) - before if not path.startswith(f"a/b/c/{dest}")}
    assert not new and os.path.exists("/tmp/evil.png") == outside
    assert set(ImageDataset(home / dest).files.names) <= {"00000/img00000000.png", "00000/img00000001.png"}


def test_links_in_a_zip_are_files_of_no_pixels(tmp_path):
    info = zipfile.ZipInfo("a.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr(info, str(write(tmp_path, {"secret.png": PNG}) / "secret.png"))
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        read_all(tmp_path / "d.zip")


def test_names_reach_the_terminal_as_plain_text(tmp_path):
    labels = json.dumps({"labels": [["a.png", 0], [ESCAPE, 0]]}).encode()
    for files in ({f"{ESCAPE}.png": b"rubbish"}, {"a.png": PNG, "dataset.json": labels}):
        source = write_zip(tmp_path / "in.zip", files)
        output = run(source, tmp_path / "out.zip", expect=2)
        assert "\x1b" not in output and ("\\x1b" in output)


# Sizes.


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def deflated(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def claim_size(path: Path, size: int) -> Path:
    """Changes the size of the first file in a zip's directory, and of what it takes there if that is the same."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    stored = data[at + 20 : at + 24] == data[at + 24 : at + 28]
    data[at + 24 : at + 28] = struct.pack("<L", size)
    if stored:
        data[at + 20 : at + 24] = struct.pack("<L", size)
    path.write_bytes(data)
    return path


BOUNDED = """
    import sys
    from pathlib import Path
    from ggdr.torch_utils.data.dataset import ImageDataset
    from ggdr.torch_utils.data.image_files import DataError
    from ggdr.torch_utils.data.archives import open_source
    from ggdr.metrics.image_sets import ArrayImages, load_statistics
    from PIL import Image
    Image.init()
    # bounded
    for path in sorted(Path(sys.argv[1]).iterdir()):
        try:
            if path.suffix == ".npz":
                load_statistics(path) if path.name.startswith("s") else ArrayImages(path)
            elif path.suffix == ".gz":
                open_source(str(path))
            else:
                dataset = ImageDataset(path)
                dataset.images_u8(range(len(dataset)))
            print("read", path.name)
        except DataError as error:
            print("refused", error)
"""


def test_bombs_are_refused_in_little_memory(tmp_path):
    zeros = bytes(2 * MAX_FILE)
    write_zip(tmp_path / "a.zip", {"a.png": png_of_size(100_000, 100_000)})
    write_zip(tmp_path / "b.zip", {"a.png": PNG, "b.png": png_of_size(16384, 8192)})
    deflated(tmp_path / "c.zip", **{"a.png": zeros})
    deflated(tmp_path / "d.zip", **{"a.png": PNG, "dataset.json": zeros[: 2**27]})
    claim_size(write_zip(tmp_path / "e.zip", {"a.png": PNG}), 2**32 - 2)
    claim_size(deflated(tmp_path / "f.zip", **{"a.png": PNG}), 2**32 - 2)
    write(tmp_path, {"g.gz": gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**20, 2**20))})
    write(tmp_path, {"cifar.tar.gz": gzip.compress(tar_header("data_batch_1", 2**40) + bytes(2048))})
    write(tmp_path, {"pax.tar.gz": gzip.compress(tar_header("x", 2**40, tarfile.XHDTYPE) + bytes(2**20))})
    write(tmp_path, {"s1.npz": npz({"mu.npy": npy(2**40), "sigma.npy": npy(2**40)})})
    write(tmp_path, {"i1.npz": npz({"images.npy": npy(2**36, 4, 4, 1)})})
    num = len(list(tmp_path.iterdir()))
    del zeros
    output = run_bounded(BOUNDED, tmp_path, megabytes=500, seconds=120)
    assert output.count("refused /") == num and "MemoryError" not in output, output


def test_images_are_not_decoded_before_their_size_is_known_to_fit(tmp_path, monkeypatch):
    """A zip's other images could each be as large as Pillow allows."""
    from PIL import PngImagePlugin

    decoded = []
    load = PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    path = write_zip(
        tmp_path / "d.zip", {f"{i:03d}.png": PNG for i in range(600)} | {"301.png": png_of_size(8192, 8192)}
    )
    dataset = ImageDataset(path)
    index = dataset.files.names.index("301.png")
    with pytest.raises(DataError, match="301.png: is 8192x8192"):
        dataset.images_u8([index])
    assert (8192, 8192) not in decoded
    dataset.images_u8([0])
    assert decoded


def test_large_images_of_metrics_are_not_decoded_all_at_once(tmp_path, monkeypatch):
    """A folder of photographs may hold images of any size, but memory has an end."""
    from PIL import PngImagePlugin

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: None)
    monkeypatch.setattr(image_files, "FREE", 2**40)  # the images are not what their sizes say
    huge = png_of_size(8192, 8192)
    path = write_zip(tmp_path / "d.zip", {f"{i:03d}.png": huge for i in range(6)})
    source = FileImages(path)
    assert source.most_batch == 1
    monkeypatch.setattr(source.decoder.__class__, "_rgb", lambda self, img, where: RGB[0])
    with pytest.raises(DataError, match=r"004.png: 5 images up to this one have .* give a --batch below 6"):
        next(source.batches([np.arange(6)]))


def test_postscript_under_another_name_starts_no_program(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(eps)
    assert "cannot be decoded" in run(tmp_path / "d", tmp_path / "out.zip", expect=2)
    assert not (tmp_path / "ran").exists()


# Zips.


def test_encrypted_overlapping_or_cut_zips_are_refused(tmp_path):
    whole = write_zip(tmp_path / "d.zip", {"a.png": PNG, "b.png": PNG}).read_bytes()
    at = whole.index(b"PK\1\2")
    encrypted = bytearray(whole)
    encrypted[at + 8] |= 1
    encrypted[6] |= 1
    zip64 = whole + struct.pack("<4sQHHLL4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**60, 2**60, 2**60, 2**60)
    zip64 += struct.pack("<4sLQL", b"PK\6\7", 0, len(whole), 1)
    zip64 += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    for damaged in (encrypted, zip64, whole[: len(whole) // 2], whole[:-30], b"PK\3\4", b""):
        (tmp_path / "d.zip").write_bytes(damaged)
        with pytest.raises(DataError, match="d.zip"):
            read_all(tmp_path / "d.zip")


def test_other_compression_than_deflate_is_refused(tmp_path):
    """Python inflates the others in pieces of any size."""
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "d.zip", "w", method) as archive:
            archive.writestr("a.png", PNG)
        with pytest.raises(DataError, match="compressed by another method than deflate"):
            read_all(tmp_path / "d.zip")


def test_a_name_that_a_zip_holds_twice_is_one_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive, pytest.warns(UserWarning):
        for i in range(3):
            archive.writestr("a.png", encode(RGB[i]))
    dataset = ImageDataset(tmp_path / "d.zip")
    assert len(dataset) == 1 and (dataset.images_u8([0])[0].transpose(1, 2, 0) == RGB[2]).all()


# Folders.


def test_pipes_and_devices_in_a_folder_are_refused(tmp_path):
    write(tmp_path / "d", {"a.png": PNG})
    os.mkfifo(tmp_path / "d" / "b.png")
    for name in ("b.png", "c.png"):
        with pytest.raises(DataError, match=rf"{name}: expected a file"):
            read_all(tmp_path / "d")
        (tmp_path / "d" / name).unlink()
        (tmp_path / "d" / "c.png").symlink_to("/dev/zero")


def test_links_in_a_folder_are_followed(tmp_path):
    write(tmp_path / "real", {"a.png": PNG})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    assert len(ImageDataset(tmp_path / "d")) == 1


# dataset.json.


def labelled(path: Path, meta: bytes | object) -> Path:
    data = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    return write_zip(path, {"a.png": PNG, "b.png": PNG, "dataset.json": data})


@pytest.mark.parametrize(
    "meta",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"labels": ' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"labels": [["a.png", ' + b"9" * 10_000 + b'], ["b.png", 0]]}',
        b"\xff\xfe",
        b'{"labels": [["a.png", NaN], ["b.png", 0]]}',
        [],
        {"labels": 1},
        {"labels": {"a.png": 0, "b.png": 0}},
        {"labels": [["a.png"], ["b.png", 0]]},
        {"labels": [[0, 0], ["b.png", 0]]},
        {"labels": [["a.png", 0], ["a.png", 0]]},
        {"labels": [["a.png", 0], ["../a.png", 0]]},
        {"labels": [["a.png", 0]]},
        {"labels": [["a.png", -1], ["b.png", 0]]},
        {"labels": [["a.png", 2**40], ["b.png", 0]]},
        {"labels": [["a.png", 10**400], ["b.png", 0]]},
        {"labels": [["a.png", 0.5], ["b.png", 0]]},
        {"labels": [["a.png", True], ["b.png", 0]]},
        {"labels": [["a.png", "0"], ["b.png", 0]]},
        {"labels": [["a.png", None], ["b.png", 0]]},
        {"labels": [["a.png", []], ["b.png", []]]},
        {"labels": [["a.png", [1, 2]], ["b.png", [1]]]},
        {"labels": [["a.png", [1, 1e39]], ["b.png", [1, 1]]]},
        {"labels": [["a.png", [1, 10**400]], ["b.png", [1, 1]]]},
        {"labels": [["a.png", [1, [1]]], ["b.png", [1, 1]]]},
        {"labels": [["a.png", 0], ["b.png", 1]], "classes": "ab"},
        {"labels": [["a.png", 0], ["b.png", 1]], "classes": [0, 1]},
        {"labels": [["a.png", 0], ["b.png", 1]], "classes": ["x"] * (MAX_CLASSES + 1)},
    ],
    ids=lambda meta: str(meta)[:40],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, meta):
    with pytest.raises(DataError, match=r"dataset\.json") as error:
        ImageDataset(labelled(tmp_path / "d.zip", meta), use_labels=True)
    assert len(str(error.value)) < 500
    sound = ImageDataset(labelled(tmp_path / "d.zip", {"labels": [["a.png", 1], ["b.png", 0]]}), use_labels=True)
    assert sound.c_dim == 2


def test_dataset_json_has_room_for_its_images_only(tmp_path):
    entries = [["a.png", 0], ["b.png", 0]] + [[f"{i}.png", 0] for i in range(10**5)]
    with pytest.raises(DataError, match="expected at most"):
        ImageDataset(labelled(tmp_path / "d.zip", {"labels": entries}))


def test_a_container_names_what_is_gone(tmp_path):
    path = write(tmp_path / "d", {"a.png": PNG})
    container = Container(path)
    file = container.find("a.png")
    (path / "a.png").unlink()
    assert container.find("a.png") is None
    with pytest.raises(DataError, match="a.png: No such file"):
        container.read(file)
