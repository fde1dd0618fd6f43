# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images for benchmarks that need none of the user's: drawn, but as large as photographs once encoded."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.writer import new_dataset

NUM_DISTINCT = 64  # pictures drawn for a set of any size
DISTINCT_PIXELS = 2**21  # at most so many pixels in all, but two pictures
NUM_CLASSES = 8  # of label maps


def draw_pictures(res: int, *, seed: int = 0) -> list[np.ndarray]:
    """Some different pictures, each uint8 [res, res, 3]."""
    rng = np.random.default_rng(seed)
    return [picture(res, rng) for _ in range(min(NUM_DISTINCT, max(DISTINCT_PIXELS // res**2, 2)))]


def picture(res: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [res, res, 3]: noise at every scale from coarse and strong to fine and faint, as in photographs.

    At 32x32 it makes JPEGs about as large as CIFAR-10's, at 1024x1024 PNGs about as large as FFHQ's.
    """
    canvas = np.full((res, res, 3), 128.0, dtype=np.float32)
    side = 2
    while side < res:
        blobs = rng.standard_normal((3, side, side), dtype=np.float32) * (120 / side**0.85)
        for channel, values in enumerate(blobs):
            canvas[..., channel] += Image.fromarray(values).resize((res, res), Image.Resampling.BICUBIC)
        side *= 2
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32)
    return canvas.clip(0, 255).astype(np.uint8)


def encode_foreign(pixels: np.ndarray, kind: str) -> bytes:
    """A "jpeg" or "png" with the settings that Pillow's users have without choosing any."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_images(path: Path, files: Sequence[bytes], *, num_images: int, suffix: str = "png") -> Path:
    """A zip of `num_images` image files, `files` over and over, without labels; returns its path."""
    with new_dataset(path) as add:
        for i in range(num_images):
            add(f"{i // 1000:05d}/img{i:08d}.{suffix}", files[i % len(files)])
        add("dataset.json", b'{"labels": null}')
    return path


def write_pictures(path: Path, pictures: Sequence[np.ndarray], *, with_label_maps: bool) -> ImageDataset:
    """A dataset of pictures uint8 [res, res, 3], each once; label maps are of NUM_CLASSES bands of brightness."""
    files = [encode_png(pixels) for pixels in pictures]
    if not with_label_maps:
        return ImageDataset(write_images(path, files, num_images=len(files)))
    with new_dataset(path) as add:
        for i, (pixels, data) in enumerate(zip(pictures, files, strict=True)):
            add(f"images/{i:08d}.png", data)
            bands = pixels.mean(axis=2) // (256 // NUM_CLASSES)
            add(f"labels/{i:08d}.png", encode_png(bands.astype(np.uint8)))
        add("classes.json", json.dumps({"names": [f"band {i}" for i in range(NUM_CLASSES)]}).encode())
        add("dataset.json", b'{"labels": null}')
    return ImageDataset(path, use_label_maps=True)
