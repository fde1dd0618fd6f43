# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps of real images as what D is taught, as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizer_options import (
    Site,
    describe_res,
    res_option,
    resolve_res,
    resolve_weight,
    weight_option,
)
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from ggdr import Semantic
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment

DEFAULT_WEIGHT = 1.0


@dataclass(frozen=True)
class SemanticSettings:
    """At what size label maps are predicted, of how many classes, and how much it counts."""

    res: int
    weight: float
    classes: int


class SemanticKind:
    """See RegularizerKind."""

    name = "semantic"
    fixed = ("res", "classes")
    of_reals = "label_map"
    options = (
        res_option("semantic", "Size at which D learns to predict the label maps of real images", multiple=False),
        weight_option("semantic", DEFAULT_WEIGHT, "the class-balanced cross-entropy"),
    )

    def resolve(self, command: Mapping[str, Any], site: Site) -> SemanticSettings:
        """Raises OptionError where the host shows no reals, or the data have no label maps."""
        site.check_reals(self.name)
        if site.labels is None:
            text = (
                f"semantic learns from label maps, and {printable(site.data, 1000)} has none: `ggdr dataset` keeps the "
                "label maps of a source that has them (docs/datasets.md), `ggdr dataset shapes DEST` draws some; ggdr "
                "needs none"
            )
            raise OptionError("--regularizer", text)
        (res,) = resolve_res(command, self.name, site)
        return SemanticSettings(res, resolve_weight(command, self.name, DEFAULT_WEIGHT), site.labels.num)

    def read(self, stored: Mapping[str, Any]) -> SemanticSettings:
        """Settings as a run or snapshot stores them; KeyError, TypeError or ValueError if they are damaged."""
        return SemanticSettings(**stored)

    def build(self, attachment: Attachment, settings: SemanticSettings) -> Semantic:
        """It on a host that shows reals."""
        from ggdr import Semantic

        return Semantic(
            attachment.D,
            classes=settings.classes,
            size=settings.res,
            encoder=attachment.encoder,
            probe=attachment.probe,
            weight=settings.weight,
        )

    def panel(self, name: str) -> Panel:
        """The cross-entropy of prediction and label map."""
        from ggdr.torch_utils.gan import Panel

        text = "Label maps predicted from reals"
        return Panel(name, "semantic", text, "cross-entropy, nats", headline=True, axis="zero")

    def summary(self, settings: SemanticSettings) -> str:
        return f"label maps of {settings.classes} classes x{settings.weight:g} at {describe_res([settings.res])}"
