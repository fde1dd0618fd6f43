# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the hosts that make images of label maps have in common: noise, two learning rates, and a moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ema import ema_beta, update_ema
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.translation.host import TranslationHost
from ggdr.translation.layout_config import CCFPSEGeneratorConfig, LayoutConfig, OASISGeneratorConfig
from ggdr.translation.layout_noise import draw_noise
from ggdr.translation.translator import LayoutTranslator

EMA_RAMPUP = 0.05  # of the images seen so far, which the half-life is at most; as StyleGAN2 has it


class LayoutTask(TranslationHost):
    """Networks, optimisers, noise and moving average of a host of label maps; a subclass has its losses.

    Its batches are {"A": [N, in_channels, H, W], label maps as `one_hot` gives them, "B": [N, out_channels, H, W] in
    [-1, 1]}, float32. Noise in training is of the kind that its translator has. Snapshots also have the moving average,
    G_ema, and the classes under "labels".

    Raises:
        ValueError: a regulariser is called as a network or a loss term is.
    """

    config: LayoutConfig
    translator: type[LayoutTranslator]

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        config: LayoutConfig,
        labels: LabelClasses,
        *,
        regularizers: Regularizers | None = None,
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
        half_dtype: torch.dtype | None = None,
    ) -> None:
        self.G, self.D, self.labels = G, D, labels
        self.G_ema = copy.deepcopy(G).requires_grad_(False)
        regularizers = regularizers or Regularizers()
        super().__init__(
            {"G": G, "D": D, "G_ema": self.G_ema},
            config,
            regularizers={"": regularizers},
            pictures=pictures,
            group=group,
            seed=seed,
            half_dtype=half_dtype,
        )
        self.G_ema.eval()
        G_params, D_params = list(G.parameters()), [*D.parameters(), *regularizers.parameters()]
        D_terms, G_terms = self.terms()
        self._start(
            [
                Phase("D", D_params, self.adam(D_params), self._D_losses, D_terms, self._draw_D),
                Phase("G", G_params, self.adam(G_params), self._G_losses, G_terms, self._draw),
            ],
            [
                *self.own_panels(),
                *regularizers.panels,
                Panel("rate", "rate", "Learning rate", detail=True, axis="zero"),
            ],
        )

    # What a subclass has.

    def terms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the loss terms of D, and of G."""
        raise NotImplementedError

    def own_panels(self) -> list[Panel]:
        """Of what its phases observe."""
        raise NotImplementedError

    def _D_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        raise NotImplementedError

    def _G_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        raise NotImplementedError

    # Random numbers, for the batch of all processes.

    def _draw(self, n: int, parts: int) -> dict[str, Tensor]:
        return {"seeds": self.draw_seeds(n)}

    def _draw_D(self, n: int, parts: int) -> dict[str, Any]:
        return {**self._draw(n, parts), "regularizers": self.regularizers[""].draw(n, self.cpu_rng)}

    def make(self, layout: Tensor, seeds: Tensor) -> Tensor:
        """G's images of label maps with noise of these seeds, int64 [N] on the CPU."""
        return self.G(layout, draw_noise(layout, seeds, self.G.config.noise_channels, self.translator.noise))

    # Between iterations.

    def _set_rate(self, nimg: int) -> None:
        super()._set_rate(nimg)
        for phase in self.phases:
            for group in phase.optimizer.param_groups if phase.name == "D" else ():
                group["lr"] *= self.config.d_lr_factor

    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        """Updates the moving average of G, and sets the learning rates of the next iteration."""
        beta = ema_beta(batch_size, nimg, halflife_kimg=self.config.ema_kimg, rampup=EMA_RAMPUP)
        update_ema(self.G_ema, self.G, beta)
        return super().step_end(nimg, batch_size)

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """See TranslationHost.snapshot; the settings of G_ema are those of G."""
        states, config = super().snapshot()
        del config["G_ema"]
        return states, {**config, "labels": self.labels.to_json()}

    def translate(self, layout: Tensor, *, seed: int = 0) -> Tensor:
        """G_ema's images of A, [N, in_channels, H, W] -> [N, out_channels, H, W] on the CPU; see Translator."""
        return self.translator(self.G_ema, self.labels)(layout, seed=seed)


def layout_guides(config: OASISGeneratorConfig | CCFPSEGeneratorConfig, resolution: int) -> dict[int, str]:
    """The blocks of a generator of label maps by the size of what they make, for images of `resolution` pixels.

    Raises:
        ValueError: the resolution is no multiple of what G needs, so that features and image would not lie alike.
    """
    if resolution % 2**config.ups:
        raise ValueError(
            f"regularisers need images whose side is a multiple of {2**config.ups} for this generator, got {resolution}"
        )
    return {resolution >> (config.ups - i): f"blocks.{i}" for i in range(config.ups + 1)}


def layout_attachment(
    G: nn.Module, D: nn.Module, judge: Callable[[Tensor, Tensor], object], resolution: int
) -> Attachment:
    """Where regularisers take hold: the blocks of G, and the maps of D on the way down.

    Args:
        judge: runs D once on (label maps, images).

    Raises:
        ValueError: see `layout_guides`.
    """
    guides = layout_guides(G.config, resolution)

    def probe() -> None:
        device = next(G.parameters()).device
        layout = torch.zeros([1, G.config.in_channels, resolution, resolution], device=device)
        judge(layout, G(layout, torch.zeros([1, G.config.noise_channels, 1, 1], device=device)))

    return Attachment(G, D, probe, guides, [f"down.{i}" for i in range(D.config.layers)])
