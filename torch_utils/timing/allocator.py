# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of the allocators: the C library's, and PyTorch's on a GPU."""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4

# PyTorch up to 2.8 reads the first of them, later ones both; 2.9 takes what is meant here from the first one alone.
_CUDA_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def keep_freed_memory() -> bool:
    """Lets a training process on a CPU keep the memory that its tensors free, for the tensors of the next step.

    glibc gives every block above some MiB back to the kernel when it is freed, and the kernel hands out zeroed pages
    for the next one: page by page, that costs more than the arithmetic on it. The peak of memory stays as it was;
    between peaks it is not given back.

    Returns whether it took effect: not on other C libraries, and not where the user tuned glibc's allocator
    (MALLOC_* or GLIBC_TUNABLES in the environment).
    """
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(name, value) for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    )


def grow_gpu_segments() -> bool:
    """Lets PyTorch's memory on a GPU grow in place, for a training whose tensors change their sizes.

    ADA moves images by margins that are new in each iteration. In segments of a fixed size their blocks leave gaps that
    nothing fits into later.

    To be called before CUDA is initialised. Returns whether it took effect: on Linux with CUDA alone, and not where the
    user set an allocator option in the environment.

    Source: PyTorch's notes on CUDA semantics, "Optimizing memory usage": expandable_segments.
    """
    import torch

    tuned = any(name in os.environ for name in (*_CUDA_VARIABLES, "PYTORCH_HIP_ALLOC_CONF"))
    if tuned or platform.system() != "Linux" or torch.version.cuda is None or torch.cuda.is_initialized():
        return False
    os.environ.update(dict.fromkeys(_CUDA_VARIABLES, "expandable_segments:True"))
    return True
