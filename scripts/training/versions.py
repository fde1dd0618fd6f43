# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""With which software a run is computed."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ggdr

GIT_SECONDS = 5.0  # a git that takes longer is not waited for
# No locks taken, and no program of the repository's settings started.
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


@functools.cache
def _own_versions() -> dict[str, str]:
    """Version of this project and, where its code lies in a git checkout of its own, the commit; once a process."""
    try:
        found = {"ggdr": version("ggdr")}
    except PackageNotFoundError:
        found = {"ggdr": "not installed"}
    commit = read_commit(Path(ggdr.__file__).resolve().parents[1])
    return found if commit is None else {**found, "commit": commit}


def installed_versions() -> dict[str, str]:
    """Versions of this project, Python, torch and numpy, and this project's commit if it is known."""
    import numpy as np
    import torch

    others = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {**_own_versions(), **others}


def read_commit(root: Path) -> str | None:
    """The commit that is checked out in `root`, " with changes" behind it if tracked files differ from it.

    None if `root` is no checkout by itself, as a package that is installed below another project is not, or git is
    absent or does not answer.
    """
    answer = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    if answer is None or len(answer.splitlines()) != 2:
        return None
    top, commit = answer.splitlines()
    if Path(top).resolve() != root:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit if changes == "" else f"{commit} with changes"


def _git(root: Path, *words: str) -> str | None:
    """What git prints; None if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        result = subprocess.run(
            [*GIT, "-C", str(root), *words],
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
