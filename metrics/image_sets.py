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

from ggdr.metrics.detector import Images
from ggdr.metrics.stats import FeatureStats
from ggdr.torch_utils.data.container import Container, digest, opened
from ggdr.torch_utils.data.file_table import Names, evenly_spread
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.labels import LabelTable, read_labels
from ggdr.torch_utils.data.rgb_decoder import RGBDecoder
from ggdr.torch_utils.data.workers import cpu_count, map_in_order
from ggdr.torch_utils.untrusted.npz import Npz, NpzError, open_npz
from ggdr.torch_utils.untrusted.regular_files import open_regular

NUM_WITHOUT_WORKERS = 4000  # fewer images are decoded sooner than worker processes start
NUM_EXAMINED = 256  # images whose size is read on opening
USUAL_PIXELS = 2**26  # of a batch at most, as far as these sizes tell


class ImageSource(Protocol):
    """Numbered images.

    Attributes:
        num:        how many there are; None: as many as are asked for.
        labels:     [num] int64 class of each, or None.
        most_batch: as many at once fit memory; None: no bound.
    """

    num: int | None
    labels: np.ndarray | None
    most_batch: int | None

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Images]:
        """For each array of image numbers the images, on any device."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a result line says of them."""
        ...

    def fingerprint(self) -> str | None:
        """Hash (hex) of the images' content; None: not to be cached."""
        ...


class FileImages:
    """The images of a folder or zip, of any sizes and kinds, as RGB.

    Args:
        path:      folder or zip, or a container, whose files are not listed anew.
        mirror:    append the x-flip of each image.
        workers:   processes that decode; None: up to 4 where there are many images.
        as_stored: read as other tools do (see RGBDecoder).

    Raises:
        DataError: there are none, or one of those that are examined cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike | Container,
        *,
        mirror: bool = False,
        workers: int | None = None,
        as_stored: bool = False,
    ) -> None:
        self.container = opened(path)
        self.files = self.container.image_files()
        self.mirror = mirror
        self.num = len(self.files) * (2 if mirror else 1)
        self.decoder = RGBDecoder(self.container, as_stored)
        examined = evenly_spread(len(self.files), NUM_EXAMINED)
        headers = [self.container.header(self.files[i], upright=not as_stored) for i in examined]
        self.sizes = sorted({size for size, _ in headers})
        self.most_batch = max(1, USUAL_PIXELS // max(width * height for width, height in self.sizes))
        many = len(self.files) > NUM_WITHOUT_WORKERS
        self.workers = (min(4, max(1, cpu_count() - 1)) if many else 0) if workers is None else workers

    @cached_property
    def label_table(self) -> LabelTable | None:
        return read_labels(self.container, self.files.names).table

    @property
    def labels(self) -> np.ndarray | None:
        table = self.label_table
        if table is None or not table.is_onehot:
            return None
        return np.tile(table.values, 2 if self.mirror else 1)

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Images]:
        arrays = list(numbers)
        num_files = len(self.files)
        files = ([self.files[i % num_files] for i in array.tolist()] for array in arrays)
        decoded = map_in_order(self.decoder, files, self.workers) if self.workers else map(self.decoder, files)
        try:
            for array, images in zip(arrays, decoded, strict=True):
                for i in np.flatnonzero(array >= num_files):
                    images[i] = images[i][:, :, ::-1].copy()
                yield torch.from_numpy(images) if isinstance(images, np.ndarray) else [*map(torch.tensor, images)]
        finally:
            if self.workers:
                decoded.close()

    @property
    def names(self) -> Names:
        """The files' names, without flips."""
        return self.files.names

    @property
    def left_out(self) -> str:
        """Which files are not read as images, in half a line; may be empty."""
        return self.container.left_out()

    def describe(self) -> dict[str, Any]:
        size = list(self.sizes[0]) if len(self.sizes) == 1 else " to ".join(f"{w}x{h}" for w, h in self._extremes())
        return {"path": str(self.container.path), "size": size, "flips": self.mirror}

    def _extremes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The size of fewest pixels and that of most."""
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        return by_area[0], by_area[-1]

    @cached_property
    def _fingerprint(self) -> str:
        about = f"{digest(self.container, self.files)} mirror={self.mirror} as_stored={self.decoder.as_stored}"
        return hashlib.sha256(about.encode()).hexdigest()

    def fingerprint(self) -> str:
        return self._fingerprint


class ArrayImages:
    """The images of an .npz file: uint8 [N, H, W, C] of 1, 3 or 4 channels under `images`, or as its only array.

    Args:
        as_stored: leave transparency out, in place of laying it over white.

    Raises:
        DataError: it holds no such array.
    """

    most_batch = None

    def __init__(self, path: str | os.PathLike, *, as_stored: bool = False) -> None:
        self.path, self.as_stored = Path(path), as_stored
        with _arrays(self.path) as file:
            names = [name for name in ("images", "arr_0") if name in file] or file.names[:1]
            images = file[names[0]] if names else np.zeros(0)
            labels = file["labels"] if "labels" in file else None
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4) or not len(images):
            raise DataError(
                f"{self.path}: expected images uint8 [N, H, W, C] of 1, 3 or 4 channels, "
                f"got {images.dtype} {list(images.shape)}"
            )
        self.images = images
        self.num = len(images)
        is_classes = labels is not None and labels.shape == (len(images),) and labels.dtype.kind in "iu"
        self.labels = labels if is_classes else None

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        for array in numbers:
            yield to_rgb(torch.from_numpy(self.images[array]).permute(0, 3, 1, 2), as_stored=self.as_stored)

    def describe(self) -> dict[str, Any]:
        height, width = self.images.shape[1:3]
        return {"path": str(self.path), "size": [width, height], "flips": False}

    @cached_property
    def _fingerprint(self) -> str:
        about = f"{self.images.shape} as_stored={self.as_stored}"
        return hashlib.sha256(about.encode() + self.images.tobytes()).hexdigest()

    def fingerprint(self) -> str:
        return self._fingerprint


class GeneratedImages:
    """A generator's images, by number; as many as are asked for.

    Args:
        draw:      image numbers to images uint8 [n, C, H, W].
        labels:    class of each number, or None.
        about:     what a result line says of the generator.
        as_stored: leave transparency out, in place of laying it over white.
    """

    num = most_batch = None

    def __init__(
        self,
        draw: Callable[[Sequence[int]], Tensor],
        *,
        labels: np.ndarray | None = None,
        about: dict[str, Any] | None = None,
        as_stored: bool = False,
    ) -> None:
        self.draw, self.labels, self.about, self.as_stored = draw, labels, about or {}, as_stored

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        for array in numbers:
            yield to_rgb(self.draw([int(i) for i in array]), as_stored=self.as_stored)

    def describe(self) -> dict[str, Any]:
        return dict(self.about)

    def fingerprint(self) -> None:
        return None


def to_rgb(images_u8: Tensor, *, as_stored: bool = False) -> Tensor:
    """uint8 [N, 1, 3 or 4, H, W] as [N, 3, H, W]: grey is repeated, transparency laid over white or left out."""
    if images_u8.shape[1] == 1:
        return images_u8.expand(-1, 3, -1, -1)
    if images_u8.shape[1] == 3 or as_stored:
        return images_u8[:, :3]
    # To the nearest level, with Pillow's rounding: files of these images give the same.
    colours, alpha = images_u8[:, :3].int(), images_u8[:, 3:].int()
    scaled = (colours * alpha + 255 * (255 - alpha) + 128) << 7
    return ((scaled >> 8) + scaled >> 15).to(torch.uint8)


def over_white(img: Tensor) -> Tensor:
    """Images [N, 4, H, W] float in [-1, 1], laid over white: [N, 3, H, W]."""
    opacity = (img[:, 3:].clamp(-1, 1) + 1) / 2
    return img[:, :3] * opacity + (1 - opacity)


def open_images(
    path: str | os.PathLike, *, mirror: bool = False, workers: int | None = None, as_stored: bool = False
) -> FileImages | ArrayImages:
    """Images of a folder, a zip, or an .npz file.

    Raises:
        DataError: there are none.
    """
    if Path(path).suffix == ".npz":
        if mirror:
            raise DataError(f"{path}: flips of an .npz file are not made; give a folder or zip")
        return ArrayImages(path, as_stored=as_stored)
    return FileImages(path, mirror=mirror, workers=workers, as_stored=as_stored)


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

    The covariance is as stored: divided by N - 1 by `save_statistics` and by most tools.

    Raises:
        DataError: shapes do not fit, or numbers are not finite.
    """
    path = Path(path)
    with _arrays(path) as file:
        mu, sigma = file["mu"], file["sigma"]
        counts = file["num"] if "num" in file else None
        about = str(file["about"]) if "about" in file else ""
    num = None if counts is None else int(counts) if counts.shape == () and counts.dtype.kind in "iu" else -1
    if num is not None and not 1 < num < 2**53:
        raise DataError(f"{path}: expected a number of images in num, at least 2")
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
