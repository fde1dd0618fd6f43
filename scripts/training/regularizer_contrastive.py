# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR with InfoNCE over pixels, as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.training.regularizer_ggdr import guided
from ggdr.scripts.training.regularizer_options import (
    Site,
    describe_res,
    res_option,
    resolve_res,
    resolve_weight,
    weight_option,
)

if TYPE_CHECKING:
    from ggdr import Contrastive
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment

DEFAULT_WEIGHT, DEFAULT_NEGATIVES, DEFAULT_TEMPERATURE = 1.0, 255, 0.07


@dataclass(frozen=True)
class ContrastiveSettings:
    """What of G is predicted, against how many other pixels, and how much it counts."""

    guide_res: tuple[int, ...]
    weight: float
    negatives: int
    temperature: float


class ContrastiveKind:
    """See RegularizerKind."""

    name = "contrastive"
    fixed = ("guide_res",)
    options = (
        res_option("contrastive", "Feature map of G whose pixels D learns to tell apart"),
        weight_option("contrastive", DEFAULT_WEIGHT, "InfoNCE"),
        click.option(
            "--contrastive-negatives",
            type=WholeNumber(min=1),
            metavar="N",
            help="Most other pixels of the image that a pixel is told from; they are drawn."
            f"  [default: {DEFAULT_NEGATIVES}]",
        ),
        click.option(
            "--contrastive-temperature",
            type=FiniteFloat(min=0.001),
            metavar="FLOAT",
            help=f"Divides cosine similarities before the softmax.  [default: {DEFAULT_TEMPERATURE:g}]",
        ),
    )

    def resolve(self, command: Mapping[str, Any], site: Site) -> ContrastiveSettings:
        """Guides from 8 pixels up."""
        negatives, temperature = (command.get(f"contrastive_{name}") for name in ("negatives", "temperature"))
        return ContrastiveSettings(
            resolve_res(command, self.name, site),
            resolve_weight(command, self.name, DEFAULT_WEIGHT),
            DEFAULT_NEGATIVES if negatives is None else negatives,
            DEFAULT_TEMPERATURE if temperature is None else temperature,
        )

    def read(self, stored: Mapping[str, Any]) -> ContrastiveSettings:
        """Settings as a run or snapshot stores them; KeyError, TypeError or ValueError if they are damaged."""
        return ContrastiveSettings(**{**stored, "guide_res": tuple(stored["guide_res"])})

    def build(self, attachment: Attachment, settings: ContrastiveSettings) -> Contrastive:
        """It on a host."""
        from ggdr import Contrastive

        own = {"negatives": settings.negatives, "temperature": settings.temperature}
        return Contrastive(attachment.G, attachment.D, **guided(attachment, settings), **own)

    def panel(self, name: str) -> Panel:
        """InfoNCE of prediction and truth."""
        from ggdr.torch_utils.gan import Panel

        return Panel(name, "contrastive", "InfoNCE over pixels", "cross-entropy, nats", headline=True, axis="zero")

    def summary(self, settings: ContrastiveSettings) -> str:
        return (
            f"InfoNCE x{settings.weight:g} at {describe_res(settings.guide_res)}, {settings.negatives} negatives, "
            f"temperature {settings.temperature:g}"
        )
