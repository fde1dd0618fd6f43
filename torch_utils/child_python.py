# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Python processes that take no module from the current folder, which may be a download of someone's images.

`python -m` and `python -c`, by which multiprocessing starts workers, look there first.
"""

from __future__ import annotations

import os
import sys


def module_command(module: str) -> list[str]:
    """What starts a module as `python -m` does; its own words follow."""
    return [sys.executable, __file__, module]


def keep_current_folder_out() -> None:
    """From now on, no Python process that this one starts looks for modules in the current folder.

    multiprocessing's workers get the paths of this process instead.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    if sys.version_info < (3, 11):  # which does not know the variable
        from multiprocessing import util

        flags = util._args_from_interpreter_flags
        util._args_from_interpreter_flags = lambda: [*flags(), "-I"]


def _run_module() -> None:
    """In a process that `module_command` started."""
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # the folder of this file
    import runpy

    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run_module()
