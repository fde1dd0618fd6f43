# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR guided by the averaged generator, as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizer_ggdr import COSINE, DEFAULT_WEIGHT, GGDRKind, GGDRSettings, guided
from ggdr.scripts.training.regularizer_options import Site, describe_res, res_option, weight_option

if TYPE_CHECKING:
    from ggdr import EMAGuide
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment


class EMAGuideKind(GGDRKind):
    """See RegularizerKind."""

    name = "ema-guide"
    options = (
        res_option("ema-guide", "Feature map of the averaged G that D learns to predict"),
        weight_option("ema-guide", DEFAULT_WEIGHT, "the cosine distance"),
    )

    def resolve(self, command: Mapping[str, Any], site: Site) -> GGDRSettings:
        """Raises OptionError where the host keeps no average."""
        if not site.has_average:
            text = "ema-guide needs a moving average of the generator, and this model keeps none; ggdr needs none"
            raise OptionError("--regularizer", text)
        return super().resolve(command, site)

    def build(self, attachment: Attachment, settings: GGDRSettings) -> EMAGuide:
        """It on a host that keeps an average."""
        from ggdr import EMAGuide

        assert attachment.G_ema is not None
        average = {"G_ema": attachment.G_ema, "part": attachment.called}
        return EMAGuide(attachment.G, attachment.D, **average, **guided(attachment, settings))

    def panel(self, name: str) -> Panel:
        """The distance of prediction and truth."""
        from ggdr.torch_utils.gan import Panel

        return Panel(name, "ema-guide", "Cosine distance from the averaged G", COSINE, headline=True)

    def summary(self, settings: GGDRSettings) -> str:
        return f"GGDR of the averaged G x{settings.weight:g} at {describe_res(settings.guide_res)}"
