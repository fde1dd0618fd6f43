# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: no test begins after $GGDR_ACCEPT_UNTIL (seconds since 1970), and those before are reported."""

from __future__ import annotations

import os
import time
from typing import Any

UNTIL = "GGDR_ACCEPT_UNTIL"
TIME_IS_UP = "the time is up"


def pytest_runtest_teardown(item: Any) -> None:
    """Called by pytest after each test."""
    if time.time() > float(os.environ[UNTIL]):
        item.session.shouldstop = TIME_IS_UP
