# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Thousands of damaged files: each is read, or refused by our own errors. GGDR_FUZZ=10 makes ten times as many, others.

A failure names the seed: `next(islice(mutations(whole, count=N, seed=S), i, None))` is the file again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ggdr.metrics.detector import Detector
from ggdr.metrics.extract import Extracted, FeatureRequest
from ggdr.metrics.feature_cache import FeatureCache
from ggdr.metrics.image_sets import ArrayImages, is_statistics, load_statistics
from ggdr.metrics.stats import FeatureStats
from ggdr.scripts.curves import main as curves
from ggdr.scripts.reports.page_data import report_data
from ggdr.scripts.reports.page_html import json_for_html
from ggdr.scripts.reports.read_run import read_run
from ggdr.stylegan2 import load_discriminator, load_generator
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, load_state, save_state
from ggdr.torch_utils.data.archives import open_source
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.convert import Conversion
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file
from tests.dataset_files import RGB, encode
from tests.fuzzing import mutations
from tests.report_runs import PANELS, PICTURES
from tests.tiny import save_tiny, tiny_generator

TIMES = int(os.environ.get("GGDR_FUZZ", "1"))
SEED = 0 if TIMES == 1 else 1000 * TIMES


def fuzz(
    path: Path,
    whole: bytes,
    read: Callable[[Path], object],
    errors: type[Exception],
    *,
    count: int,
    seed: int,
    least: float = 0.05,
) -> None:
    """Writes `count` damaged copies to `path`, one after the other, and reads each.

    Only `errors` may be raised, and at least the part `least` of the files has to be refused.
    """
    path.write_bytes(whole)
    read(path)  # else nothing would be tested
    refused = 0
    for i, data in enumerate(mutations(whole, count=count * TIMES, seed=seed + SEED)):
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except errors as error:
            refused += 1
            text = str(error)
            assert len(text) < 3000 and "\x1b" not in text, f"seed {seed + SEED}, file {i}: {text!r}"
        except Exception as error:
            path.with_name("found").write_bytes(data)
            raise AssertionError(
                f"seed {seed + SEED}, file {i} ({len(data)} bytes): {type(error).__name__}: {error}"
            ) from error
    assert refused >= least * count * TIMES  # damages that hit nothing would prove nothing


def as_bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, data in files.items():
                archive.writestr(name, data)

    return as_bytes(write)


def test_snapshots(tmp_path):
    path = save_tiny(tmp_path / "s.safetensors", tiny_generator(), guide_res=8)

    def read(path: Path) -> None:
        snapshot = load_snapshot(path)
        assert isinstance(snapshot.config, dict)
        load_generator(path)
        load_discriminator(path)

    whole = path.read_bytes()
    fuzz(path, whole, read, SnapshotError, count=500, seed=1)


def test_snapshot_settings(tmp_path):
    """The JSON of the header alone, with its length mended, so that the damages reach the settings."""
    path = save_tiny(tmp_path / "s.safetensors", tiny_generator())
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    config = header["__metadata__"]["config"].encode()

    def read(source: Path) -> None:
        header["__metadata__"]["config"] = source.read_bytes().decode("latin1")
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        load_generator(path)

    fuzz(tmp_path / "config.json", config, read, SnapshotError, count=400, seed=2)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_tensor_files(tmp_path, is_zip):
    state = {
        "a": torch.randn(3, 4).t(),
        "b": [torch.ones(2, dtype=torch.float64), torch.nn.Parameter(torch.zeros(2))],
        "c": {"d": (1, 2.5, None, True, "text", 2**40), "e": torch.tensor(3), "f": b"\xff"},
        "g": torch.nn.Linear(2, 2).state_dict(),
    }
    whole = as_bytes(lambda file: torch.save(state, file, _use_new_zipfile_serialization=is_zip))
    fuzz(tmp_path / "t.pt", whole, read_tensor_file, TensorFileError, count=1200, seed=3)


def test_tensor_pickles(tmp_path):
    """The pickle inside of a zip alone, with its CRC-32 mended."""
    state = {"a": torch.randn(3, 4).t(), "b": [torch.ones(2), None, 1.5], "c": torch.nn.Linear(2, 2).state_dict()}
    with zipfile.ZipFile(io.BytesIO(as_bytes(lambda file: torch.save(state, file)))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in files if name.endswith("data.pkl"))

    def read(source: Path) -> None:
        read_tensor_file(zipped({**files, name: source.read_bytes()}))

    fuzz(tmp_path / "data.pkl", files[name], read, TensorFileError, count=1000, seed=4)


def test_training_states(tmp_path):
    path = tmp_path / "training-state.pt"
    save_state(path, {"counters": {"nimg": 1}, "task": {"rng": torch.arange(8)}})
    fuzz(path, path.read_bytes(), load_state, SnapshotError, count=300, seed=5)


def read_dataset(path: Path) -> None:
    dataset = ImageDataset(path, use_labels=True)
    dataset.images_u8(range(len(dataset)))
    dataset.labels(range(len(dataset)))
    dataset.fingerprint()


IMAGES = {f"{i}/img{i}.png": encode(RGB[i, :8, :8]) for i in range(3)}
LABELS = json.dumps({"labels": [[name, i] for i, name in enumerate(IMAGES)], "classes": ["a", "b", "c"]}).encode()
VECTORS = json.dumps({"labels": [[name, [0.5, 1e-3]] for name in IMAGES]}).encode()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_dataset_zips(tmp_path, compression):
    whole = zipped({**IMAGES, "dataset.json": LABELS}, compression)
    fuzz(tmp_path / "d.zip", whole, read_dataset, DataError, count=500, seed=6)


@pytest.mark.parametrize("labels", [LABELS, VECTORS], ids=["classes", "vectors"])
def test_dataset_json(tmp_path, labels):
    for name, data in IMAGES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    fuzz(tmp_path / "dataset.json", labels, lambda path: read_dataset(path.parent), DataError, count=400, seed=7)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "ppm", "tiff"])
def test_images(tmp_path, kind):
    (tmp_path / "d").mkdir()
    whole = encode(RGB[0], kind)
    name = f"a.{kind}"

    def read(path: Path) -> None:
        container = Container(path.parent)
        container.header(container.find(name))
        for source, raw in open_source(str(path.parent)).items([0]):
            Conversion(resolution=8)(raw, source)

    fuzz(tmp_path / "d" / name, whole, read, DataError, count=80, seed=8)


def test_archives_of_images(tmp_path):
    """CIFAR-10's, whose members are pickles, and MNIST's."""
    images = np.zeros((2, 3072), np.uint8)

    def write(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in {
                "data_batch_1": {b"data": images, b"labels": [1, 0]},
                "batches.meta": {b"label_names": [b"a", b"b"]},
            }.items():
                data = pickle.dumps(content, 2)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    def read(path: Path) -> None:
        source = open_source(str(path))
        assert len(list(source.items(range(source.count)))) == source.count

    fuzz(tmp_path / "cifar.tar", as_bytes(write), read, DataError, count=400, seed=14)
    idx = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 4, 4) + bytes(32)
    fuzz(tmp_path / "t-images-idx3-ubyte", idx, read, DataError, count=100, seed=15)
    fuzz(tmp_path / "t-images-idx3-ubyte.gz", gzip.compress(idx), read, DataError, count=200, seed=16)


def npz(**arrays: np.ndarray) -> bytes:
    return as_bytes(lambda file: np.savez(file, **arrays))


def test_statistics(tmp_path):
    whole = npz(mu=np.zeros(3), sigma=np.eye(3), num=np.int64(9), about=np.array("{}"))

    def read(path: Path) -> None:
        assert is_statistics(path) in (True, False)
        load_statistics(path)

    fuzz(tmp_path / "s.npz", whole, read, DataError, count=500, seed=9)


def test_arrays_of_images(tmp_path):
    whole = npz(images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.arange(2))

    def read(path: Path) -> None:
        images = ArrayImages(path)
        list(images.batches([np.arange(images.num)]))

    fuzz(tmp_path / "s.npz", whole, read, DataError, count=500, seed=10)


def test_a_damaged_cache_of_features_is_as_good_as_none(tmp_path):
    (tmp_path / "i.npz").write_bytes(npz(images=np.zeros((2, 4, 4, 3), np.uint8)))
    source, detector = ArrayImages(tmp_path / "i.npz"), Detector("offline", "0", "none", lambda images_u8: {})
    cache, stats = FeatureCache(tmp_path / "cache"), FeatureStats(4)
    stats.update(torch.randn(5, 4))
    cache.save(source, detector, Extracted(5, stats, torch.randn(5, 4)))
    (path,) = (tmp_path / "cache").iterdir()

    def read(path: Path) -> None:
        found = cache.load(source, detector, FeatureRequest(keep=5))
        if found is None:
            raise LookupError
        assert found.features.shape[1] == 4 and found.stats.num >= 0

    fuzz(path, path.read_bytes(), read, LookupError, count=300, seed=11)


RUN = {
    "stats.jsonl": "".join(
        json.dumps({"nimg": n, "kimg": n / 1000, "loss/D": 0.5, "loss/G": None, "time/sec_per_kimg": 2.5}) + "\n"
        for n in (1000, 2000, 3000)
    ),
    "metric-fid4k_full.jsonl": json.dumps({"metric": "fid4k_full", "kimg": 1, "results": {"fid4k_full": 9.5}}) + "\n",
    "training_options.json": json.dumps(
        {
            "command": {"outdir": "x", "cfg": "cpu", "batch": 16, "aug": "ada"},
            "argv": ["--outdir", "x"],
            "history": ["a"],
            "device": {"type": "cpu", "processes": 1, "operations": "compiled"},
            "panels": PANELS[:3],
            "pictures": PICTURES,
            "versions": {"torch": "2"},
            "hardware": {"cpu": "c", "cores": 2, "memory_gib": 3.5, "gpus": [{"name": "g", "memory_gib": 8}]},
            "loop": {"total_nimg": 3000},
            "regularizers": {"ggdr": {"guide_res": [8], "weight": 10.0}},
        }
    ),
    "log.txt": "tick 1  kimg 1.0  time 2s  cpumem 1.5G  gpumem 0.0G\n",
    "maps/clusters.json": json.dumps(
        {
            "title": "t",
            "command": "ggdr clusters",
            "note": None,
            "sheets": [{"title": "s", "file": "s.png", "note": "n"}],
            "animations": [{"title": "a", "file": "a.gif"}],
            "numbers": [{"layer": "b8", "nmi": 0.5}],
        }
    ),
}


@pytest.mark.parametrize("name", RUN)
def test_run_folders(tmp_path, name):
    run = tmp_path / "run"
    (run / "maps").mkdir(parents=True)
    for file, text in RUN.items():
        (run / file).write_text(text)
    (run / "maps" / "s.png").write_bytes(encode(RGB[0]))
    (run / "maps" / "a.gif").write_bytes(encode(RGB[0], "gif"))

    def read(path: Path) -> None:
        data, _ = report_data([read_run(run, "run")], tmp_path / "report.html", 4)
        page = json_for_html(data)
        assert "<" not in page
        if any(re.search("damage|not readable|not as|malformed|expected a list", note) for note in data["notes"]):
            raise ValueError("told in the page")

    fuzz(run / name, RUN[name].encode(), read, ValueError, count=200, seed=12, least=0 if name == "log.txt" else 0.05)


def test_curves_of_damaged_runs(tmp_path):
    for file in ("stats.jsonl", "metric-fid4k_full.jsonl"):
        (tmp_path / file).write_text(RUN[file])

    def read(path: Path) -> None:
        result = CliRunner().invoke(curves, [str(tmp_path), "--out", str(tmp_path / "c.png"), "--smooth"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code:
            raise ValueError(result.output)

    fuzz(tmp_path / "stats.jsonl", RUN["stats.jsonl"].encode(), read, ValueError, count=8, seed=13)
