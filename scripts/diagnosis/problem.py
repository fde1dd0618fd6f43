# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an installation, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that does not work, or not as well as it could.

    Attributes:
        problem: what.
        remedy:  what to do about it.
        broken:  whether it makes the installation a broken one; else the remedy is advice.
    """

    problem: str
    remedy: str
    broken: bool = False
