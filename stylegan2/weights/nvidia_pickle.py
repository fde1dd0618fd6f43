# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the pickles in which StyleGAN2-ADA, the StyleGAN3 release and GGDR publish networks."""

from __future__ import annotations

import mmap
import os
from typing import Any

from ggdr.torch_utils.untrusted.pickle_names import NUMPY, NUMPY_NAMES, NUMPY_RECORDS, PLAIN
from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError, Name, Vocabulary, read_pickle
from ggdr.torch_utils.untrusted.regular_files import open_regular
from ggdr.torch_utils.untrusted.torch_files import DTYPES, TORCH, read_tensor_file

# Called with a dict of the class's name, its source text, and the attributes of a module.
NETWORK = "torch_utils.persistence._reconstruct_persistent_obj"


def load_published(path: str | os.PathLike) -> Any:
    """Reads a pickle file without loading it into memory as a whole.

    Returns:
        Dicts, lists, tuples, sets, text, numbers, bytes (as views of the file where they are long), tensors on the CPU,
        and Records of the networks' modules. Structures may share parts and contain themselves.

    Raises:
        InertPickleError: the file is damaged, or holds something else than networks; its `name` is what was refused.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InertPickleError("the file is empty")
        # Closed when nothing refers to it any more.
        value, _ = read_pickle(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), PUBLISHED)
    return value


def _dict() -> dict:
    """Of no arguments, as a dict class that pickle fills afterwards."""
    return {}


def _dict_of_items(cls: Any, base: Any, items: Any) -> dict:
    """How protocols 0 and 1 make an object of a dict's class."""
    if cls != Name("dnnlib.util.EasyDict") or base != Name("builtins.dict") or not isinstance(items, dict):
        raise ValueError("an object of another class than dict")
    return dict(items)


def _storage(data: Any) -> Any:
    """The storage [numel] that a tensor is a part of: a torch file inside of the pickle."""
    if not isinstance(data, bytes | memoryview):
        raise ValueError("a tensor's file that is no bytes")
    return read_tensor_file(bytes(data))


PUBLISHED = Vocabulary(
    makers={
        **PLAIN,
        **NUMPY,
        **TORCH,
        "dnnlib.util.EasyDict": _dict,
        "copyreg._reconstructor": _dict_of_items,
        "torch.storage._load_from_bytes": _storage,
    },
    values=DTYPES,
    names=(*NUMPY_NAMES, "builtins.dict", "torch.channels_last"),
    records=(*NUMPY_RECORDS, NETWORK),
    circles=True,
)
