# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The option that names a segmenter, a file or code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.training.snapshot_files import SNAPSHOT_SUFFIX

SEGMENTER = "--segmenter"
CODE = "a function of the device that returns a callable from images float32 [N,3,H,W] in [-1,1] to logits "
CODE += "[N,classes,h,w]"


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
    what = f"{text}: a file of `ggdr segmenter train`, or {CODE}."
    return click.option(SEGMENTER, metavar="FILE|MODULE:FUNCTION", type=SegmenterName(), required=required, help=what)
