# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path


def cache_folder(content: str) -> Path:
    """The folder of one kind of content, as "ops", below $GGDR_CACHE or ggdr/ in the user's cache folder.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if folder := os.environ.get("GGDR_CACHE"):
        return Path(folder).expanduser().absolute() / content
    if sys.platform == "darwin":
        return Path("~/Library/Caches/ggdr").expanduser() / content
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ggdr" / content


def private_temporary_folder(content: str) -> Path:
    """A folder like `cache_folder` below the system's temporary one, for where that cannot be written to.

    It is made if it is missing, and is nobody else's: others could put there what this user would run.

    Raises:
        OSError: it cannot be made, or is not this user's alone.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"ggdr-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_mine = not hasattr(os, "getuid") or (found.st_uid == user and not found.st_mode & 0o077)
    if not stat.S_ISDIR(found.st_mode) or not is_mine:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder / content
