# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What translators of pairs are measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ggdr.metrics.evaluate import Job
from ggdr.metrics.extract import MetricError
from ggdr.scripts.measuring.translation_judge import Direction, Translate, TranslationJudge
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.measured import MeasuredPairs, open_held_out


def open_pairs_judge(
    training: Mapping[str, Any],
    data: Path,
    job: Job,
    load: Callable[[Path, torch.device], Mapping[str, Translate]],
) -> TranslationJudge:
    """Measures translators on the pairs that are held out.

    Args:
        training: the settings of the run that they are of, as they are stored: "crop", "data".
        data:     pairs, with folders of splits or without.

    Raises:
        DataError: there are no pairs, or they cannot be read.
        MetricError: the settings are damaged.
    """
    direction, channels = _of_data(training, "direction", "AtoB"), _of_data(training, "channels", 3)
    pairs, split = open_held_out_pairs(data, direction=direction, channels=channels)
    measured = MeasuredPairs(pairs, stored_crop(training))
    try:
        measured.read([0])
    except DataError as error:
        raise _with_remedy(error, split) from error
    return TranslationJudge([Direction("AtoB", measured, measured.side("B"))], split, job, load)


def open_held_out_pairs(data: Path, *, direction: str, channels: int) -> tuple[PairedImages, str]:
    """The pairs that metrics are measured on, and their split.

    Raises:
        DataError: there are none, or they are not what they should be; says what to do about it.
        MetricError: direction or channels are none.
    """
    try:
        return open_held_out(data, PairedImages, direction=direction, channels=channels)
    except DataError as error:
        raise _with_remedy(error, "held-out") from error
    except ValueError as error:
        raise MetricError(f"settings of the snapshot's training are damaged: {printable(error)}") from error


def stored_crop(training: Mapping[str, Any]) -> CropConfig:
    """The crop of stored settings; that of published ones where there is none. Raises MetricError if it is damaged."""
    crop = training.get("crop", {})
    try:
        return CropConfig(**crop)
    except (TypeError, ValueError) as error:
        raise MetricError(f"settings of the snapshot's training are damaged: crop: {printable(error)}") from error


def _of_data(training: Mapping[str, Any], name: str, default: Any) -> Any:
    """A setting of the training set."""
    data = training.get("data")
    return data.get(name, default) if isinstance(data, Mapping) else default


def _with_remedy(error: DataError, which: str) -> DataError:
    return DataError(f"{error} (of the {which} images, which metrics are measured on)")
