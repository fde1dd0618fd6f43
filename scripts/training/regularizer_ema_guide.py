# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR guided by the averaged generator, as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizer_ggdr import COSINE, DEFAULT_WEIGHT
from ggdr.scripts.training.regularizer_options import (
    Site,
    describe_res,
    res_option,
    resolve_res,
    resolve_weight,
    weight_option,
)

if TYPE_CHECKING:
    from ggdr import EMAGuide
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment


@dataclass(frozen=True)
class EMAGuideSettings:
    """What of the averaged G is predicted, and how much it counts."""

    guide_res: tuple[int, ...]
    weight: float


class EMAGuideKind:
    """See RegularizerKind."""

    name = "ema-guide"
    fixed = ("guide_res",)
    options = (
        res_option("ema-guide", "Feature map of the averaged G that D learns to predict"),
        weight_option("ema-guide", DEFAULT_WEIGHT, "the cosine distance"),
    )

    def resolve(self, command: Mapping[str, Any], site: Site) -> EMAGuideSettings:
        """Raises OptionError where the host keeps no average."""
        if not site.has_average:
            text = "ema-guide needs a moving average of the generator, and this model keeps none; ggdr needs none"
            raise OptionError("--regularizer", text)
        weight = resolve_weight(command, self.name, DEFAULT_WEIGHT)
        return EMAGuideSettings(resolve_res(command, self.name, site), weight)

    def read(self, stored: Mapping[str, Any]) -> EMAGuideSettings:
        """Settings as a run or snapshot stores them; KeyError, TypeError or ValueError if they are damaged."""
        return EMAGuideSettings(tuple(stored["guide_res"]), stored["weight"])

    def build(self, attachment: Attachment, settings: EMAGuideSettings) -> EMAGuide:
        """It on a host that keeps an average."""
        from ggdr import EMAGuide

        assert attachment.G_ema is not None
        return EMAGuide(
            attachment.G,
            attachment.D,
            G_ema=attachment.G_ema,
            part=attachment.called,
            guide=[attachment.guides[res] for res in settings.guide_res],
            encoder=attachment.encoder,
            probe=attachment.probe,
            weight=settings.weight,
        )

    def panel(self, name: str) -> Panel:
        """The distance of prediction and truth."""
        from ggdr.torch_utils.gan import Panel

        return Panel(name, "ema-guide", "Cosine distance from the averaged G", COSINE, headline=True)

    def summary(self, settings: EMAGuideSettings) -> str:
        return f"GGDR of the averaged G x{settings.weight:g} at {describe_res(settings.guide_res)}"
