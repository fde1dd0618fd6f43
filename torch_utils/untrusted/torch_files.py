# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files of `torch.save` that hold tensors and plain values, read without running, or trusting, anything in them.

Why not torch.load(weights_only=True): with PyTorch 2.13, 200 kB with a tuple nested 200,000 deep as a key end the
process (SIGSEGV); 400 bytes make it allocate 8 GiB (bytearray(n), torch.Tensor(n)) or what a storage of the old
format claims, 700 kB of compressed entries 700 MB. It takes lists that hold themselves, 2^40 elements over 16 bytes,
and flipped bits, as it compares no CRC-32; it refuses pickles of protocol 4. A check of all that beforehand would
have to interpret the pickle, as `pickle_reader` does, which stays for published .pkl files; about 100 lines of this
module would go, and those checks come. 300 MB take 0.9 s here, 0.55 s with torch.load, and the same memory.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ggdr.torch_utils.untrusted.pickle_names import PLAIN
from ggdr.torch_utils.untrusted.pickle_reader import Name, Vocabulary, read_pickle
from ggdr.torch_utils.untrusted.regular_files import open_regular
from ggdr.torch_utils.untrusted.text import printable

MAX_DIMS = 25
_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}
DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
# What files start with: a zip, and before PyTorch 1.6 the pickled torch.serialization.MAGIC_NUMBER.
ZIP = b"PK\3\4"
LEGACY = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
_MAX_PICKLE = 1 << 26  # bytes


class TensorFileError(ValueError):
    """A file that is damaged, or holds more than tensors and plain values; `reason` says it without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


def read_tensor_file(source: str | os.PathLike | bytes, *, records: Collection[str] = ()) -> Any:
    """What `torch.save` wrote, in the zip format or the one before it, on the CPU; memory stays within the file's size.

    Tensors do not require gradients, parameters come as tensors, and a bare storage as a tensor [numel]. Attributes
    of an OrderedDict are left out.

    Args:
        source:  a path, or the bytes of the file.
        records: names of classes, such as "argparse.Namespace", whose objects are read as Record.

    Raises:
        TensorFileError: not such a file, damaged, or of other classes and functions, which it names.
        OSError:         the file cannot be opened.
    """
    name = "tensor data" if isinstance(source, bytes) else os.fspath(source)
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(len(LEGACY))
        file.seek(0)
        try:
            if start == LEGACY:
                return _read_legacy(file, length, records)
            if start.startswith(ZIP):
                return _read_zip(file, length, records)
        except (ValueError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError) as error:
            raise TensorFileError(name, f"not a readable file of tensors: {printable(error)}") from error
    raise TensorFileError(name, f"not a file of torch.save (it starts with {start[:4]!r})")


def strided_tensor(storage: Tensor, offset: int, size: Collection[int], stride: Collection[int]) -> Tensor:
    """The tensor [*size] that lies in a storage [numel] as given; a view.

    Raises:
        ValueError: it would reach beyond the storage, or have more elements.
    """
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or len(size) > MAX_DIMS or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise ValueError("a tensor whose shape, strides or offset cannot be")
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else offset - 1
    if numel > storage.numel() or last >= storage.numel() or math.prod(n or 1 for n in size) >= 2**62:
        raise ValueError(
            f"a tensor of shape {list(size)}, strides {list(stride)} and offset {offset} "
            f"in a storage of {storage.numel():,} elements"
        )
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    if not isinstance(storage, Tensor) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor of no storage or shape")
    return strided_tensor(storage, offset, size, stride)


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter of no tensor")
    return data


def _size(dims: Any) -> tuple[int, ...]:
    if not isinstance(dims, tuple | list) or len(dims) > MAX_DIMS or not all(type(n) is int for n in dims):
        raise ValueError("a shape of other than whole numbers")
    return tuple(dims)


def _device(kind: Any, *index: Any) -> str:
    if not isinstance(kind, str):
        raise ValueError("a device of no name")
    return kind


# What PyTorch's names in pickles stand for.
TORCH = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
}


def _vocabulary(records: Collection[str], persistent: Callable[[Any], Tensor]) -> Vocabulary:
    makers = {**PLAIN, **TORCH}
    return Vocabulary(makers, values=DTYPES, names=_STORAGES, records=records, persistent=persistent)


class _Storages:
    """Storages by key, all of which together fit into the file."""

    def __init__(self, most: int) -> None:
        self._left = most  # bytes
        self.by_key: dict[str, Tensor] = {}

    def get(self, pid: Any) -> tuple[str, Tensor, bool]:
        """Key and memory [numel] of the storage that a persistent id means, and whether it is new."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise ValueError("a storage that is described otherwise than by torch.save")
        _, kind, key, _, numel = pid[:5]
        dtype = _STORAGES.get(kind.name) if isinstance(kind, Name) else None
        if dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise ValueError("a storage of unknown type, key or size")
        known = self.by_key.get(key)
        if known is not None:
            if known.numel() != numel or known.dtype != dtype:
                raise ValueError(f"storage {printable(key)} is said to be of two kinds")
            return key, known, False
        if numel * dtype.itemsize > self._left:
            raise ValueError(f"storages of more bytes than the file has ({numel:,} elements of {dtype} and others)")
        self._left -= numel * dtype.itemsize
        self.by_key[key] = torch.empty(numel, dtype=dtype)
        return key, self.by_key[key], True


def _fill(file: BinaryIO, storage: Tensor) -> memoryview:
    """Reads the elements of a storage; returns their bytes."""
    view = memoryview(storage.view(torch.uint8).numpy()) if storage.numel() else memoryview(b"")
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise EOFError("the file ends within a tensor")
        done += count
    return view


# The format before PyTorch 1.6: pickles one after another, then all storages.


def _read_legacy(file: BinaryIO, length: int, records: Collection[str]) -> Any:
    storages = _Storages(length)
    head = file.read(_MAX_PICKLE)
    version, end = read_pickle(head, Vocabulary(), start=len(LEGACY))
    if version != 1001:
        raise ValueError("unknown version of the format")
    system, end = read_pickle(head, Vocabulary(), start=end)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine, or damaged")
    value, end = read_pickle(head, _vocabulary(records, lambda pid: storages.get(pid)[1]), start=end)
    keys, end = read_pickle(head, Vocabulary(), start=end)
    file.seek(end)
    del head
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("a list of storages of no names")
    if len(keys) != len(storages.by_key) or set(keys) != set(storages.by_key):
        raise ValueError("the list of storages is not that of the tensors")
    for key in keys:
        storage, number = storages.by_key[key], file.read(8)
        if len(number) != 8 or struct.unpack("<q", number)[0] != storage.numel():
            raise ValueError(f"storage {printable(key)} has another size than its tensors say")
        _fill(file, storage)
    return value


# The format since: a zip of one pickle and a file for each storage.


def _read_zip(file: BinaryIO, length: int, records: Collection[str]) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = _plain_entries(archive, length)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip, but not of torch.save (no data.pkl)")
    folder = pickles[0].removesuffix("data.pkl")
    if (order := entries.get(folder + "byteorder")) and _entry(file, order, 16) != b"little":
        raise ValueError("written on a big-endian machine, or damaged")
    storages = _Storages(length)

    def persistent(pid: Any) -> Tensor:
        key, storage, new = storages.get(pid)
        if new:
            info = entries.get(f"{folder}data/{key}")
            if info is None or info.file_size != storage.nbytes:
                raise ValueError(f"storage {printable(key)} is missing, or has another size than its tensors say")
            _seek(file, info)
            if zlib.crc32(_fill(file, storage)) != info.CRC:
                raise ValueError(f"storage {printable(key)} is damaged (its CRC-32 is another)")
        return storage

    return read_pickle(_entry(file, entries[pickles[0]], _MAX_PICKLE), _vocabulary(records, persistent))[0]


def _plain_entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip by name: none compressed, none encrypted, no two over the same bytes or of one name."""
    entries, end = {}, 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise ValueError(f"a zip with a compressed or encrypted entry, {printable(info.filename)}")
        if info.header_offset < end or info.filename in entries:
            raise ValueError(f"a zip with entries over each other, such as {printable(info.filename)}")
        end = info.header_offset + 30 + len(info.orig_filename) + info.file_size
        entries[info.filename] = info
    if end > length:
        raise ValueError("a zip with entries beyond its end")
    return entries


def _seek(file: BinaryIO, info: zipfile.ZipInfo) -> None:
    """Moves to the data of an entry."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or not header.startswith(ZIP):
        raise ValueError(f"a zip with a damaged entry, {printable(info.filename)}")
    file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)


def _entry(file: BinaryIO, info: zipfile.ZipInfo, most: int) -> bytes:
    """The bytes of a small entry."""
    if info.file_size > most:
        raise ValueError(f"a zip whose entry {printable(info.filename)} has {info.file_size:,} bytes")
    _seek(file, info)
    data = file.read(info.file_size)
    if zlib.crc32(data) != info.CRC:
        raise ValueError(f"a zip with a damaged entry, {printable(info.filename)}")
    return data
