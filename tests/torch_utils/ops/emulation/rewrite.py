# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""CUDA sources as C++ for the emulation: launches, shared memory and bounds written in another way, the rest as is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# name<arguments><<<configuration>>>(parameters
LAUNCH = re.compile(r"(\w+)((?:<[\w\s,]+>)?)\s*<<<(.*?)>>>\s*\(", re.DOTALL)
SHARED = re.compile(r"__shared__ (\w+) (\w+)((?:\[[^\]]+\])+);")
KERNEL = re.compile(r"__global__ void(?: __launch_bounds__\(\w+\))?\s+(\w+)\(")
INCLUDE = re.compile(r"#include <c10/cuda/\w+\.h>")
# What bounds the grid and the indices of 32 bits: they are lowered, as no test has tensors that large.
BOUNDS = {
    "1 << 20": "emulation::max_blocks",
    "INT32_MAX": "emulation::int32_max",
}


class RewriteError(AssertionError):
    """A source has what the emulation does not know."""


def rewrite_sources(sources: Sequence[Path], headers: Sequence[Path], folder: Path) -> list[Path]:
    """Writes NAME.cpp for each NAME.cu, and the headers, into a folder; returns the paths of the former.

    Raises:
        RewriteError: a launch, a shared variable or a bound would be left out.
    """
    written, bounds = [], Counter()
    for path in [*sources, *headers]:
        text = path.read_text()
        if path in sources or INCLUDE.search(text):
            text = rewrite(text, path.name, bounds)
        written.append(folder / path.with_suffix(".cpp" if path in sources else path.suffix).name)
        written[-1].write_text(text)
    for bound in BOUNDS:
        if bounds[bound] == 0:
            raise RewriteError(f"no CUDA source has {bound!r}: BOUNDS names what is not there")
    return written[: len(sources)]


def rewrite(text: str, name: str, bounds: Counter[str]) -> str:
    """One source; counts the bounds that it has.

    Raises:
        RewriteError: it names the file, what was found and how much of it was rewritten.
    """
    text, num_launches = LAUNCH.subn(lambda match: _launch(match, name), text)
    text, num_shared = SHARED.subn(r"\1 (&\2)\3 = emulation::shared<\1\3, __LINE__>();", text)
    for word, num in (("<<<", num_launches), ("__shared__", num_shared)):
        if word in text:
            raise RewriteError(f"{name} has {text.count(word)} {word!r} that are not among the {num} rewritten")
    for bound, emulated in BOUNDS.items():
        text, num = re.subn(rf"\b{bound}\b", emulated, text)
        bounds[bound] += num
    return INCLUDE.sub('#include "emulation.h"', text)


def kernels(sources: Sequence[Path]) -> list[str]:
    """The names of the kernels in CUDA sources.

    Raises:
        RewriteError: a `__global__` has no name that is understood.
    """
    names = []
    for path in sources:
        text = path.read_text()
        found = KERNEL.findall(text)
        if len(found) != text.count("__global__"):
            raise RewriteError(f"{path.name} has {text.count('__global__')} kernels, of which {found} have names")
        names += found
    return names


def _launch(match: re.Match, name: str) -> str:
    kernel, arguments, configuration = match.groups()
    parts = _split(configuration)
    if not 2 <= len(parts) <= 4 or parts[2:3] not in ([], ["0"]):
        raise RewriteError(f"{name}: {kernel} has the launch {parts}; expected blocks, threads, 0 and a stream")
    return f'emulation::launch("{kernel}", {parts[0]}, {parts[1]}, &{kernel}{arguments}, '


def _split(arguments: str) -> list[str]:
    """At the commas that are in no brackets; < and > may be no brackets."""
    parts, depth = [""], 0
    for char in arguments:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]
