# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The training images. Imports no torch, so that worker processes of the loader start quickly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import Container, digest
from ggdr.torch_utils.data.convert import check_resolution
from ggdr.torch_utils.data.file_table import ListedFile, evenly_spread
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.data.labels import describe_labels, read_labels
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    import torch

_CONVERT = "convert the images with: ggdr dataset SOURCE DEST"
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_NUM_CHECKED = 256  # images whose header is read on opening; the rest are checked when they are decoded


class ImageDataset:
    """Square images of one power-of-two size in a zip or folder, with labels if it has them.

    The format is that of docs/datasets.md; any zip or folder of such images will do. Images are decoded when
    first asked for, and kept if all of them fit in memory. Instances can be pickled and survive fork.

    Args:
        path:       zip or folder.
        use_labels: give labels; without, they have length 0.
        mirror:     append the x-flip of each image: index i + num_raw is the flip of i.
        max_images: use a random subset of this size, chosen by seed.
        seed:       of that subset.
        cache_mb:   keep decoded images if all take at most this many MiB; 0 never does.

    Attributes:
        path:         as given.
        name:         the file's or folder's name without .zip.
        files:        the image files in it, without flips.
        num_raw:      number of images without flips.
        num_images:   number of images, = len(self).
        resolution:   side in pixels.
        num_channels: 1, 3 or 4.
        has_labels:   whether the files come with labels, used or not.
        c_dim:        length of a label; 0 unless use_labels.
        classes:      class names, index = label, or None.
        label_counts: [num_classes] int64, images of each class without flips; None without class labels.
        label_note:   why there are no labels, or what was made of unusual folders, if used; may be empty.
        left_out:     which files are not read as images, in half a line; may be empty.
        cached:       whether decoded images are kept.

    Raises:
        DataError: the path holds no such images, or labels are asked for and missing or wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        use_labels: bool = False,
        mirror: bool = False,
        max_images: int | None = None,
        seed: int = 0,
        cache_mb: int = 2048,
    ):
        if max_images is not None and max_images < 1:
            raise ValueError(f"max_images is {max_images}, expected at least 1")
        container = Container(path)
        files = container.image_files()
        self.path = str(path)
        self.name = container.path.resolve().name.removesuffix(".zip")
        self.left_out = container.left_out()
        self.mirror = mirror

        # Subset.
        chosen = None
        if max_images is not None and max_images < len(files):
            chosen = np.sort(random_state(seed).permutation(len(files))[:max_images])
        self.files = files if chosen is None else files.take(chosen)
        self.num_raw = len(self.files)
        self.num_images = self.num_raw * (2 if mirror else 1)

        # Labels; c_dim is that of the whole set, whichever part of it is used.
        found = read_labels(container, files.names)
        table, self.label_note = found.table, found.note
        if use_labels and table is None:
            raise DataError(
                f"{container.where()}: has no labels, which a conditional model needs ({found.note}); {found.remedy}"
            )
        self.has_labels = table is not None
        self.classes = table.classes if table else None
        self.c_dim = table.c_dim if table and use_labels else 0
        self._labels = None if table is None else table.values if chosen is None else table.values[chosen]
        self.label_counts: np.ndarray | None = None
        if table and table.is_onehot:
            self.label_counts = np.bincount(self._labels, minlength=table.c_dim)

        # Size and channels: those of the first image.
        first = self.files[0]
        size, mode = container.header(first)
        try:
            check_resolution(size, container.where(first.name))
        except DataError as error:
            raise DataError(f"{error}; {_CONVERT}") from error
        self.resolution = size[0]
        self.num_channels = _CHANNELS.get(mode, 0)
        self.decoder = ImageDecoder(container, self.resolution, self.num_channels, first.name)
        for i in evenly_spread(self.num_raw, _NUM_CHECKED):
            file = self.files[i]
            self.decoder.check(*container.header(file), file.name)

        # Cache.
        shape = (self.num_raw, self.num_channels, self.resolution, self.resolution)
        self.cached = int(np.prod(shape)) <= cache_mb * 2**20
        # Memory is taken up page by page, as images come in.
        self._cache = np.empty(shape, dtype=np.uint8) if self.cached else None
        self._is_cached = np.zeros(self.num_raw, dtype=bool)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(image uint8 [C, H, W], label float32 [c_dim])."""
        return self.images_u8([index])[0], self.labels([index])[0]

    def __getstate__(self) -> dict:
        # A copy in another process decodes for itself: its own cache would multiply the memory.
        return {**self.__dict__, "cached": False, "_cache": None}

    def images_u8(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at these indices, uint8 [n, C, H, W].

        Raises:
            DataError:  one cannot be decoded or differs from the others in size or channels.
            IndexError: an index is not in 0 .. num_images - 1.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_images:
            raise IndexError(f"images {indices.min()} .. {indices.max()} of {self.num_images}")
        raw = indices % self.num_raw
        if self._cache is None:
            return self.flip(self.decoder(self.files_at(indices)), indices)
        missing = np.unique(raw[~self._is_cached[raw]])
        if missing.size:
            self._cache[missing] = self.decoder(self.files_at(missing))
            self._is_cached[missing] = True
        return self.flip(self._cache[raw], indices)

    def files_at(self, indices: np.ndarray) -> list[ListedFile]:
        """The file of each index."""
        return [self.files[i] for i in (indices % self.num_raw).tolist()]

    def describe_labels(self) -> str:
        """What labels are used, in half a line."""
        is_onehot = self.label_counts is not None
        return describe_labels(self.c_dim, is_onehot, self.classes) if self.c_dim else "without labels"

    def flip(self, images_u8: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Flip, in place, those of the files' images [n, C, H, W] that indices want flipped."""
        mirrored = indices >= self.num_raw
        images_u8[mirrored] = images_u8[mirrored, :, :, ::-1]
        return images_u8

    def labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The labels at these indices, float32 [n, c_dim]; one-hot for class labels."""
        if not self.c_dim:
            return np.zeros((len(indices), 0), dtype=np.float32)
        values = self._labels[np.asarray(indices, dtype=np.int64) % self.num_raw]
        if values.ndim == 2:
            return values
        onehot = np.zeros((len(values), self.c_dim), dtype=np.float32)
        onehot[np.arange(len(values)), values] = 1
        return onehot

    def random_labels(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Labels of n images drawn at random, float32 [n, c_dim]; generator is a CPU one."""
        import torch

        indices = torch.randint(self.num_raw, [n], generator=generator)
        return torch.from_numpy(self.labels(indices.numpy()))

    def fingerprint(self) -> str:
        """Hash (hex) of the images in use, by names, sizes and CRCs, and of their labels; not of `mirror`.

        For a folder of more than 512 MiB only a part of the contents is read (image_files.digest).
        """
        sha = hashlib.sha256(digest(self.decoder.container, self.files).encode())
        if self._labels is not None:
            sha.update(f"{self._labels.dtype}{self._labels.shape}".encode() + self._labels.tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class ImageDecoder:
    """Reads and decodes images of one kind; what worker processes need of a dataset, and small to pickle.

    Attributes:
        container:    where the files are.
        resolution:   side in pixels that all must have.
        num_channels: number of channels that all must have.
        example:      an image that has both, for messages.
    """

    container: Container
    resolution: int
    num_channels: int
    example: str

    def __call__(self, files: Sequence[ListedFile]) -> np.ndarray:
        """The images of these files, uint8 [n, C, H, W].

        Raises:
            DataError: one cannot be decoded or has another size or other channels.
        """
        images = np.empty((len(files), self.num_channels, self.resolution, self.resolution), dtype=np.uint8)
        for image, file in zip(images, files, strict=True):
            check = partial(self._check_image, file.name)
            img = load_image(self.container.read(file), self.container.where(file.name), check)
            check(img)  # decoding can change it
            pixels = np.asarray(img)
            image[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return images

    def _check_image(self, name: str, img: Image.Image) -> None:
        self.check(img.size, img.mode, name)

    def check(self, size: tuple[int, int], mode: str, name: str) -> None:
        """Raise DataError unless an image of this size and Pillow mode is 8-bit L, RGB or RGBA and fits."""
        where = self.container.where(name)
        if mode not in _CHANNELS:
            raise DataError(f"{where}: has pixel type {mode!r}, expected 8-bit L, RGB or RGBA; {_CONVERT}")
        res = self.resolution
        if size != (res, res) or _CHANNELS[mode] != self.num_channels:
            raise DataError(
                f"{where}: is {size[0]}x{size[1]} with {_CHANNELS[mode]} channels, expected {res}x{res} "
                f"with {self.num_channels} as {printable(self.example)}; {_CONVERT}"
            )


def random_state(*seeds: int) -> np.random.RandomState:
    """numpy's frozen generator, whose numbers stay the same in every version, which resuming relies on."""
    return np.random.RandomState([word & 0xFFFFFFFF for seed in seeds for word in (seed, seed >> 32)])
