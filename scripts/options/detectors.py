# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options that name the files of detectors, one for each in the list that has files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from ggdr.metrics.detectors import DETECTORS, FileOption


def detector_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--detector, --inception and their like."""
    for option in reversed(_options()):
        function = click.option(f"--{option.name}", metavar=option.metavar, help=option.help)(function)
    return function


def given_files(command: Mapping[str, Any]) -> dict[str, str]:
    """Those that were given, by the option; for DetectorFiles."""
    names = [option.name for option in _options()]
    return {name: command[name] for name in names if command[name] is not None}


def _options() -> list[FileOption]:
    return [entry.option for entry in DETECTORS.values() if entry.option is not None]
