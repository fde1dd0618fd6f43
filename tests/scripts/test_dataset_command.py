# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr dataset`: every kind of source, every conversion, and failures that leave nothing behind."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ggdr.torch_utils.data.archives import read_digits
from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.image_files import load_image
from ggdr.torch_utils.data.loader import ImageDataset
from tests.conftest import python
from tests.dataset_files import (
    RGB,
    cifar_tar,
    class_files,
    classes_of,
    convert,
    encode,
    pixels_of,
    run,
    write,
    write_zip,
)

# Sources.


@pytest.mark.parametrize("kind", ["folder", "zip", "zip with one folder around all"])
def test_folder_names_become_labels_in_folders_and_zips(tmp_path, kind):
    if kind == "folder":
        source = write(tmp_path / "in", class_files())
    else:
        prefix = "" if kind == "zip" else "top/"
        source = write_zip(tmp_path / "in.zip", {prefix + name: data for name, data in class_files().items()})
    dataset = convert(tmp_path, source)
    assert (pixels_of(dataset) == RGB[:3]).all()
    assert dataset.classes == ["ant", "dog"] and classes_of(dataset) == [0, 1, 1]


def test_images_without_folders_have_no_labels(tmp_path):
    dataset = convert(tmp_path, write(tmp_path / "in", {"a.png": encode(RGB[0]), "b.png": encode(RGB[1])}))
    assert not dataset.has_labels and (pixels_of(dataset) == RGB[:2]).all()


@pytest.mark.parametrize("labels", [[5, 0, 2], [[0.5, -1.0], [2.0, 0.0], [0.0, 3.0]]])
def test_labels_of_an_existing_dataset_json_are_kept(tmp_path, labels):
    entries = [["dog/a/a.png", labels[1]], ["ant/c.png", labels[0]], ["dog/b.png", labels[2]]]
    source = write(tmp_path / "in", {**class_files(), "dataset.json": json.dumps({"labels": entries}).encode()})
    run(source, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        meta = json.loads(archive.read("dataset.json"))
    assert meta == {"labels": [[f"00000/img{i:08d}.png", label] for i, label in enumerate(labels)]}


def test_our_own_format_converts_to_itself(tmp_path):
    run(write(tmp_path / "in", class_files()), tmp_path / "a.zip")
    run(tmp_path / "a.zip", tmp_path / "b.zip")
    run(tmp_path / "b.zip", tmp_path / "c")
    run(tmp_path / "c", tmp_path / "d.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "d.zip").read_bytes()


def test_no_labels_leaves_them_out(tmp_path):
    assert not convert(tmp_path, write(tmp_path / "in", class_files()), "--no-labels").has_labels


def cifar_members(images: np.ndarray, labels: list[int], protocol: int = 2) -> dict[str, bytes]:
    """Two batches, a test batch that must be ignored, and the class names."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    half = len(images) // 2

    def batch(part: slice) -> bytes:
        return pickle.dumps({b"data": flat[part], b"labels": labels[part], b"batch_label": b"x"}, protocol)

    return {
        "data_batch_2": batch(slice(half, None)),
        "data_batch_1": batch(slice(half)),
        "test_batch": batch(slice(1)),
        "batches.meta": pickle.dumps({b"label_names": [b"airplane", b"bird", b"cat"]}, protocol),
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar_archive_gives_its_training_images_with_labels_and_names(tmp_path, protocol):
    images = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    members = cifar_members(images, [2, 0, 1, 1, 0, 2], protocol)
    dataset = convert(tmp_path, cifar_tar(tmp_path / "cifar-10-python.tar.gz", **members))
    assert (pixels_of(dataset) == images).all()
    assert classes_of(dataset) == [2, 0, 1, 1, 0, 2] and dataset.classes == ["airplane", "bird", "cat"]


def test_cifar_archive_written_by_python_2_is_read(tmp_path):
    # What Python 2 writes: byte strings as opcode U, numpy under its old name.
    data = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00" + bytes(range(256)) * 12 + b"tbU\x06labels]K\x03au."
    )
    dataset = convert(tmp_path, cifar_tar(tmp_path / "cifar-10-python.tar.gz", data_batch_1=data))
    assert (pixels_of(dataset)[0, 0, :, 0] == np.arange(32)).all() and classes_of(dataset) == [3]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("created-by-pickle",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar_archive_that_would_run_code_is_refused_by_name(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    source = cifar_tar(tmp_path / "cifar.tar.gz", data_batch_1=pickle.dumps({b"data": Evil()}, protocol))
    output = run(source, tmp_path / "out.zip", expect=2)
    assert "data_batch_1" in output and "refused" in output and (protocol == 0 or ".mkdir" in output)
    assert not Path("created-by-pickle").exists() and not (tmp_path / "out.zip").exists()


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_mnist_images_get_a_border_and_the_labels_beside_them(tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    source = tmp_path / "train-images-idx3-ubyte.gz"
    source.write_bytes(idx(images))
    assert not convert(tmp_path, source, "--channels", 1).has_labels
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.array([3, 1, 4, 1, 5], dtype=np.uint8)))
    dataset = convert(tmp_path, source, "--channels", 1, "--overwrite")
    assert (pixels_of(dataset)[:, 2:-2, 2:-2, 0] == images).all() and pixels_of(dataset)[:, :2].max() == 0
    assert classes_of(dataset) == [3, 1, 4, 1, 5]


def test_lsun_lmdb_is_read_in_the_order_of_its_keys(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    env = lmdb.open(str(tmp_path / "church_lmdb"), map_size=2**20)
    with env.begin(write=True) as txn:
        for i in (2, 0, 1):
            txn.put(f"key{i}".encode(), encode(RGB[i], "webp", lossless=True))
    env.close()
    dataset = convert(tmp_path, tmp_path / "church_lmdb")
    assert (pixels_of(dataset) == RGB[:3]).all() and not dataset.has_labels
    data = (tmp_path / "church_lmdb" / "data.mdb").read_bytes()
    (tmp_path / "church_lmdb" / "data.mdb").write_bytes(data[:-4096])
    assert "truncated" in run(tmp_path / "church_lmdb", tmp_path / "b.zip", expect=2)


def test_digits_are_enlarged_to_32_pixels_with_labels(tmp_path):
    sklearn = pytest.importorskip("sklearn.datasets")
    dataset = convert(tmp_path, "digits", "--max-images", 50)
    assert (dataset.num_images, dataset.resolution, dataset.num_channels, dataset.c_dim) == (50, 32, 3, 10)
    assert (read_digits().count, dataset.classes) == (1797, [str(i) for i in range(10)])
    plain = convert(tmp_path, "digits", "--resolution", 8, "--channels", 1, "--overwrite")
    assert (pixels_of(plain)[..., 0] == np.rint(sklearn.load_digits().images * 255 / 16)).all()


# Options.


def test_zip_holds_stored_pngs_and_dataset_json_only(tmp_path):
    run(write(tmp_path / "in", class_files()), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"00000/img{i:08d}.png" for i in range(3)] + ["dataset.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert Image.open(archive.open("00000/img00000000.png")).format == "PNG"
        expected = [[f"00000/img{i:08d}.png", label] for i, label in enumerate([0, 1, 1])]
        assert json.loads(archive.read("dataset.json")) == {"labels": expected, "classes": ["ant", "dog"]}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compress", [0, 1, 9])
def test_png_encoding_is_lossless(channels, compress):
    pixels = np.random.default_rng(3).integers(0, 256, (24, 40, channels), dtype=np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    assert (np.asarray(load_image(encode_png(pixels, compress), "x")) == pixels).all()


def test_max_images_takes_each_class_by_its_share(tmp_path):
    files = {f"{c}/{i:02d}.png": encode(RGB[0]) for c, n in (("a", 20), ("b", 10), ("c", 10)) for i in range(n)}
    dataset = convert(tmp_path, write(tmp_path / "in", files), "--max-images", 8)
    assert dataset.label_counts.tolist() == [4, 2, 2]


def test_number_of_workers_does_not_change_a_byte(tmp_path):
    images = np.random.default_rng(4).integers(0, 256, (600, 8, 8, 3), dtype=np.uint8)
    source = write(tmp_path / "in", {f"{i:04d}.png": encode(image) for i, image in enumerate(images)})
    for workers in (1, 2):
        run(source, tmp_path / f"{workers}.zip", "--workers", workers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert (pixels_of(ImageDataset(tmp_path / "2.zip")) == images).all()
    (source / "0580.png").write_bytes(b"broken")
    assert "0580.png" in run(source, tmp_path / "3.zip", "--workers", 2, expect=2)
    assert not (tmp_path / "3.zip").exists()


def test_existing_dest_is_refused_and_kept_unless_overwritten(tmp_path):
    source = write(tmp_path / "in", class_files())
    for dest in (tmp_path / "out.zip", tmp_path / "out"):
        run(source, dest)
        before = ImageDataset(dest).fingerprint()
        assert "exists" in run(source, dest, "--max-images", 1, expect=2)
        assert ImageDataset(dest).fingerprint() == before
        run(source, dest, "--max-images", 1, "--overwrite")
        assert len(ImageDataset(dest)) == 1


def test_overwrite_never_deletes_foreign_files(tmp_path):
    source = write(tmp_path / "in", class_files())
    home = write(tmp_path / "home", {"thesis.tex": b"years of work"})
    assert "thesis.tex" in run(source, home, "--overwrite", expect=2)
    assert "SOURCE itself" in run(source, source, "--overwrite", expect=2)
    (tmp_path / "folder.zip").mkdir()
    run(source, tmp_path / "folder.zip", "--overwrite", expect=2)
    assert (home / "thesis.tex").exists() and len(list(source.rglob("*.png"))) == 3


def test_help_ends_with_examples_and_shows_defaults():
    output = run("--help")
    assert output.index("Examples:") < output.index("ggdr dataset photos/")
    assert "[default: none]" in output


# Failures.


def test_a_missing_archive_is_told_where_it_is_published(tmp_path):
    output = run(tmp_path / "cifar-10-python.tar.gz", tmp_path / "out.zip", expect=2)
    assert "cifar-10-python.tar.gz: no such file or folder; download it from https://www.cs.toronto.edu" in output
    assert "ggdr dataset SOURCE DEST" not in output


BAD_SOURCES = {
    "nothing there": ({}, [], "no such file or folder"),
    "no images": ({"readme.txt": b"x"}, [], "no images"),
    "corrupt image": ({"a.png": encode(RGB[0]), "b.png": b"rubbish"}, [], "b.png: cannot be decoded"),
    "truncated png": (
        {"a.png": encode(RGB[0]), "b.png": encode(RGB[1])[:-200]},
        [],
        "b.png: cannot be decoded",
    ),
    "truncated jpeg": ({"a.jpg": encode(RGB[0], "jpeg")[:-200]}, [], "a.jpg: cannot be decoded"),
    "mixed sizes": (
        {"a.png": encode(RGB[0]), "b.png": encode(RGB[1, :8, :8])},
        [],
        "b.png: is 8x8, expected 16x16 like the first image",
    ),
    "not a power of two": ({"a.png": encode(RGB[0, :12, :12])}, [], "a.png: is 12x12, expected"),
    "not square": ({"a.png": encode(RGB[0, :8])}, ["--resolution", "8"], "a.png: is 16x8, expected a square"),
    "bad dataset.json": ({"a.png": encode(RGB[0]), "dataset.json": b"{"}, [], "dataset.json: invalid JSON"),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_bad_input_is_named_and_leaves_nothing_behind(tmp_path, case, kind):
    files, options, expected = BAD_SOURCES[case]
    source = tmp_path / ("in.zip" if kind == "zip" else "in")
    if files:
        write_zip(source, files) if kind == "zip" else write(source, files)
    before = sorted(tmp_path.iterdir())
    output = run(source, tmp_path / "out.zip", *options, expect=2)
    assert expected in output and str(source) in output, output
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "name, data, expected",
    [
        ("a.zip", b"PK\3\4 rubbish", "corrupt or truncated"),
        ("cifar.tar.gz", b"rubbish", "corrupt or truncated tar.gz"),
        ("cifar.tar.gz", gzip.compress(bytes(10240))[:-8], "cifar.tar.gz"),
        ("a-images-idx3-ubyte.gz", idx(np.zeros((2, 8, 8), dtype=np.uint8))[:-5], "truncated gzip"),
        ("a-images-idx3-ubyte", b"\0\0\x08\3" + struct.pack(">3I", 2, 8, 8) + bytes(100), "100 values"),
        ("a-images-idx3-ubyte", idx(np.zeros(5, dtype=np.uint8)), "expected '00000803'"),
        ("a.txt", b"hello", "unknown kind of source"),
    ],
    # Not the bytes: gzip's hold the time, and processes that share the tests compare the names.
    ids=["zip", "tar.gz", "cut tar.gz", "cut idx.gz", "short idx", "idx of labels", "text"],
)
def test_damaged_archives_are_refused(tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    output = run(tmp_path / name, tmp_path / "out.zip", expect=2)
    assert expected in output and name in output
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("options", [["--resolution", "48"], ["--resolution", "4"], ["--channels", "2"]])
def test_bad_options_are_refused(tmp_path, options):
    source = write(tmp_path / "in", class_files())
    assert options[1] in run(source, tmp_path / "out.zip", *options, expect=2)
    output = run(source, tmp_path / "o.zip", "--transform", "center-crop-wide", expect=2)
    assert "Invalid value for '--transform': center-crop-wide needs --resolution" in output


def test_dest_below_a_file_cannot_be_written(tmp_path):
    source = write(tmp_path / "in", class_files())
    (tmp_path / "file").write_text("")
    assert "cannot write to" in run(source, tmp_path / "file" / "out.zip", expect=2)


@pytest.mark.parametrize("dest", ["out.zip", "out"])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_conversion_leaves_dest_as_it_was(tmp_path, dest, stop):
    source = write(tmp_path / "in", class_files())
    run(source, tmp_path / dest)
    before = ImageDataset(tmp_path / dest).fingerprint()
    for i in range(500):  # minutes of work
        os.link(source / "ant" / "c.png", source / f"{i}.png")
    slow = ("--overwrite", "--resolution", "1024", "--small", "upscale", "--compress", "9", "--workers", "1")
    process = python("-m", "ggdr", "dataset", source, tmp_path / dest, *slow)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.partial")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.glob(".*.partial"))
    process.send_signal(stop)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0 and "Traceback" not in output
    assert ImageDataset(tmp_path / dest).fingerprint() == before
    if stop != signal.SIGKILL:
        assert not list(tmp_path.glob(".*"))


def test_dest_inside_source_or_named_like_another_kind_of_file_is_refused(tmp_path):
    source = write(tmp_path / "in", class_files())
    output = run(source, source / "out", expect=2)
    assert "Invalid value for 'DEST'" in output and "lies inside SOURCE" in output
    assert "expected a name ending in .zip" in run(source, tmp_path / "out.png", expect=2)
    assert not (source / "out").exists() and not (tmp_path / "out.png").exists()
