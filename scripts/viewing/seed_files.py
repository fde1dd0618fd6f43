# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr generate` writes: a picture of each seed, one grid of all, or arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.pictures.images import make_grid, save_image

Batches = Iterable[tuple[list[int], Tensor, Tensor]]  # as `generate_images` yields them


def save_pictures(batches: Batches, outdir: Path, suffix: str, *, progress: Callable[[int], None]) -> Path:
    """seed0000.SUFFIX and so on, each when it is made; `progress` hears how many. Returns the folder."""
    for seeds, images_u8, _ in _counted(batches, progress):
        for seed, image_u8 in zip(seeds, images_u8, strict=True):
            save_image(image_u8, outdir / f"seed{seed:04d}.{suffix}")
    return outdir


def save_grid(
    batches: Batches, outdir: Path, suffix: str, columns: int, rows: int, *, progress: Callable[[int], None]
) -> Path:
    """grid.SUFFIX of columns x rows cells; those without a seed stay empty. Returns the file."""
    images_u8 = torch.cat([images_u8 for _, images_u8, _ in _counted(batches, progress)])
    blank = images_u8.new_zeros([columns * rows - len(images_u8), *images_u8.shape[1:]])
    path = outdir / f"grid.{suffix}"
    save_image(make_grid(torch.cat([images_u8, blank]), columns), path)
    return path


def save_arrays(batches: Batches, outdir: Path, *, with_w: bool, progress: Callable[[int], None]) -> Path:
    """images.npz, uncompressed. Returns the file.

    It holds images uint8 [N, H, W, C], seeds int64 [N] and, `with_w`, w float32 [N, num_ws, w_dim].
    """
    all_seeds: list[int] = []
    all_images: list[np.ndarray] = []
    all_ws: list[np.ndarray] = []
    for seeds, images_u8, ws in _counted(batches, progress):
        all_seeds += seeds
        all_images.append(images_u8.permute(0, 2, 3, 1).numpy())
        all_ws += [ws.numpy()] if with_w else []
    arrays = {"images": np.concatenate(all_images), "seeds": np.array(all_seeds, np.int64)}
    if with_w:
        arrays["w"] = np.concatenate(all_ws)
    path = outdir / "images.npz"
    with atomic_write(path) as file:
        np.savez(file, **arrays)
    return path


def _counted(batches: Batches, progress: Callable[[int], None]) -> Batches:
    """Passes batches on, and tells how many seeds are done."""
    num_done = 0
    for batch in batches:
        yield batch
        num_done += len(batch[0])
        progress(num_done)
