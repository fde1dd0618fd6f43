# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""pix2pix as the training loop sees it: a phase for D and one for G, with regularisers on D's fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.moments import load_moments
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.translation.attachment import attachment
from ggdr.translation.config import Pix2PixConfig
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.losses import cross_entropy, l1_distance, least_squares
from ggdr.translation.snapshot import Translator

LOGIT_LOSSES = {"cross_entropy": cross_entropy, "least_squares": least_squares}
MAX_SEED = 2**62


class Pix2PixTask:
    """Networks, optimisers and losses of one pix2pix run, with regularisers on D's fakes.

    Its batches are {"A": [N, in_channels, H, W], "B": [N, out_channels, H, W]}, float32 in [-1, 1]: G makes B of A, and
    D judges both together. Batch norms see the share of a batch that one forward has.

    What dropout does is drawn from one generator on the CPU, in the same state on every process; see Phase.draw.

    Source: Isola et al. 2016, arXiv:1611.07004.

    Raises:
        ValueError: a regulariser is called as a network or a loss term is.
    """

    def __init__(
        self,
        G: ResnetGenerator | UnetGenerator,
        D: nn.Module,
        config: Pix2PixConfig,
        *,
        regularizers: Regularizers | None = None,
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        self.G, self.D, self.config = G.train(), D.train(), config
        self.regularizers = regularizers or Regularizers()
        self.pictures = list(pictures)
        self.group = group or ProcessGroup()
        self.cpu_rng = torch.Generator("cpu").manual_seed(seed)
        self._loss = LOGIT_LOSSES[config.gan_loss]
        G_params, D_params = list(G.parameters()), [*D.parameters(), *self.regularizers.parameters()]
        betas = (config.beta1, config.beta2)
        G_opt, D_opt = (torch.optim.Adam(params, config.lr, betas, fused=True) for params in (G_params, D_params))
        self.phases = [
            Phase("D", D_params, D_opt, self._D_losses, ("D_fake", "D_real"), self._draw),
            Phase("G", G_params, G_opt, self._G_losses, ("G_gan", "G_l1"), self._draw),
        ]
        self._set_rate(0)
        self.regularizers.check_names(["G", "D", *(term for phase in self.phases for term in phase.terms)])
        self.panels = [
            *(Panel(f"score/{name}", name, "Discriminator scores", "mean logit") for name in ("real", "fake")),
            Panel("l1", "L1", "Distance from the target", "mean |difference|", headline=True, axis="zero"),
            *self.regularizers.panels,
            Panel("rate", "rate", "Learning rate", detail=True, axis="zero"),
        ]

    # Forward passes.

    def _draw(self, n: int, parts: int) -> dict[str, Tensor]:
        """What dropout draws from, for n images."""
        return {"seeds": torch.randint(MAX_SEED, [n], generator=self.cpu_rng)}

    def _D_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        with self.regularizers.watch() as feats:
            with torch.no_grad():
                fake = self.G(batch["A"], draws["seeds"])
            fake_logits = judge(self.D, batch["A"], fake)
        guided = self.regularizers.penalties(feats)
        real_logits = judge(self.D, batch["A"], batch["B"])
        # Halved, so that D learns more slowly than G.
        losses = {"D_fake": self._loss(fake_logits, False) / 2, "D_real": self._loss(real_logits, True) / 2}
        logits = {"fake": fake_logits, "real": real_logits}
        observed = {f"score/{name}": x.detach().flatten(1).mean(dim=1) for name, x in logits.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        fake = self.G(batch["A"], draws["seeds"])
        l1 = l1_distance(fake, batch["B"])
        adversarial = self._loss(judge(self.D, batch["A"], fake), True)
        return PhaseOutput({"G_gan": adversarial, "G_l1": l1 * self.config.l1_weight}, {"l1": l1.detach()})

    def translate(self, img: Tensor, *, seed: int = 0) -> Tensor:
        """G's images of A, [N, in_channels, H, W] -> [N, out_channels, H, W] on the CPU; see Translator."""
        return Translator(self.G)(img, seed=seed)

    # Between iterations.

    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        """Sets the learning rate of the next iteration."""
        self._set_rate(nimg)
        return {"rate": self.config.rate(nimg)}

    def _set_rate(self, nimg: int) -> None:
        self.nimg = nimg
        for phase in self.phases:
            for group in phase.optimizer.param_groups:
                group["lr"] = self.config.rate(nimg)

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """State dicts of G, D and the regularisers, and the settings that G and D are built from."""
        networks = {"G": self.G.state_dict(), "D": self.D.state_dict(), **self.regularizers.state_dicts()}
        return networks, {"G": self.G.config.to_json(), "D": self.D.config.to_json()}

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        return {
            "networks": self.snapshot()[0],
            "optimizers": [phase.optimizer.state_dict() for phase in self.phases],
            "cpu_rng": self.cpu_rng.get_state(),
            "nimg": self.nimg,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave; raises ValueError if moments do not fit."""
        self.load_networks(state["networks"])
        for phase, saved in zip(self.phases, state["optimizers"], strict=True):
            load_moments(phase.optimizer, saved)
        self.cpu_rng.set_state(state["cpu_rng"])
        self._set_rate(state["nimg"])

    def load_networks(self, networks: Mapping[str, dict[str, Tensor]]) -> None:
        """Loads G, D and the regularisers; all must be in `networks` and fit."""
        self.G.load_state_dict(networks["G"], strict=True)
        self.D.load_state_dict(networks["D"], strict=True)
        self.regularizers.load_state_dicts(networks)


def judge(D: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """D's logits of an input and an output of G, which it sees together."""
    return D(torch.cat([a, b], dim=1))


def pix2pix_attachment(G: ResnetGenerator | UnetGenerator, D: nn.Module, resolution: int) -> Attachment:
    """Where regularisers take hold of pix2pix; see `attachment`."""
    return attachment(G, D, lambda a, b: judge(D, a, b), resolution)
