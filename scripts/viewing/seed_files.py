# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr generate` writes: a picture of each seed, one grid of all, or arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ggdr.scripts.viewing.latents import Latent
from ggdr.scripts.viewing.renderer import Renderer
from ggdr.stylegan2.latent.sampling import generate_images
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.pictures.images import make_grid, save_image

Batches = Iterable[tuple[list[Latent], Tensor, Tensor]]  # as `draw_batches` yields them


def draw_batches(renderer: Renderer, latents: Sequence[Latent]) -> Iterator[tuple[list[Latent], Tensor, Tensor]]:
    """Latents batch by batch, with images [n, C, H, W] uint8 and ws [n, num_ws, w_dim] float32, both on the CPU."""
    G, batch_size = renderer.G, renderer.batch_size
    for of_file, group in groupby(latents, key=lambda latent: latent.ws is not None):
        same = list(group)
        if not of_file:
            batches = generate_images(
                G,
                [latent.seed for latent in same],
                device=G.mapping.w_avg.device,
                batch_size=batch_size,
                label=renderer.label,
                truncation_psi=renderer.truncation_psi,
                truncation_cutoff=renderer.truncation_cutoff,
                noise_mode=renderer.noise_mode,
            )
            for i, (_, images_u8, ws) in enumerate(batches):
                yield same[i * batch_size : (i + 1) * batch_size], images_u8, ws
            continue
        for start in range(0, len(same), batch_size):
            batch = same[start : start + batch_size]
            ws = renderer.ws_of(batch)
            images = torch.from_numpy(np.stack(list(renderer.render(ws))))
            yield batch, images.permute(0, 3, 1, 2), ws.cpu()


def save_pictures(batches: Batches, outdir: Path, suffix: str, *, progress: Callable[[int], None]) -> Path:
    """seed0000.SUFFIX and so on, each when it is made; `progress` hears how many. Returns the folder.

    A latent of a file gives its name, with a number where another one has it.
    """
    names: set[str] = set()
    for latents, images_u8, _ in _counted(batches, progress):
        for latent, image_u8 in zip(latents, images_u8, strict=True):
            stem = latent.name if latent.seed is None else f"seed{latent.seed:04d}"
            name, number = stem, 2
            while name in names:
                name, number = f"{stem}-{number}", number + 1
            names.add(name)
            save_image(image_u8, outdir / f"{name}.{suffix}")
    return outdir


def save_grid(
    batches: Batches, outdir: Path, suffix: str, columns: int, rows: int, *, progress: Callable[[int], None]
) -> Path:
    """grid.SUFFIX of columns x rows cells; those without a latent stay empty. Returns the file."""
    images_u8 = torch.cat([images_u8 for _, images_u8, _ in _counted(batches, progress)])
    blank = images_u8.new_zeros([columns * rows - len(images_u8), *images_u8.shape[1:]])
    path = outdir / f"grid.{suffix}"
    save_image(make_grid(torch.cat([images_u8, blank]), columns), path)
    return path


def save_arrays(batches: Batches, outdir: Path, *, with_w: bool, progress: Callable[[int], None]) -> Path:
    """images.npz, uncompressed. Returns the file.

    It holds images uint8 [N, H, W, C], seeds int64 [N] (-1 for latents of files) and, `with_w`, w float32
    [N, num_ws, w_dim].
    """
    all_seeds: list[int] = []
    all_images: list[np.ndarray] = []
    all_ws: list[np.ndarray] = []
    for latents, images_u8, ws in _counted(batches, progress):
        all_seeds += [-1 if latent.seed is None else latent.seed for latent in latents]
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
    """Passes batches on, and tells how many are done."""
    num_done = 0
    for batch in batches:
        yield batch
        num_done += len(batch[0])
        progress(num_done)
