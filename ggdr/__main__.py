# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr` and `python -m ggdr`: the command, or one line that says how to install it."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; exit code 2 where its packages are not installed."""
    try:
        from ggdr.scripts.cli import main as command
    except ModuleNotFoundError as error:
        sys.exit(_missing(error.name or ""))
    command()


def _missing(package: str) -> str:
    print(f"ggdr: the command needs {package}; install it with: pip install 'ggdr[app]'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
