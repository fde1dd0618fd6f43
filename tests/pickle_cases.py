# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What tests of the reader of pickles share: plain values, and calls that must not be made."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from ggdr.stylegan2.weights.nvidia_pickle import PUBLISHED
from ggdr.torch_utils.untrusted.pickle_reader import Vocabulary, read_pickle

VALUES = {
    "none": None,
    "flags": [True, False],
    "numbers": (0, 1, 255, 65536, -1, -(2**31), 2**31, 2**63, -(2**100), 0.5, 1e300),
    "texts": ["", "a", "\u00fc\U0001f600", "x" * 300, "line\nline"],
    "bytes": [b"", b"abc", bytes(range(256)) * 9],
    "empty": [[], {}, (), set()],
    "nested": {"a": [{"b": (1, [2, {3: 4}])}], None: {1.5: set("xyz")}},
    "ordered": OrderedDict(b=1, a=2),
    "numpy": [np.float64(0.1), np.float32(0.5), np.int64(-7), np.bool_(True), np.uint8(200)],
}

# The folder that hostile pickles would make.
MARK = "the-payload-ran"


def parse(data: bytes, vocabulary: Vocabulary = PUBLISHED):
    value, _ = read_pickle(data, vocabulary)
    return value


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args, state=None):
        self.value = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.value
