# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Locks between processes, on files that tell who holds them; the system lets go however the holder ends.

They are filelock's locks of open files. Its FileLock empties the file, removes it at the end, or waits without end
where there are no locks, each in some of its versions.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ggdr.torch_utils.untrusted.regular_files import open_no_link
from ggdr.torch_utils.untrusted.text import printable

try:
    from filelock import lock_descriptor, unlock_descriptor
except ImportError:  # torch brought an older one, and the extra `app`, which asks for this one, was not installed
    lock_descriptor = None

MAX_HOLDER = 300  # characters; a host's name has 255 at most
TRIES, PAUSE = 4, 0.02  # a look at whether a file is locked, or another one's, locks it for a moment


@contextmanager
def process_lock(path: Path, on_busy: Callable[[str], None]) -> Iterator[bool]:
    """Holds the lock of a file, which is made if need be, and stays.

    Args:
        on_busy: gets the holder, as "123 on host", if there is one; raises, or returns to wait for it.

    Yields:
        Whether it is held; False on a file system without locks, and with filelock before 3.30: nobody is kept out.

    Raises:
        OSError: the file is a link, or cannot be opened or written to.
    """
    with open_no_link(path, "a+") as file:
        is_held = _try_lock(file)
        if is_held is False:
            on_busy(_holder(file))
            is_held = lock_descriptor(file.fileno())
        try:
            if is_held:
                file.truncate(0)
                file.write(f"{os.getpid()} on {platform.node()}")
                file.flush()
            yield bool(is_held)
        finally:
            if is_held:
                unlock_descriptor(file.fileno())  # also of children that inherited the open file


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file; None where the system cannot tell. Changes nothing."""
    try:
        # Over NFS only a file that is open to be written to can be locked.
        with open_no_link(path, "r+b" if os.access(path, os.W_OK) else "rb") as file:
            is_free = _try_lock(file)
            if is_free:
                unlock_descriptor(file.fileno())
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return None if is_free is None else not is_free


def _try_lock(file: IO) -> bool | None:
    """Locks an open file; False if another process has, None where there are no locks."""
    if lock_descriptor is None:
        return None
    for pause in (*[PAUSE] * (TRIES - 1), 0.0):
        try:
            if lock_descriptor(file.fileno(), blocking=False):
                return True
        except OSError:
            return None
        time.sleep(pause)
    return False


def _holder(file: IO[str]) -> str:
    """Who holds a locked file; "?" between its locking and its writing, and on Windows, which locks its text, too."""
    file.seek(0)
    with suppress(OSError, UnicodeDecodeError):
        return printable(file.read(MAX_HOLDER)) or "?"
    return "?"
