# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""CC-FPSE as the training loop sees it: D compares images with their label maps at three scales."""

from __future__ import annotations

from typing import Any

import torch

from ggdr.torch_utils.gan import Batch, Panel, PhaseOutput
from ggdr.torch_utils.regularizers import Attachment
from ggdr.translation.cc_fpse_networks import CCFPSEDiscriminator, CCFPSEGenerator
from ggdr.translation.layout import LayoutTask, layout_attachment
from ggdr.translation.layout_config import CCFPSEConfig
from ggdr.translation.losses import feature_distance, hinge, mean_score
from ggdr.translation.translator import CCFPSETranslator


class CCFPSETask(LayoutTask):
    """Networks, optimisers and losses of one CC-FPSE run, with regularisers on D's fakes; see LayoutTask.

    There is no perceptual loss. In training, too, each pixel has noise of its own, of which G takes those that its
    smallest maps have.

    Source: Liu et al. 2019, arXiv:1910.06809.
    """

    config: CCFPSEConfig
    G: CCFPSEGenerator
    D: CCFPSEDiscriminator
    translator = CCFPSETranslator

    def terms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        features = ("G_features",) if self.config.feature_weight else ()
        return ("D_fake", "D_real"), ("G_gan", *features)

    def own_panels(self) -> list[Panel]:
        return [Panel(f"score/{name}", name, "Discriminator scores", "mean logit") for name in ("real", "fake")]

    def _D_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        layout, real = batch["A"], batch["B"]
        n = len(real)
        with self.regularizers[""].watch() as feats:
            with torch.no_grad():
                fake = self.make(layout, draws["seeds"])
            maps, _ = self.D(torch.cat([fake, real]), torch.cat([layout, layout]))
        guided = self.regularizers[""].penalties(feats, fakes=slice(0, n), draws=draws.get("regularizers"))
        of_fake, of_real = [x[:n] for x in maps], [x[n:] for x in maps]
        losses = {"D_fake": hinge(of_fake, False), "D_real": hinge(of_real, True)}
        scores = {"fake": of_fake, "real": of_real}
        observed = {f"score/{name}": mean_score(x).detach() for name, x in scores.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        layout = batch["A"]
        maps, feats = self.D(self.make(layout, draws["seeds"]), layout)
        losses = {"G_gan": -mean_score(maps)}
        if self.config.feature_weight:
            with torch.no_grad():
                _, targets = self.D(batch["B"], layout)
            losses["G_features"] = feature_distance(feats, targets) * self.config.feature_weight
        return PhaseOutput(losses)


def cc_fpse_attachment(G: CCFPSEGenerator, D: CCFPSEDiscriminator, resolution: int) -> Attachment:
    """Where regularisers take hold of CC-FPSE; see `layout_attachment`."""
    return layout_attachment(G, D, lambda layout, img: D(img, layout), resolution)
