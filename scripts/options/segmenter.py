# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The option that names a segmenter, a file or code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ggdr.metrics.detectors import SEGMENTERS
from ggdr.scripts.training.snapshot_files import SNAPSHOT_SUFFIX

SEGMENTER = "--segmenter"


class SegmenterName(click.ParamType):
    """A file, which becomes a Path, or code, which stays text: module:function, or TorchScript."""

    name = "segmenter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        return value if isinstance(value, Path) or is_code(value) else Path(value)


def is_code(value: object) -> bool:
    """Whether a value of the option, as a run may store it, names code, which is not run unless it is given again."""
    return isinstance(value, str) and Path(value).suffix != SNAPSHOT_SUFFIX


def segmenter_option(text: str, *, required: bool = False) -> Callable[[Any], Any]:
    """--segmenter of a command; `text` says what it is for."""
    what = f"{text}: {SEGMENTERS}."
    return click.option(SEGMENTER, metavar="FILE|MODULE:FUNCTION", type=SegmenterName(), required=required, help=what)
