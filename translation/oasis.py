# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""OASIS as the training loop sees it: D segments, and G is to make what D takes for its label map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ggdr.torch_utils.data.label_maps import IGNORED
from ggdr.torch_utils.gan import Batch, Panel, PhaseOutput
from ggdr.torch_utils.regularizers import Attachment
from ggdr.translation.layout import LayoutTask, layout_attachment
from ggdr.translation.layout_config import OASISConfig
from ggdr.translation.layout_losses import (
    class_weights,
    fake_loss,
    labelmix_loss,
    labelmix_mask,
    mixture,
    segmentation_loss,
    share_fake,
    share_right,
)
from ggdr.translation.oasis_networks import OASISDiscriminator, OASISGenerator
from ggdr.translation.translator import OASISTranslator


class OASISTask(LayoutTask):
    """Networks, optimisers and losses of one OASIS run, with regularisers on D's fakes; see LayoutTask.

    The losses are those of the paper; there is no perceptual one. Classes are weighted by their pixels in the batch of
    all processes.

    Source: Sushko et al. 2020, arXiv:2012.04781.
    """

    config: OASISConfig
    G: OASISGenerator
    D: OASISDiscriminator
    translator = OASISTranslator

    def terms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        mixed = ("D_labelmix",) if self.config.labelmix_weight else ()
        return ("D_fake", "D_real", *mixed), ("G_classes",)

    def own_panels(self) -> list[Panel]:
        group, unit = "Pixels by D", "share"
        return [
            Panel("pixels/real", "real as their class", group, unit, axis="zero"),
            Panel("pixels/fake", "fake as fake", group, unit, axis="zero"),
            Panel("pixels/fooled", "fake as their class", group, unit, axis="zero"),
        ]

    @torch.no_grad()
    def segment(self, img: Tensor) -> Tensor:
        """What D sees in images, [N, C, H, W] float32 in [-1, 1], whose training goes on as if it had not looked.

        Returns:
            uint8 [N, 1, H, W] on the CPU: classes from 0, and `labels.IGNORED` for "fake".
        """
        self.D.eval()
        try:
            found = torch.cat([self.D(x.to(self.group.device)).argmax(dim=1, keepdim=True) for x in img.split(8)])
        finally:
            self.D.train()
        return torch.where(found > 0, found - 1, IGNORED).to("cpu", torch.uint8)

    def _draw_D(self, n: int, parts: int) -> dict[str, Any]:
        """One coin for each class, the same for all images."""
        draws = super()._draw_D(n, parts)
        if self.config.labelmix_weight:
            coins = torch.randint(2, [1, self.labels.num + 1], generator=self.cpu_rng).float()
            draws["coins"] = coins.to(self.group.device).expand(n, -1)
        return draws

    def _weights(self, layout: Tensor) -> Tensor:
        counts = self.group.sum_(layout.sum(dim=(0, 2, 3)))
        return class_weights(counts, layout[:, 0].numel() * self.group.world)

    def _D_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        layout, real = batch["A"], batch["B"]
        mask = labelmix_mask(layout, draws["coins"]) if "coins" in draws else None
        with self.regularizers[""].watch() as feats:
            with torch.no_grad():
                fake = self.make(layout, draws["seeds"])
                mixed = [] if mask is None else [mixture(mask, real, fake)]
            of_fake, of_real, *of_mixed = self.D(torch.cat([fake, real, *mixed])).split(len(fake))
        guided = self.regularizers[""].penalties(feats, fakes=slice(0, len(fake)), draws=draws.get("regularizers"))
        weights = self._weights(layout)
        losses = {"D_fake": fake_loss(of_fake), "D_real": segmentation_loss(of_real, layout, weights)}
        for logits in of_mixed:
            losses["D_labelmix"] = labelmix_loss(logits, of_real, of_fake, mask) * self.config.labelmix_weight
        observed = {"pixels/fake": share_fake(of_fake), "pixels/real": share_right(of_real, layout)}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        layout = batch["A"]
        logits = self.D(self.make(layout, draws["seeds"]))
        loss = segmentation_loss(logits, layout, self._weights(layout))
        return PhaseOutput({"G_classes": loss}, {"pixels/fooled": share_right(logits, layout)})


def oasis_attachment(G: OASISGenerator, D: OASISDiscriminator, resolution: int) -> Attachment:
    """Where regularisers take hold of OASIS; see `layout_attachment`."""
    return layout_attachment(G, D, lambda layout, img: D(img), resolution)
