# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files that appear together."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_files(out: Path) -> Iterator[Path]:
    """A path of the same name in a new folder beside it, whose files all move to the place of `out` at the end.

    After an exception none does.
    """
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial"))
    try:
        yield folder / out.name
        for path in sorted(folder.iterdir(), key=lambda path: path.name == out.name):  # what refers to the others, last
            os.replace(path, out.parent / path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
