# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A tiny dataset in our format, as a zip and as a folder."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
CLASSES = [i % 3 for i in range(10)]


def png(pixels: np.ndarray, **kwargs) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", **kwargs)
    return file.getvalue()


def name_of(i: int) -> str:
    return f"00000/img{i:08d}.png"


def our_files(images=IMAGES, labels=CLASSES, **meta) -> dict[str, bytes]:
    """Files of our format; labels may be None."""
    entries = None if labels is None else [[name_of(i), label] for i, label in enumerate(labels)]
    files = {name_of(i): png(image) for i, image in enumerate(images)}
    return {**files, "dataset.json": json.dumps({"labels": entries, **meta}).encode()}


def write(path: Path, files: dict[str, bytes]) -> Path:
    """A zip if the path says so, else a folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


@pytest.fixture(params=["set.zip", "set"])
def path(request, tmp_path) -> Path:
    return write(tmp_path / request.param, our_files(classes=["ant", "bee", "cat"]))
