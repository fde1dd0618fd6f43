# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""CycleGAN as the training loop sees it: a phase for each D and one for both G, with regularisers on D's new fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.translation.attachment import attachment
from ggdr.translation.config import CycleGANConfig
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.host import TranslationHost, judge_fakes, of_side, panels_of_side
from ggdr.translation.losses import l1_distance
from ggdr.translation.translator import CycleGANTranslator

Generator = ResnetGenerator | UnetGenerator

OTHER = {"A": "B", "B": "A"}
SIDES = tuple(OTHER)


class CycleGANTask(TranslationHost):
    """Networks, optimisers, losses and pools of one CycleGAN run, with regularisers on D's new fakes.

    Its batches are {"A": [N, C_A, H, W], "B": [N, C_B, H, W]}, float32 in [-1, 1], which are no pairs. As in published
    files, G_A makes B of A and D_A judges it; G_B makes A of B and D_B judges that.

    Each iteration trains D_A and D_B on fakes of the generators as they are, and then the generators.

    Source: Zhu et al. 2017, arXiv:1703.10593.

    Raises:
        ValueError: a regulariser is called as a network or a loss term is; there is an identity loss, and A and B
            differ in channels.
    """

    config: CycleGANConfig

    def __init__(
        self,
        G_A: Generator,
        G_B: Generator,
        D_A: nn.Module,
        D_B: nn.Module,
        config: CycleGANConfig,
        *,
        regularizers: Mapping[str, Regularizers] | None = None,
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        """`regularizers`: "A" has those of G_A and D_A, "B" those of G_B and D_B; see `cyclegan_attachments`."""
        a, b = G_A.config.in_channels, G_A.config.out_channels
        if config.identity_weight and a != b:
            raise ValueError(f"identity_weight must be 0 where A has {a} channels and B {b}: G_A takes no image of B")
        self.G, self.D = {"A": G_A, "B": G_B}, {"A": D_A, "B": D_B}
        super().__init__(
            {"G_A": G_A, "G_B": G_B, "D_A": D_A, "D_B": D_B},
            config,
            regularizers={side: (regularizers or {}).get(side, Regularizers()) for side in SIDES},
            pools=dict.fromkeys(SIDES, config.pool_size),
            pictures=pictures,
            group=group,
            seed=seed,
        )
        kinds = ("gan", "cycle", "identity") if config.identity_weight else ("gan", "cycle")
        G_params = [p for net in self.G.values() for p in net.parameters()]
        G_terms = tuple(f"{kind}_{side}" for kind in kinds for side in SIDES)
        self._start(
            [
                *(self._D_phase(side) for side in SIDES),
                Phase("G", G_params, self.adam(G_params), self._G_losses, G_terms, self._draw_G),
            ],
            [
                *(
                    Panel(f"score_{side}/{name}", f"{name} {OTHER[side]}", "Discriminator scores", "mean logit")
                    for side in SIDES
                    for name in ("real", "fake")
                ),
                *(
                    Panel(f"cycle/{s}", f"cycle {s}", "Cycle", "mean |difference|", headline=True, axis="zero")
                    for s in SIDES
                ),
                *(x for side in SIDES for x in panels_of_side(self.regularizers[side].panels, side)),
                Panel("rate", "rate", "Learning rate", detail=True, axis="zero"),
            ],
        )

    def _D_phase(self, side: str) -> Phase:
        params = [*self.D[side].parameters(), *self.regularizers[side].parameters()]
        terms = (f"D_{side}_fake", f"D_{side}_real")
        losses, draw = partial(self._D_losses, side), partial(self._draw_D, side)
        return Phase(f"D_{side}", params, self.adam(params), losses, terms, draw)

    # Forward passes.

    def _draw_D(self, side: str, n: int, parts: int) -> dict[str, Any]:
        return {"seeds": self.draw_seeds(n), "pool": self.pools[side].draw(n)}

    def _draw_G(self, n: int, parts: int) -> dict[str, Tensor]:
        return {f"{kind}_{side}": self.draw_seeds(n) for kind in ("fake", "cycle", "same") for side in SIDES}

    def _D_losses(self, side: str, batch: Batch, draws: Mapping[str, Any]) -> PhaseOutput:
        D = self.D[side]
        fake_logits, guided = judge_fakes(
            lambda: self.G[side](batch[side], draws["seeds"]),
            D,
            self.pools[side],
            draws["pool"],
            self.regularizers[side],
        )
        guided = of_side(guided, side)
        logits = {"fake": fake_logits, "real": D(batch[OTHER[side]])}
        # Halved, so that D learns more slowly than G.
        losses = {f"D_{side}_{name}": self._loss(x, name == "real") / 2 for name, x in logits.items()}
        observed = {f"score_{side}/{name}": x.detach().flatten(1).mean(dim=1) for name, x in logits.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: Mapping[str, Tensor]) -> PhaseOutput:
        losses, observed = {}, {}
        for side, other in OTHER.items():
            fake = self.G[side](batch[side], draws[f"fake_{side}"])
            back = self.G[other](fake, draws[f"cycle_{side}"])
            cycle = l1_distance(back, batch[side])
            losses[f"gan_{side}"] = self._loss(self.D[side](fake), True)
            losses[f"cycle_{side}"] = cycle * self.config.cycle_weight
            observed[f"cycle/{side}"] = cycle.detach()
            if self.config.identity_weight:
                same = self.G[side](batch[other], draws[f"same_{side}"])
                losses[f"identity_{side}"] = l1_distance(same, batch[other]) * self.config.identity_weight
        return PhaseOutput(losses, observed)

    def translate(self, img: Tensor, side: str, *, seed: int = 0) -> Tensor:
        """Images of the other side: of A (`side` "A") by G_A, of B by G_B; see Translator."""
        return CycleGANTranslator(self.G["A"], self.G["B"])(img, side, OTHER[side], seed=seed)


def cyclegan_attachments(
    G_A: Generator, G_B: Generator, D_A: nn.Module, D_B: nn.Module, resolution: int
) -> dict[str, Attachment]:
    """Where regularisers take hold of G_A and D_A ("A"), and of G_B and D_B ("B"); see `attachment`."""
    return {
        "A": attachment(G_A, D_A, lambda a, b: D_A(b), resolution),
        "B": attachment(G_B, D_B, lambda b, a: D_B(a), resolution),
    }
