# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggdr.scripts.training.regularizer_options import (
    Site,
    describe_res,
    res_option,
    resolve_res,
    resolve_weight,
    weight_option,
)

if TYPE_CHECKING:
    from ggdr import GGDR
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment

DEFAULT_WEIGHT = 10.0
COSINE = "1 \N{MINUS SIGN} cosine similarity"


@dataclass(frozen=True)
class GGDRSettings:
    """What of G is predicted, and how much it counts."""

    guide_res: tuple[int, ...]
    weight: float


def guided(attachment: Attachment, settings: Any) -> dict[str, Any]:
    """What all that predict feature maps of G are given: guide, encoder, probe and weight.

    Args:
        settings: with `guide_res` and `weight`.
    """
    return {
        "guide": [attachment.guides[res] for res in settings.guide_res],
        "encoder": attachment.encoder,
        "probe": attachment.probe,
        "weight": settings.weight,
    }


class GGDRKind:
    """See RegularizerKind."""

    name = "ggdr"
    fixed = ("guide_res",)
    options = (
        res_option("ggdr", "Feature map of G that D learns to predict"),
        weight_option("ggdr", DEFAULT_WEIGHT, "the cosine distance"),
    )

    def resolve(self, command: Mapping[str, Any], site: Site) -> GGDRSettings:
        """Guides from 8 pixels up."""
        return GGDRSettings(resolve_res(command, self.name, site), resolve_weight(command, self.name, DEFAULT_WEIGHT))

    def read(self, stored: Mapping[str, Any]) -> GGDRSettings:
        """Settings as a run or snapshot stores them; KeyError, TypeError or ValueError if they are damaged."""
        return GGDRSettings(tuple(stored["guide_res"]), stored["weight"])

    def build(self, attachment: Attachment, settings: GGDRSettings) -> GGDR:
        """GGDR on a host."""
        from ggdr import GGDR

        return GGDR(attachment.G, attachment.D, **guided(attachment, settings))

    def panel(self, name: str) -> Panel:
        """The distance of prediction and truth."""
        from ggdr.torch_utils.gan import Panel

        return Panel(name, "ggdr", "GGDR cosine distance", COSINE, headline=True)

    def summary(self, settings: GGDRSettings) -> str:
        return f"GGDR x{settings.weight:g} at {describe_res(settings.guide_res)}"
