# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr` in a process that ends with the one that started it; its words are PID and those of `ggdr`.

Linux sends it SIGTERM when that process ends, however it does, and a run then saves its state. On other systems a run
goes on by itself, and the lock of its folder keeps others out.
"""

from __future__ import annotations

import os
import runpy
import sys

from ggdr.torch_utils.parent_process import stop_with_parent


def end_with(parent: int) -> None:
    """Has this process stopped when its parent ends; at once if that is not the parent any more."""
    stop_with_parent()
    if sys.platform.startswith("linux") and os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    runpy.run_module("ggdr", run_name="__main__", alter_sys=True)
