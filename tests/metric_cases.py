# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images and a small detector that the tests of the metrics share."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DETECTOR = "tests.metric_cases:thumbnails"


def thumbnails(device: torch.device):
    """A detector: the mean colours of a 2x2 grid, [N, 12]."""

    def extract(images_u8: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images_u8.double() / 255, 2).flatten(1).float()

    return extract


def wrong_shape(device: torch.device):
    """A detector that forgets to pool."""
    return lambda images_u8: images_u8.float()


def not_finite(device: torch.device):
    """A detector that diverges."""
    return lambda images_u8: images_u8.float().flatten(1).mean(1, keepdim=True).expand(-1, 3) / 0


def noise_images(num: int, *, seed: int = 0, res: int = 16, shift: int = 0, channels: int = 3) -> np.ndarray:
    """uint8 [num, res, res, channels]: noise around a colour of each image's own, `shift` levels brighter."""
    rng = np.random.RandomState(seed)
    colour = rng.randint(60, 180, [num, 1, 1, channels])
    return (colour + rng.randint(-20, 20, [num, res, res, channels]) + shift).clip(0, 255).astype(np.uint8)


def write_images(path: Path, images: np.ndarray, *, suffix: str = ".png", labels: np.ndarray | None = None) -> Path:
    """A zip, or a folder if the name has no suffix, of images uint8 [N, H, W, C] with dataset.json if labelled."""
    files = {}
    for i, image in enumerate(images):
        buffer = BytesIO()
        Image.fromarray(image.squeeze()).save(buffer, "JPEG" if suffix == ".jpg" else suffix[1:].upper(), quality=95)
        files[f"img{i:05d}{suffix}"] = buffer.getvalue()
    if labels is not None:
        table = [[name, int(label)] for name, label in zip(list(files), labels, strict=True)]
        files["dataset.json"] = json.dumps({"labels": table}).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in files.items():
                file.writestr(name, data)
    else:
        path.mkdir(parents=True)
        for name, data in files.items():
            (path / name).write_bytes(data)
    return path


def limited(work, num: int, sizes: list[int]):
    """`work` on at most `num` things, failing at more as on a full GPU; `sizes` gets how many were asked for."""

    def attempt(things, *args):
        sizes.append(len(things))
        if len(things) > num:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return work(things, *args)

    return attempt
