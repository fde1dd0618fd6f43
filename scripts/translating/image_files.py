# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Anyone's images, each translated to a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ggdr.scripts.viewing.photographs import image_files
from ggdr.torch_utils.data.convert import to_channels
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.torch_utils.pictures.sheets import as_rgb
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.translator import Translator


class Job(NamedTuple):
    """An image and the file that its translation goes to."""

    where: str
    read: Callable[[], bytes]
    out: Path


def plan_jobs(paths: Sequence[Path], outdir: Path, suffix: str) -> list[Job]:
    """What becomes of the images in files, and in folders and zips with all below them.

    Args:
        suffix: of the files to write, as "png".

    Raises:
        DataError: a folder or zip holds no images; two results would have one name, or one the name of an input.
    """
    listed = [(path, *each) for path in paths for each in image_files([path])]
    inputs = {os.path.realpath(path / name if path.is_dir() else path) for path, name, _, _ in listed}
    jobs: dict[Path, Job] = {}
    for path, name, where, read in listed:
        below = path.name if name == str(path) else name
        out = Path(os.path.normpath((outdir / below).with_suffix(f".{suffix}")))
        if not out.is_relative_to(os.path.normpath(outdir)):
            raise DataError(f"{where}: its name leads out of the folder")
        if out in jobs:
            raise DataError(
                f"{where}: its translation would be {printable(out)}, as that of {jobs[out].where}; rename one, or "
                "translate them to two folders"
            )
        if os.path.realpath(out) in inputs:
            raise DataError(f"{where}: its translation would replace {printable(out)}, an input; take another folder")
        jobs[out] = Job(where, read, out)
    return list(jobs.values())


def translate_image(translator: Translator, img: Image.Image, where: str, *, seed: int, alpha: bool) -> np.ndarray:
    """The translation of an image, of its size.

    The network sees transparent pixels over white, and grey in as many channels as it takes.

    Args:
        where: its name, for errors.
        seed:  of dropout.
        alpha: whether the result has the transparency of the image; else it has none.

    Returns:
        [H, W, 1, 3 or 4] uint8.

    Raises:
        DataError: the image has pixels whose range nobody can know.
    """
    pixels = np.asarray(to_channels(img, translator.channels(*translator.domains[:2])[0], where))
    tensor = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).permute(2, 0, 1)[None]
    out = to_u8(translator(from_u8(tensor), seed=seed))[0].permute(1, 2, 0).numpy()
    if not alpha or not (img.mode in ("RGBA", "LA", "PA") or "transparency" in img.info):
        return out
    return np.concatenate([as_rgb(out), np.asarray(img.convert("RGBA"))[:, :, 3:]], axis=2)


def run_job(job: Job, translator: Translator, *, seed: int) -> np.ndarray:
    """The translation of a job's image; raises DataError where it cannot be read."""
    return translate_image(
        translator, load_image(job.read(), job.where), job.where, seed=seed, alpha=job.out.suffix != ".jpg"
    )
