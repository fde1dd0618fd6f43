# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The random calls on the emulation find faults that are planted in copies of the CUDA sources, one at a time."""

from __future__ import annotations

import re
import shutil

import pytest

from ggdr.torch_utils.ops import build
from tests.conftest import python

CODE = """
import os
import sys
from pathlib import Path
import torch
from ggdr.torch_utils.ops.build import load_library
from tests.torch_utils.ops.emulation.library import load_emulation
from tests.torch_utils.ops.emulation.random_cases import check_random_cases
torch.set_num_threads(1)
load_library("cpu")  # it has the derivatives, and is in the cache of all tests
operation, os.environ["GGDR_CACHE"] = sys.argv[2:]
emulation = load_emulation(Path(sys.argv[1]), f"{operation}.cu")
with emulation.in_place_of_the_cpu():
    check_random_cases(emulation, operation, num=150)
print("nothing found")
"""

# What is wrong: the operation, and the text of one of its sources that is replaced.
FAULTS = {
    "a store beyond the last value": (
        *("bias_act", "bias_act.cu"),
        *("if (i + k < numel) out[i + k] = pack.values[k];", "out[i + k] = pack.values[k];"),
    ),
    "a load beyond the last value": (
        *("bias_act", "bias_act.cu"),
        *("if (i + k < numel) pack.values[k] = x[i + k];", "pack.values[k] = x[i + k];"),
    ),
    "the first value's channel for all of a pack": (
        *("bias_act", "bias_act.cu"),
        *("divide(i + k, inner, small)", "divide(i, inner, small)"),
    ),
    "the alignment of a tensor is not looked at": (
        *("bias_act", "bias_act.cu"),
        *("is_aligned(g) && is_aligned(ref) && is_aligned(out)", "is_aligned(g) && is_aligned(out)"),
    ),
    "the clamp before the gain": (
        *("bias_act", "bias_act.h"),
        "    y = y * gain;\n    y = y > bound ? bound : y;\n    return y < -bound ? -bound : y;",
        "    y = y > bound ? bound : y;\n    y = y < -bound ? -bound : y;\n    return y * gain;",
    ),
    "no barrier before samples are read": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("    __syncthreads();\n    float sums[kSpan] = {};", "    float sums[kSpan] = {};"),
    ),
    "no barrier before samples are replaced": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("    }\n    __syncthreads();\n  }\n}", "    }\n  }\n}"),
    ),
    "samples of a tile that are not loaded": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("k < size * size;", "k < size * (size - 1);"),
    ),
    "a halo too small by one": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("size = ((kTile - 1) * down + 3) / up + 1;", "size = ((kTile - 1) * down + 2) / up + 1;"),
    ),
    "the stride of a contiguous image for any": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("static_cast<float>(image[iy * in.y + ix * in.x])", "static_cast<float>(image[iy * column.in + ix])"),
    ),
    "a filter that is not turned around": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("(f.flip ? stored[i] : stored[15 - i])", "stored[i]"),
    ),
    "a sum in the type of the image": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("    A sum = 0;", "    In sum = 0;"),
    ),
    "samples before the first": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("if (0 <= ix && ix < column.in) sum", "if (ix < column.in) sum"),
    ),
    "blocks that do one tile each": (
        *("upfirdn2d", "upfirdn2d.cu"),
        "for (int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {",
        "if (const int64_t i = blockIdx.x; i < tiles) {",
    ),
    "a grid without a limit": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("std::min<int64_t>(tiles, 1 << 20)", "tiles"),
    ),
    "a last tile beyond the image": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("if (oy + ty + s >= row.out || ox + tx >= column.out) break;", "if (oy + ty + s >= row.out) break;"),
    ),
    "packs that are not whole are moved at once": (
        *("modulation", "modulation_tiling.h"),
        *("tiling.whole = aligned && row % num == 0;", "tiling.whole = aligned;"),
    ),
    "a strip that ends beyond the image": (
        *("modulation", "modulation_tiling.h"),
        *("end = std::min(tiling.pixels, (strip + 1) * tiling.strip);", "end = (strip + 1) * tiling.strip;"),
    ),
    "the first image's noise for all": (
        *("modulation", "modulation_tiling.h"),
        *("data + image * step + pixel", "data + pixel"),
    ),
    "no barrier before sums are joined": (
        *("modulation", "modulation.cu"),
        *("    partial[rows][t] = noise_sum;\n    __syncthreads();", "    partial[rows][t] = noise_sum;"),
    ),
    "no barrier before sums are replaced": (
        *("modulation", "modulation.cu"),
        *("sum_of(partial[rows], kParts, 1);\n    __syncthreads();", "sum_of(partial[rows], kParts, 1);"),
    ),
    "sums of whole parts of the lanes": (
        *("modulation", "modulation.cu"),
        *("(tiling.lanes - share.lane + kParts - 1) / kParts", "std::max(1, tiling.lanes / kParts)"),
    ),
    "a gradient's sum without the last strip": (
        *("modulation", "modulation.cu"),
        *("all.of[0] = {partial, tiling.images, strips,", "all.of[0] = {partial, tiling.images, strips - 1,"),
    ),
    "a slope where the result was clamped": (
        *("modulation", "modulation.h"),
        *("return size >= bound ? zero : rise;", "return size > bound ? zero : rise;"),
    ),
    "a tangent without the bias": (
        *("modulation", "modulation.cu"),
        *("if (act && shift.b != nullptr)", "if (act && !tangent)"),
    ),
    "no barrier before a filter's norm is read": (
        *("demodulation", "demodulation.cu"),
        "    if (t < half) partial[t] = join(partial[t], partial[t + half]);\n    __syncthreads();",
        "    if (t < half) partial[t] = join(partial[t], partial[t + half]);",
    ),
    "channels and taps in the order of a contiguous tensor": (
        *("demodulation", "demodulation.cu"),
        *("channels_last ? tap * channels + channel : channel * taps + tap", "channel * taps + tap"),
    ),
    "the last images of a filter are left out": (
        *("demodulation", "demodulation.cu"),
        *("groups = ceil_div(shape.images, kLanes)", "groups = std::max<int64_t>(1, shape.images / kLanes)"),
    ),
    "a gradient's factors of another block": (
        *("demodulation", "demodulation.cu"),
        *(
            "      factors[t] = gain * c[filter] * c[filter] * sum;\n    }\n    __syncthreads();",
            "      factors[t] = gain * c[filter] * c[filter] * sum;\n    }",
        ),
    ),
    "a norm's derivative left out of a gradient": (
        *("demodulation", "demodulation.cu"),
        *("out[i] = m[image] * ((gs", "out[i] = ((gs"),
    ),
    "a coefficient's second derivative by a third": (
        *("demodulation", "demodulation.cu"),
        *("A(-1.5) * slope * along[i]", "A(-0.5) * slope * along[i]"),
    ),
    "weights scaled by the first filter's norm": (
        *("demodulation", "demodulation.cu"),
        *("scales[divide(i, row, small)]", "scales[0]"),
    ),
    "a first row that starts between samples": (
        *("upfirdn2d", "upfirdn2d.cu"),
        *("if (row.phase(0) != 0 || std::min", "if (std::min"),
    ),
}


def plant(text: str, old: str, new: str) -> str:
    """A source with a fault; AssertionError if what it replaces is not there once."""
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times, expected once: the source has changed"
    return text.replace(old, new)


@pytest.fixture
def sources(tmp_path):
    """Copies of the CUDA sources and of their headers."""
    for path in build.SOURCE_FOLDER.iterdir():
        if path.suffix in (".cu", ".h"):
            shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def find_faults(compiler, sources, ops_cache):
    """Runs the random calls of an operation on the copies; returns what they say."""
    return lambda operation: python("-c", CODE, sources, operation, sources / "cache").communicate(timeout=1800)[0]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(find_faults, sources, fault):
    operation, name, old, new = FAULTS[fault]
    path = sources / name
    path.write_text(plant(path.read_text(), old, new))
    output = find_faults(operation)
    assert re.search(rf"^AssertionError: {operation}, seed 0, case \d+", output, flags=re.M), output


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted({operation for operation, *_ in FAULTS.values()}))
def test_nothing_is_found_without_a_fault(find_faults, operation):
    assert find_faults(operation).endswith("nothing found\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_fault_replaces_is_there_once(sources, fault):
    _, name, old, new = FAULTS[fault]
    assert plant((sources / name).read_text(), old, new) != (sources / name).read_text()
