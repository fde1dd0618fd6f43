# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The segmenter that judges the snapshots of a run, as `ggdr translate train` knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggdr.metrics.names import OF_CLASSES, parse_metric
from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.segmenter import SEGMENTER


@dataclass(frozen=True)
class SegmenterSettings:
    """Which segmenter it is.

    Attributes:
        name:   of its file, or module:function.
        digest: 16 hex digits of the file, or of the weights or source of what is code.
    """

    name: str
    digest: str


def resolve_segmenter(name: Path | str | None, metrics: Sequence[str]) -> SegmenterSettings | None:
    """The segmenter of an option, if metrics ask for one.

    Raises:
        OptionError: it cannot be loaded, is missing, or nothing asks for it.
    """
    asking = [metric for metric in metrics if parse_metric(metric).kind in OF_CLASSES]
    if not asking:
        if name is not None:
            raise OptionError(SEGMENTER, f"no metric asks for it; name {', '.join(OF_CLASSES)} in --metrics")
        return None
    if name is None:
        wanted = "a file of `ggdr segmenter train`, or module:function; to resume, give again what is code"
        raise OptionError(SEGMENTER, f"--metrics {asking[0]} needs one: {wanted}")
    from ggdr.metrics.segmenter import load_segmenter
    from ggdr.torch_utils.downloads import WeightsError

    try:
        return SegmenterSettings(str(name), load_segmenter(name).digest)
    except WeightsError as error:
        raise OptionError(SEGMENTER, str(error).removeprefix(f"{SEGMENTER} ")) from error
