# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image collections for the tests of `ggdr dataset`, and how to convert them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.dataset import main
from ggdr.torch_utils.data.loader import ImageDataset

RGB = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def encode(pixels: np.ndarray | Image.Image, kind: str = "png", **kwargs) -> bytes:
    file = io.BytesIO()
    img = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    img.save(file, kind, **kwargs)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def run(*args, expect: int = 0) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == expect, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def convert(tmp_path: Path, source: object, *options: object) -> ImageDataset:
    dest = tmp_path / "out.zip"
    run(source, dest, *options)
    with zipfile.ZipFile(dest) as archive:
        use_labels = json.loads(archive.read("dataset.json"))["labels"] is not None
    return ImageDataset(dest, use_labels=use_labels)


def pixels_of(dataset: ImageDataset) -> np.ndarray:
    """[N, H, W, C]"""
    return dataset.images_u8(range(len(dataset))).transpose(0, 2, 3, 1)


def classes_of(dataset: ImageDataset) -> list[int]:
    return dataset.labels(range(len(dataset))).argmax(1).tolist()


def class_files() -> dict[str, bytes]:
    """Images in sub-folders; by name they come in the order dog/deep/a, dog/b, ant/c: 1, 2, 0."""
    return {"dog/b.png": encode(RGB[2]), "ant/c.png": encode(RGB[0]), "dog/a/a.png": encode(RGB[1])}


def cifar_tar(path: Path, **members: bytes) -> Path:
    """CIFAR-10's archive of the given members."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
