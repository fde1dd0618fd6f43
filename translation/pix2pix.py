# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""pix2pix as the training loop sees it: a phase for D and one for G, with regularisers on D's fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.translation.attachment import attachment
from ggdr.translation.config import Pix2PixConfig
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.host import TranslationHost, judge_both
from ggdr.translation.losses import l1_distance
from ggdr.translation.translator import Pix2PixTranslator


class Pix2PixTask(TranslationHost):
    """Networks, optimisers and losses of one pix2pix run, with regularisers on D's fakes.

    Its batches are {"A": [N, in_channels, H, W], "B": [N, out_channels, H, W]}, float32 in [-1, 1]: G makes B of A, and
    D judges both together. Batch norms see the share of a batch that one forward has. With `labels` A are label maps of
    these classes, as `one_hot` gives them; snapshots have the classes under "labels".

    Source: Isola et al. 2016, arXiv:1611.07004.

    Raises:
        ValueError: a regulariser is called as a network or a loss term is.
    """

    config: Pix2PixConfig

    def __init__(
        self,
        G: ResnetGenerator | UnetGenerator,
        D: nn.Module,
        config: Pix2PixConfig,
        *,
        regularizers: Regularizers | None = None,
        labels: LabelClasses | None = None,
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
        half_dtype: torch.dtype | None = None,
    ) -> None:
        self.G, self.D, self.labels = G, D, labels
        regularizers = regularizers or Regularizers()
        super().__init__(
            {"G": G, "D": D},
            config,
            regularizers={"": regularizers},
            pictures=pictures,
            group=group,
            seed=seed,
            half_dtype=half_dtype,
        )
        weights = {"G_gan": config.gan_weight, "G_l1": config.l1_weight}
        G_terms = tuple(name for name, weight in weights.items() if weight)
        G_params, D_params = list(G.parameters()), [*D.parameters(), *regularizers.parameters()]
        self._start(
            [
                Phase("D", D_params, self.adam(D_params), self._D_losses, ("D_fake", "D_real"), self._draw_D),
                Phase("G", G_params, self.adam(G_params), self._G_losses, G_terms, self._draw),
            ],
            [
                *(Panel(f"score/{name}", name, "Discriminator scores", "mean logit") for name in ("real", "fake")),
                Panel("l1", "L1", "Distance from the target", "mean |difference|", headline=True, axis="zero"),
                *regularizers.panels,
                Panel("rate", "rate", "Learning rate", detail=True, axis="zero"),
            ],
        )

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """See TranslationHost.snapshot."""
        states, config = super().snapshot()
        return states, config if self.labels is None else {**config, "labels": self.labels.to_json()}

    # Forward passes.

    def _draw(self, n: int, parts: int) -> dict[str, Tensor]:
        return {"seeds": self.draw_seeds(n)}

    def _draw_D(self, n: int, parts: int) -> dict[str, Any]:
        return {**self._draw(n, parts), "regularizers": self.regularizers[""].draw(n, self.cpu_rng)}

    def _D_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        fake_logits, real_logits, guided = judge_both(
            lambda: torch.cat([batch["A"], self.G(batch["A"], draws["seeds"])], dim=1),
            torch.cat([batch["A"], batch["B"]], dim=1),
            self.D,
            self.regularizers[""],
            drawn=draws.get("regularizers"),
        )
        # Halved, so that D learns more slowly than G.
        losses = {"D_fake": self._loss(fake_logits, False) / 2, "D_real": self._loss(real_logits, True) / 2}
        logits = {"fake": fake_logits, "real": real_logits}
        observed = {f"score/{name}": x.detach().flatten(1).mean(dim=1) for name, x in logits.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        fake = self.G(batch["A"], draws["seeds"])
        l1 = l1_distance(fake, batch["B"])
        losses = {}
        if self.config.gan_weight:
            losses["G_gan"] = self._loss(judge(self.D, batch["A"], fake), True) * self.config.gan_weight
        if self.config.l1_weight:
            losses["G_l1"] = l1 * self.config.l1_weight
        return PhaseOutput(losses, {"l1": l1.detach()})

    def translate(self, img: Tensor, *, seed: int = 0) -> Tensor:
        """G's images of A, [N, in_channels, H, W] -> [N, out_channels, H, W] on the CPU; see Translator."""
        return Pix2PixTranslator(self.G)(img, seed=seed)


def judge(D: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """D's logits of an input and an output of G, which it sees together."""
    return D(torch.cat([a, b], dim=1))


def pix2pix_attachment(G: ResnetGenerator | UnetGenerator, D: nn.Module, resolution: int) -> Attachment:
    """Where regularisers take hold of pix2pix; see `attachment`."""
    return attachment(G, D, lambda a, b: judge(D, a, b), resolution)
