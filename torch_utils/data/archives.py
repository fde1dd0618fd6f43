# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Readers of foreign image collections for `ggdr dataset`. Nothing is unpacked to disk, no code is run."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ggdr.torch_utils.data.file_kinds import command_to_convert
from ggdr.torch_utils.data.file_source import FileSource, Raw
from ggdr.torch_utils.data.image_files import FREE, RATIO, DataError
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.data.labels import MAX_CLASSES, LabelTable
from ggdr.torch_utils.data.shapes import ShapesSource
from ggdr.torch_utils.untrusted.pickle_names import NUMPY_NAMES, NUMPY_RECORDS, PLAIN
from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError, Record, Vocabulary, read_pickle
from ggdr.torch_utils.untrusted.regular_files import open_regular
from ggdr.torch_utils.untrusted.text import error_text, printable

_READ_ERRORS = (OSError, EOFError, OverflowError, zlib.error, tarfile.TarError)
DRAWN = ("digits", "shapes")  # sets that come without a file
MAX_UNPACKED = 2**31  # bytes of a gzip
MAX_BATCH = 2**26  # bytes of a member of the CIFAR-10 archive, which has 31 million
MAX_NAME = 200  # characters of a class' name
_CIFAR = Vocabulary(PLAIN, names=NUMPY_NAMES, records=NUMPY_RECORDS, strings_as_bytes=True)


class Source(Protocol):
    """An ordered collection of raw images.

    Attributes:
        count:              number of images.
        labels:             their labels, or None; -1 for an image to leave out where labels are used.
        label_note:         why there are no labels, or what was made of unusual folders; may be empty.
        left_out:           which files are not read as images, in half a line; may be empty.
        default_resolution: what --resolution means when it is not given; None: the images' own size.
        small:              policy for images below the resolution unless told (conversion.SMALL_POLICIES).
        has_label_maps:     whether the images have label maps; only then are these and their classes asked for.
    """

    count: int
    labels: LabelTable | None
    label_note: str
    left_out: str
    default_resolution: int | None
    small: str
    has_label_maps: bool

    def items(self, indices: Iterable[int]) -> Iterator[tuple[str, Raw]]:
        """(name for messages, image) of the given images."""
        ...

    def label_maps(self, indices: Iterable[int]) -> Iterator[tuple[str, Raw]]:
        """(name for messages, label map) of the given images."""
        ...

    def label_classes(
        self, num: int | None, ignored: Sequence[int] | None, progress: Callable[[int, int], None]
    ) -> LabelClasses:
        """What the values in its label maps mean, as `label_map_files.classes_of_maps` gives it."""
        ...


class ArraySource:
    """Pixels that are in memory already: images uint8 [N, H, W] or [N, H, W, 3]."""

    left_out = ""
    has_label_maps = False

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: LabelTable | None,
        *,
        label_note: str = "",
        default_resolution: int | None = None,
        small: str = "error",
    ):
        self.count = len(images)
        self.labels = labels
        self.label_note = label_note
        self.default_resolution = default_resolution
        self.small = small
        self._name = name
        self._images = images

    def items(self, indices: Iterable[int]) -> Iterator[tuple[str, np.ndarray]]:
        for i in indices:
            yield f"{self._name}[{i}]", self._images[i]


class LmdbSource:
    """LSUN: a folder with data.mdb, whose values are image files; without labels."""

    default_resolution = None
    small = "error"
    labels = None
    label_note = "an lmdb of LSUN holds none"
    left_out = ""
    has_label_maps = False

    def __init__(self, path: Path):
        try:
            import lmdb
        except ImportError as error:
            raise DataError(f"{path}: reading LSUN needs the lmdb package: pip install lmdb") from error
        self._path = path
        self._error = lmdb.Error
        try:
            self._env = lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False)
            # A page that the file lacks would end the process (SIGBUS) when it is touched.
            needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
            size = (path / "data.mdb").stat().st_size
            if size < needed:
                raise DataError(f"{path}/data.mdb: truncated, holds {size} bytes, expected {needed}")
            with self._env.begin() as txn:
                self._keys = list(txn.cursor().iternext(keys=True, values=False))
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{path}: cannot be read as lmdb ({error})") from error
        self.count = len(self._keys)
        if not self.count:
            raise DataError(f"{path}: the lmdb is empty")

    def items(self, indices: Iterable[int]) -> Iterator[tuple[str, Raw]]:
        with self._env.begin() as txn:
            for i in indices:
                key = self._keys[i]
                where = f"{self._path}[{key.decode('ascii', 'backslashreplace')}]"
                try:
                    raw: Raw = txn.get(key)
                except self._error as error:
                    raw = DataError(f"{where}: cannot be read ({error})")
                yield where, raw


def open_source(source: str, split: str | None = None) -> Source:
    """Recognise and open what `source` names.

    Args:
        split:  which images of a folder or zip; see `FileSource`.
        source: one of the words in DRAWN, or the path of a folder, zip, LSUN lmdb folder, cifar-10-python.tar.gz or
            MNIST images file (idx3, gzipped or not).

    Raises:
        DataError: it is none of these, or damaged.
    """
    if source in DRAWN:
        return ShapesSource() if source == "shapes" else read_digits()
    path = Path(source)
    if split is not None and not (path.is_dir() or path.suffix.lower() == ".zip"):
        raise DataError(f"{path}: has no folders, of which --split names one")
    if path.is_dir():
        return LmdbSource(path) if (path / "data.mdb").is_file() else FileSource(path, split)
    name = path.name.lower()
    if name.endswith(".zip") or not path.exists():
        return FileSource(path, split)
    if name.endswith((".tar.gz", ".tgz", ".tar")):
        return read_cifar10(path)
    if "idx" in name or name.endswith((".gz", "-ubyte")):
        return read_mnist(path)
    command = command_to_convert(printable(path.as_posix(), 1000))
    remedy = f"; images are made of it in a folder of theirs, for example: {command}" if command else ""
    raise DataError(
        f"{path}: unknown kind of source; expected a folder, .zip, LSUN lmdb folder, cifar-10-python.tar.gz, "
        f"MNIST ...-images-idx3-ubyte.gz, or the word {' or '.join(DRAWN)}{remedy}"
    )


def read_digits() -> ArraySource:
    """scikit-learn's 1797 handwritten digits, 8x8 grey, 0..16 scaled to 0..255, with labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: needs the scikit-learn package: pip install scikit-learn") from error
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = LabelTable(bunch.target.astype(np.int64), [str(name) for name in bunch.target_names])
    return ArraySource("digits", images, labels, default_resolution=32, small="upscale")


def read_cifar10(path: Path) -> ArraySource:
    """The 50,000 training images of cifar-10-python.tar.gz (data_batch_1 to _5), with labels and class names.

    Raises:
        DataError: damaged, or not of this layout, or a member holds more than plain data.
    """
    batches: dict[str, dict] = {}
    try:
        with _unpacked(path) as file:
            for member, size in _tar_files(file):
                name = member.rsplit("/", 1)[-1]
                if not re.fullmatch(r"data_batch_[1-9]|batches\.meta", name):
                    continue
                if size > MAX_BATCH:
                    raise DataError(f"{path}/{name}: has {size:,} bytes, expected at most {MAX_BATCH:,}")
                batches[name] = _plain_pickle(file.read(size), f"{path}/{name}")
    except _READ_ERRORS as error:
        raise DataError(f"{path}: corrupt or truncated tar.gz ({error_text(error)})") from error
    meta = batches.pop("batches.meta", {})
    if not batches:
        raise DataError(f"{path}: holds no data_batch_N; expected cifar-10-python.tar.gz")

    images, labels = [], []
    for name, batch in sorted(batches.items()):
        data, targets = _pixel_rows(batch.get("data")), batch.get("labels")
        if data is None:
            raise DataError(f"{path}/{name}: its data is no array uint8 [N, 3072]")
        is_list = isinstance(targets, list) and all(type(x) is int and 0 <= x < MAX_CLASSES for x in targets)
        if not is_list or len(targets) != len(data):
            raise DataError(f"{path}/{name}: expected {len(data)} integer labels")
        images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.extend(targets)
    names = meta.get("label_names", [])
    if not isinstance(names, list) or len(names) > MAX_CLASSES:
        raise DataError(f"{path}/batches.meta: expected a list of names of classes")
    classes = [c.decode(errors="replace") if isinstance(c, bytes) else str(c)[:MAX_NAME] for c in names]
    table = LabelTable(np.array(labels, dtype=np.int64), classes or None)
    return ArraySource(str(path), np.ascontiguousarray(np.concatenate(images)), table)


def read_mnist(path: Path) -> ArraySource:
    """MNIST and its kin: an idx3 images file, and the idx1 labels file if that lies beside it.

    28x28 images get a border of 2 black pixels, which makes them 32x32.

    Raises:
        DataError: damaged, or not of this format.
    """
    images = _read_idx(path, ndim=3)
    if images.shape[1:] == (28, 28):
        images = np.pad(images, [(0, 0), (2, 2), (2, 2)])
    labels_path = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels_path == path or not labels_path.exists():
        why = f"there is no {labels_path.name} beside it" if labels_path != path else "its name has no images or idx3"
        return ArraySource(str(path), images, None, label_note=why)
    labels = _read_idx(labels_path, ndim=1)
    if len(labels) != len(images):
        raise DataError(f"{labels_path}: {len(labels)} labels, expected {len(images)} as in {path.name}")
    return ArraySource(str(path), images, LabelTable(labels.astype(np.int64)))


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of an idx file: magic 0x0000080D with D dimensions, their sizes, then the values."""
    try:
        with _unpacked(path) as file:
            header = file.read(4 + 4 * ndim)
            if header[:4] != bytes([0, 0, 8, ndim]) or len(header) < 4 + 4 * ndim:
                got = header[:4].hex()
                raise DataError(f"{path}: starts with {got!r}, expected '0000080{ndim}' (idx{ndim}, uint8)")
            shape = struct.unpack_from(f">{ndim}I", header, 4)
            # One more than there should be; what is not there takes no memory.
            values = np.frombuffer(file.read(min(math.prod(shape) + 1, file.left)), dtype=np.uint8)
    except _READ_ERRORS as error:
        raise DataError(f"{path}: corrupt or truncated gzip ({error_text(error)})") from error
    if len(values) != math.prod(shape):
        some = f"{len(values)} values" if len(values) < math.prod(shape) else "more values"
        raise DataError(f"{path}: holds {some}, its header says {' x '.join(map(str, shape))}")
    if not len(values):
        raise DataError(f"{path}: holds no images")
    return values.reshape(shape)


@contextmanager
def _unpacked(path: Path) -> Iterator[_Bounded]:
    """The file, without its gzip if it has one; it may become as much larger as a file in a zip."""
    with open_regular(path) as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        most = min(MAX_UNPACKED, FREE + RATIO * file.seek(0, io.SEEK_END))
        file.seek(0)
        with gzip.open(file) if is_gzip else nullcontext(file) as stream:
            yield _Bounded(stream, most)


def _tar_files(file: _Bounded) -> Iterator[tuple[str, int]]:
    """Name and size of each plain file of a tar archive, whose content is the next to be read.

    Headers of other kinds are passed over. tarfile takes hours for one with many digits, and recurses at each.
    """
    start = 0
    while (header := file.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if info.size < 0:
            raise EOFError("a file of negative size")
        start += tarfile.BLOCKSIZE
        if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield info.name, info.size
        start += -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        file.seek(start - 1)
        if not file.read(1):
            raise EOFError("it ends within a file")


class _Bounded:
    """A file that ends in an OSError where it is asked for what lies behind its first `most` bytes.

    Attributes:
        left: bytes that it may still be asked for.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most

    @property
    def left(self) -> int:
        return self._most - self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > self.left:
            raise OSError(f"it unpacks to more than {self._most:,} bytes")
        return self._file.read(size if size >= 0 else self.left)

    def seek(self, offset: int) -> None:
        if offset > self._most:
            raise OSError(f"it unpacks to more than {self._most:,} bytes")
        self._file.seek(offset)


def _plain_pickle(data: bytes, where: str) -> dict[str, Any]:
    """One member of the CIFAR-10 archive, read without running what is in it: a dict by names."""
    try:
        content, _ = read_pickle(data, _CIFAR)
    except InertPickleError as error:
        raise DataError(f"{where}: refused or damaged ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds a {type(content).__name__}, expected a dict")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}


def _pixel_rows(pickled: Any) -> np.ndarray | None:
    """The array uint8 [N, 3072] that was pickled as (shape, type, order and bytes); None if it is another one."""
    match pickled:
        case Record(state=(_, (int(num), 3072), Record(args=("u1" | b"u1", *_)), bool(fortran), bytes(data))):
            if num > 0 and len(data) == num * 3072:
                return np.frombuffer(data, np.uint8).reshape((num, 3072), order="F" if fortran else "C")
    return None


def spread(count: int, max_images: int | None) -> Sequence[int]:
    """Indices of up to max_images of `count` images, evenly spread, so that each class keeps its share."""
    if max_images is None or max_images >= count:
        return range(count)
    return [i * count // max_images for i in range(max_images)]
