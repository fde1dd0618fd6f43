# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where images come from: files of anyone's, arrays, a generator; and statistics that were stored."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.stats import FeatureStats
from ggdr.torch_utils.data.image_files import Container, DataError, digest
from ggdr.torch_utils.data.labels import LabelTable, read_labels
from ggdr.torch_utils.data.rgb_decoder import RGBDecoder
from ggdr.torch_utils.data.workers import cpu_count, map_in_order
from ggdr.torch_utils.untrusted.npz import Npz, NpzError, open_npz
from ggdr.torch_utils.untrusted.regular_files import open_regular

NUM_WITHOUT_WORKERS = 4000  # fewer images are decoded sooner than worker processes start


class ImageSource(Protocol):
    """Numbered images.

    Attributes:
        num:    how many there are; None: as many as are asked for.
        labels: [num] int64 class of each, or None.
    """

    num: int | None
    labels: np.ndarray | None

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """For each array of image numbers uint8 [n, 3, H, W], on any device."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a result line says of them."""
        ...

    def fingerprint(self) -> str | None:
        """Hash (hex) of the images' content; None: not to be cached."""
        ...


class FileImages:
    """The images of a folder or zip, of any one size and any 8-bit kind, as RGB.

    Args:
        path:    folder or zip.
        mirror:  append the x-flip of each image.
        workers: processes that decode; None: up to 4 where there are many images.

    Raises:
        DataError: there are none, or the first cannot be read.
    """

    def __init__(self, path: str | os.PathLike, *, mirror: bool = False, workers: int | None = None) -> None:
        self.container = Container(path)
        self.names = self.container.image_names()
        self.mirror = mirror
        self.num = len(self.names) * (2 if mirror else 1)
        size, _ = self.container.header(self.names[0])
        self.size = size
        self.decoder = RGBDecoder(self.container, size, self.names[0])
        many = len(self.names) > NUM_WITHOUT_WORKERS
        self.workers = (min(4, max(1, cpu_count() - 1)) if many else 0) if workers is None else workers

    @cached_property
    def label_table(self) -> LabelTable | None:
        return read_labels(self.container, self.names)

    @property
    def labels(self) -> np.ndarray | None:
        table = self.label_table
        if table is None or not table.is_onehot:
            return None
        return np.tile(table.values, 2 if self.mirror else 1)

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        arrays = list(numbers)
        names = [[self.names[i % len(self.names)] for i in array] for array in arrays]
        decoded = map_in_order(self.decoder, names, self.workers) if self.workers else map(self.decoder, names)
        try:
            for array, images in zip(arrays, decoded, strict=True):
                flips = array >= len(self.names)
                images[flips] = images[flips, :, :, ::-1]
                yield torch.from_numpy(images)
        finally:
            if self.workers:
                decoded.close()

    def describe(self) -> dict[str, Any]:
        return {"path": str(self.container.path), "size": list(self.size), "flips": self.mirror}

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{digest(self.container, self.names)} mirror={self.mirror}".encode()).hexdigest()

    def fingerprint(self) -> str:
        return self._fingerprint


class ArrayImages:
    """The images of an .npz file: uint8 [N, H, W, 3] (or 1 channel) under `images`, or as its only array.

    Raises:
        DataError: it holds no such array.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        with _arrays(self.path) as file:
            names = [name for name in ("images", "arr_0") if name in file] or file.names[:1]
            images = file[names[0]] if names else np.zeros(0)
            labels = file["labels"] if "labels" in file else None
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
            raise DataError(
                f"{self.path}: expected images uint8 [N, H, W, 3] or [N, H, W, 1], "
                f"got {images.dtype} {list(images.shape)}"
            )
        self.images = images
        self.num = len(images)
        is_classes = labels is not None and labels.shape == (len(images),) and labels.dtype.kind in "iu"
        self.labels = labels if is_classes else None

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        for array in numbers:
            yield take_rgb(torch.from_numpy(self.images[array]).permute(0, 3, 1, 2))

    def describe(self) -> dict[str, Any]:
        height, width = self.images.shape[1:3]
        return {"path": str(self.path), "size": [width, height], "flips": False}

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(str(self.images.shape).encode() + self.images.tobytes()).hexdigest()

    def fingerprint(self) -> str:
        return self._fingerprint


class GeneratedImages:
    """A generator's images, by number; as many as are asked for.

    Args:
        draw:   image numbers to images uint8 [n, C, H, W].
        labels: class of each number, or None.
        about:  what a result line says of the generator.
    """

    num = None

    def __init__(
        self,
        draw: Callable[[Sequence[int]], Tensor],
        *,
        labels: np.ndarray | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.draw, self.labels, self.about = draw, labels, about or {}

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        for array in numbers:
            yield take_rgb(self.draw([int(i) for i in array]))

    def describe(self) -> dict[str, Any]:
        return dict(self.about)

    def fingerprint(self) -> None:
        return None


def take_rgb(images_u8: Tensor) -> Tensor:
    """uint8 [N, 1, 3 or 4, H, W] as [N, 3, H, W]: grey is repeated, transparency left out."""
    return images_u8.expand(-1, 3, -1, -1) if images_u8.shape[1] == 1 else images_u8[:, :3]


def open_images(
    path: str | os.PathLike, *, mirror: bool = False, workers: int | None = None
) -> FileImages | ArrayImages:
    """Images of a folder, a zip, or an .npz file.

    Raises:
        DataError: there are none.
    """
    if Path(path).suffix == ".npz":
        if mirror:
            raise DataError(f"{path}: flips of an .npz file are not made; give a folder or zip")
        return ArrayImages(path)
    return FileImages(path, mirror=mirror, workers=workers)


def is_statistics(path: str | os.PathLike) -> bool:
    """Whether an .npz file holds mean and covariance, not images."""
    if Path(path).suffix != ".npz" or not _is_zip(path):
        return False
    with _arrays(path) as file:
        return "mu" in file and "sigma" in file


def _is_zip(path: str | os.PathLike) -> bool:
    try:
        with open_regular(path) as file:
            return zipfile.is_zipfile(file)
    except OSError:
        return False


def save_statistics(path: str | os.PathLike, stats: FeatureStats, about: str) -> None:
    """Mean, covariance (divided by N - 1) and N as an .npz file, which other tools read too."""
    from ggdr.torch_utils.atomic_write import atomic_write

    gaussian = stats.gaussian(ddof=1)
    with atomic_write(path) as file:
        np.savez(
            file,
            mu=gaussian.mean.cpu().numpy(),
            sigma=gaussian.cov.cpu().numpy(),
            num=np.int64(gaussian.num),
            about=np.array(about),
        )


def load_statistics(path: str | os.PathLike) -> tuple[Tensor, Tensor, int | None, str]:
    """Mean [D], covariance [D, D] (both float64), N (None if the file does not say), and what it says it is.

    Raises:
        DataError: shapes do not fit, or numbers are not finite.
    """
    path = Path(path)
    with _arrays(path) as file:
        mu, sigma = file["mu"], file["sigma"]
        counts = file["num"] if "num" in file else None
        about = str(file["about"]) if "about" in file else ""
    num = None if counts is None else int(counts) if counts.shape == () and counts.dtype.kind in "iu" else -1
    if num is not None and not 0 < num < 2**53:
        raise DataError(f"{path}: expected a number of images in num")
    if mu.dtype.kind not in "iuf" or sigma.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected mu and sigma of real numbers, got {mu.dtype} and {sigma.dtype}")
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise DataError(f"{path}: expected mu [D] and sigma [D, D], got {list(mu.shape)} and {list(sigma.shape)}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise DataError(f"{path}: mu or sigma holds numbers that are not finite")
    return torch.from_numpy(mu), torch.from_numpy(sigma), num, about


@contextmanager
def _arrays(path: str | os.PathLike) -> Iterator[Npz]:
    """The arrays of an .npz file; DataError where it is damaged."""
    try:
        with open_npz(path) as file:
            yield file
    except NpzError as error:
        raise DataError(str(error)) from error
