# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The training images. Imports no torch, so that worker processes of the loader start quickly."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import Container, digest
from ggdr.torch_utils.data.convert import check_resolution
from ggdr.torch_utils.data.file_table import ListedFile, evenly_spread
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.data.label_map_files import LabelMapDecoder, label_maps_of_dataset, no_label_maps
from ggdr.torch_utils.data.label_maps import IGNORED, describe_shares
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
        use_label_maps: give label maps, which are read and kept beside the images only then.
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
        label_classes: what the values of its label maps mean, used or not; None if it has none.
        use_label_maps: as given.
        label_note:   why there are no labels, or what was made of unusual folders, if used; may be empty.
        left_out:     which files are not read as images, in half a line; may be empty.
        cached:       whether decoded images are kept.

    Raises:
        DataError: the path holds no such images, or labels or label maps are asked for and missing or wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        use_labels: bool = False,
        use_label_maps: bool = False,
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

        # Label maps.
        label_maps = label_maps_of_dataset(container)
        if use_label_maps and label_maps is None:
            raise DataError(f"{container.where()}: {no_label_maps(container)}")
        self.use_label_maps = use_label_maps
        self.label_classes = label_maps.classes if label_maps else None
        self._label_maps = label_maps if label_maps is None or chosen is None else label_maps.take(chosen)

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
        if self._label_maps is not None:
            self.label_decoder = LabelMapDecoder(container, self.resolution, self.label_classes)
            self.label_decoder.check_some(self._label_maps.files)

        # Cache.
        planes = {"images": self.num_channels, **({"label maps": 1} if use_label_maps else {})}
        shapes = {kind: (self.num_raw, num, self.resolution, self.resolution) for kind, num in planes.items()}
        self.cached = sum(map(math.prod, shapes.values())) <= cache_mb * 2**20
        self._kept = {kind: KeptArrays(shape) for kind, shape in shapes.items()} if self.cached else {}

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(image uint8 [C, H, W], label float32 [c_dim])."""
        return self.images_u8([index])[0], self.labels([index])[0]

    def __getstate__(self) -> dict:
        # A copy in another process decodes for itself: its own cache would multiply the memory.
        return {**self.__dict__, "cached": False, "_kept": {}}

    def images_u8(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at these indices, uint8 [n, C, H, W].

        Raises:
            DataError:  one cannot be decoded or differs from the others in size or channels.
            IndexError: an index is not in 0 .. num_images - 1.
        """
        return self._decoded("images", indices, lambda numbers: self.decoder(self.files_at(numbers)))

    def label_maps(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The label maps at these indices, uint8 [n, 1, H, W]: classes from 0, or label_maps.IGNORED (255).

        Those of flipped images are flipped.

        Raises:
            DataError:  one cannot be decoded, has another size or a value that is no class; the dataset has none.
            IndexError: an index is not in 0 .. num_images - 1.
        """
        if not self.use_label_maps:
            raise DataError(f"{printable(self.path)}: was opened without use_label_maps")
        return self._decoded("label maps", indices, lambda numbers: self.label_decoder(self.label_files_at(numbers)))

    def _decoded(
        self, kind: str, indices: Sequence[int] | np.ndarray, decode: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """[n, C, H, W] at these indices, flipped where these say so, from what is kept or else `decode`."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_images:
            raise IndexError(f"images {indices.min()} .. {indices.max()} of {self.num_images}")
        raw = indices % self.num_raw
        kept = self._kept.get(kind)
        return self.flip(decode(raw) if kept is None else kept.rows(raw, decode), indices)

    def files_at(self, indices: np.ndarray) -> list[ListedFile]:
        """The file of each index."""
        return [self.files[i] for i in (indices % self.num_raw).tolist()]

    def sample_decoder(self) -> SampleDecoder:
        """Decodes what `sample_files_at` gives, in worker processes too."""
        return SampleDecoder((self.decoder, self.label_decoder) if self.use_label_maps else (self.decoder,))

    def sample_files_at(self, indices: np.ndarray) -> tuple[list[ListedFile], ...]:
        """The image file of each index and, if they are used, that of its label map."""
        images = self.files_at(indices)
        return (images, self.label_files_at(indices)) if self.use_label_maps else (images,)

    def label_files_at(self, indices: np.ndarray) -> list[ListedFile]:
        """The file of the label map of each index."""
        return self._label_maps.at(indices % self.num_raw)

    @property
    def num_label_classes(self) -> int:
        """Classes that its label maps have, used or not; 0 if it has none."""
        return self.label_classes.num if self.label_classes else 0

    def pixels_of_classes(self, num: int = 256) -> np.ndarray:
        """Pixels of each class, and of IGNORED, in up to `num` label maps, evenly spread: [256] int64.

        Raises:
            DataError: there are no label maps, or one cannot be decoded.
        """
        if self._label_maps is None:
            raise DataError(f"{printable(self.path)}: {no_label_maps(self.decoder.container)}")
        counts = np.zeros(IGNORED + 1, np.int64)
        for i in evenly_spread(self.num_raw, num):
            numbers = self.label_decoder(self.label_files_at(np.array([i])))
            counts += np.bincount(numbers.ravel(), minlength=len(counts))
        return counts

    def label_shares(self, num: int = 256) -> np.ndarray:
        """The share of each class in the pixels that have one, float64 [num_label_classes]; see `pixels_of_classes`."""
        counts = self.pixels_of_classes(num)[: self.num_label_classes]
        return counts / max(counts.sum(), 1)

    def describe_label_maps(self, num: int = 256) -> str:
        """Which label maps there are, by up to `num` of them, in half a line; raises as `pixels_of_classes`."""
        return (
            describe_shares(self.label_classes, self.pixels_of_classes(num)) if self.label_classes else "no label maps"
        )

    def describe_labels(self) -> str:
        """What labels are used, in half a line."""
        is_onehot = self.label_counts is not None
        return describe_labels(self.c_dim, is_onehot, self.classes) if self.c_dim else "without labels"

    def flip(self, images_u8: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Flip, in place, those of the files' images or label maps [n, C, H, W] that indices want flipped."""
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
        """Hash (hex) of the images in use, by names, sizes and CRCs, of labels and used label maps; not of `mirror`.

        For a folder of more than 512 MiB only a part of the contents is read (image_files.digest).
        """
        sha = hashlib.sha256(digest(self.decoder.container, self.files).encode())
        if self._labels is not None:
            sha.update(f"{self._labels.dtype}{self._labels.shape}".encode() + self._labels.tobytes())
        if self.use_label_maps:
            maps = self._label_maps
            files = maps.files.take(np.sort(maps.rows))
            sha.update(f"{digest(self.label_decoder.container, files)}{maps.classes.to_json()}".encode())
        return sha.hexdigest()


class KeptArrays:
    """Decoded images [N, C, H, W], taken up as they are asked for."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        # Memory is taken up page by page, as images come in.
        self._values = np.empty(shape, dtype=np.uint8)
        self._is_there = np.zeros(shape[0], dtype=bool)

    def rows(self, raw: np.ndarray, decode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A copy of these rows; `decode` gives those that are not there yet."""
        missing = np.unique(raw[~self._is_there[raw]])
        if missing.size:
            self._values[missing] = decode(missing)
            self._is_there[missing] = True
        return self._values[raw]


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


@dataclass(frozen=True)
class SampleDecoder:
    """Decodes images and what belongs to them; small to pickle.

    Attributes:
        decoders: of the images, and of the label maps if there are any.
    """

    decoders: tuple[ImageDecoder] | tuple[ImageDecoder, LabelMapDecoder]

    def __call__(self, files: tuple[Sequence[ListedFile], ...]) -> tuple[np.ndarray, ...]:
        """What each decoder makes of its files; raises what it raises."""
        return tuple(decode(its_files) for decode, its_files in zip(self.decoders, files, strict=True))


def random_state(*seeds: int) -> np.random.RandomState:
    """numpy's frozen generator, whose numbers stay the same in every version, which resuming relies on."""
    return np.random.RandomState([word & 0xFFFFFFFF for seed in seeds for word in (seed, seed >> 32)])
