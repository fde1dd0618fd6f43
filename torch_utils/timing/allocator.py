# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of the C library's allocator."""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


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
