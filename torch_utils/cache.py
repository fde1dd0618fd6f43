# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
import sys
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
