# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber

if TYPE_CHECKING:
    from ggdr import GGDR
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment

MAX_DEFAULT_RES = 64
DEFAULT_WEIGHT = 10.0


@dataclass(frozen=True)
class GGDRSettings:
    """What of G is predicted, and how much it counts."""

    guide_res: tuple[int, ...]
    weight: float


class GGDRKind:
    """See RegularizerKind."""

    name = "ggdr"
    fixed = ("guide_res",)
    options = (
        click.option("--ggdr/--no-ggdr", default=True, help="Generator-guided discriminator regularisation."),
        click.option(
            "--ggdr-res",
            type=WholeNumber(min=8),
            metavar="PIXELS",
            multiple=True,
            help="Feature map of G that D learns to predict; may be given several times."
            "  [default: the one nearest to resolution / 4, from 8 to 64]",
        ),
        click.option(
            "--ggdr-weight",
            type=FiniteFloat(min=0),
            metavar="FLOAT",
            help="Weight of the cosine distance; 0 only measures it: the decoder learns, D is trained as without."
            f"  [default: {DEFAULT_WEIGHT:g}]",
        ),
    )

    def resolve(self, command: Mapping[str, Any], resolution: int, guides: Sequence[int]) -> GGDRSettings | None:
        """Guides from 8 pixels up."""
        if not command["ggdr"]:
            given = {"--ggdr-res": command.get("ggdr_res") or None, "--ggdr-weight": command.get("ggdr_weight")}
            for option, value in given.items():
                if value is not None:
                    raise OptionError(option, "needs --ggdr, got --no-ggdr")
            return None
        allowed = [res for res in guides if res >= 8]
        default = max(min(MAX_DEFAULT_RES, resolution // 4), 8)
        nearest = min(allowed, key=lambda res: abs(res - default), default=default)
        guide_res = tuple(command.get("ggdr_res") or ()) or (nearest,)
        for res in guide_res:
            if res not in allowed:
                raise OptionError("--ggdr-res", f"{res} is not among the feature maps {', '.join(map(str, allowed))}")
        weight = command.get("ggdr_weight")
        return GGDRSettings(tuple(sorted(set(guide_res))), DEFAULT_WEIGHT if weight is None else weight)

    def read(self, stored: Mapping[str, Any]) -> GGDRSettings:
        """Settings as a run or snapshot stores them; KeyError, TypeError or ValueError if they are damaged."""
        return GGDRSettings(tuple(stored["guide_res"]), stored["weight"])

    def build(self, attachment: Attachment, settings: GGDRSettings) -> GGDR:
        """GGDR on a host."""
        from ggdr import GGDR

        return GGDR(
            attachment.G,
            attachment.D,
            guide=[attachment.guides[res] for res in settings.guide_res],
            encoder=attachment.encoder,
            probe=attachment.probe,
            weight=settings.weight,
        )

    def panel(self, name: str) -> Panel:
        """The distance of prediction and truth."""
        from ggdr.torch_utils.gan import Panel

        return Panel(name, "ggdr", "GGDR cosine distance", "1 \N{MINUS SIGN} cosine similarity", headline=True)

    def summary(self, settings: GGDRSettings) -> str:
        return f"GGDR x{settings.weight:g} at {', '.join(f'{res}x{res}' for res in settings.guide_res)}"
