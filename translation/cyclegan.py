# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""CycleGAN as the training loop sees it: a phase for each D and one for both G, with regularisers on D's new fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import shortened
from ggdr.translation.attachment import attachment
from ggdr.translation.config import CycleGANConfig
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.host import TranslationHost, judge_both, of_side, panels_of_side
from ggdr.translation.layers import has_batch_norms
from ggdr.translation.losses import l1_distance
from ggdr.translation.translator import CycleGANTranslator

Generator = ResnetGenerator | UnetGenerator

OTHER = {"A": "B", "B": "A"}
SIDES = tuple(OTHER)
DISTANCE = "mean |difference|"


class CycleGANTask(TranslationHost):
    """Networks, optimisers, losses and pools of one CycleGAN run, with regularisers on D's new fakes.

    Its batches are {"A": [N, C_A, H, W], "B": [N, C_B, H, W]}, float32 in [-1, 1], which are no pairs. As in published
    files, G_A makes B of A and D_A judges it; G_B makes A of B and D_B judges that.

    Each iteration trains D_A and D_B on fakes of the generators as they are, and then the generators.

    Source: Zhu et al. 2017, arXiv:1703.10593.

    Args:
        regularizers: "A" has those of G_A and D_A, "B" those of G_B and D_B; see `cyclegan_attachments`.
        domains:      what A and B are called.

    Raises:
        ValueError: a regulariser is called as a network or a loss term is; there is an identity loss, and A and B
            differ in channels; there are not two names.
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
        domains: Sequence[str] = SIDES,
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
        half_dtype: torch.dtype | None = None,
    ) -> None:
        a, b = G_A.config.in_channels, G_A.config.out_channels
        if config.identity_weight and a != b:
            raise ValueError(f"identity_weight must be 0 where A has {a} channels and B {b}: G_A takes no image of B")
        if len(domains) != 2:
            raise ValueError(f"domains: expected the names of A and B, got {list(domains)}")
        self.G, self.D = {"A": G_A, "B": G_B}, {"A": D_A, "B": D_B}
        super().__init__(
            {"G_A": G_A, "G_B": G_B, "D_A": D_A, "D_B": D_B},
            config,
            regularizers={side: (regularizers or {}).get(side, Regularizers()) for side in SIDES},
            pools=dict.fromkeys(SIDES, config.pool_size),
            domains=domains,
            pictures=pictures,
            group=group,
            seed=seed,
            half_dtype=half_dtype,
        )
        self.cycles = [side for side in SIDES if config.cycle_weight(side)]
        sides = {
            "gan": SIDES if config.gan_weight else (),
            "cycle": self.cycles,
            "identity": SIDES if config.identity_weight else (),
        }
        G_params = [p for net in self.G.values() for p in net.parameters()]
        G_terms = tuple(f"{kind}_{side}" for kind in sides for side in sides[kind])
        way = {side: f"{self._named(side)} to {self._named(OTHER[side])}" for side in SIDES}
        self._start(
            [
                *(self._D_phase(side) for side in SIDES),
                Phase("G", G_params, self.adam(G_params), self._G_losses, G_terms, self._draw_G),
            ],
            [
                *(
                    Panel(f"score_{s}/{kind}", f"{kind} {self._named(OTHER[s])}", "Discriminator scores", "mean logit")
                    for s in SIDES
                    for kind in ("real", "fake")
                ),
                *(Panel(f"loss_term/gan_{s}", way[s], "Adversarial loss of G", "loss") for s in sides["gan"]),
                *(
                    Panel(f"cycle/{s}", f"cycle {self._named(s)}", "Cycle", DISTANCE, headline=True, axis="zero")
                    for s in sides["cycle"]
                ),
                *(Panel(f"identity/{s}", way[s], "Identity", DISTANCE, axis="zero") for s in sides["identity"]),
                *(x for side in SIDES for x in panels_of_side(self.regularizers[side].panels, side)),
                Panel("rate", "rate", "Learning rate", detail=True, axis="zero"),
            ],
        )

    def _D_phase(self, side: str) -> Phase:
        params = [*self.D[side].parameters(), *self.regularizers[side].parameters()]
        terms = (f"D_{side}_fake", f"D_{side}_real")
        losses, draw = partial(self._D_losses, side), partial(self._draw_D, side)
        return Phase(f"D_{side}", params, self.adam(params), losses, terms, draw)

    def _named(self, side: str) -> str:
        """What a picture or the progress line calls A or B."""
        return shortened(self.domains[SIDES.index(side)])

    # Forward passes.

    def _draw_D(self, side: str, n: int, parts: int) -> dict[str, Any]:
        draws = {"seeds": self.draw_seeds(n), "pool": self.pools[side].draw(n)}
        return {**draws, "regularizers": self.regularizers[side].draw(n, self.cpu_rng)}

    def _draw_G(self, n: int, parts: int) -> dict[str, Tensor]:
        return {f"{kind}_{side}": self.draw_seeds(n) for kind in ("fake", "cycle", "same") for side in SIDES}

    def _D_losses(self, side: str, batch: Batch, draws: Mapping[str, Any]) -> PhaseOutput:
        of_fake, of_real, guided = judge_both(
            lambda: self.G[side](batch[side], draws["seeds"]),
            batch[OTHER[side]],
            self.D[side],
            self.regularizers[side],
            pool=self.pools[side],
            draws=draws["pool"],
            drawn=draws.get("regularizers"),
        )
        guided = of_side(guided, side)
        logits = {"fake": of_fake, "real": of_real}
        # Halved, so that D learns more slowly than G.
        losses = {f"D_{side}_{name}": self._loss(x, name == "real") / 2 for name, x in logits.items()}
        observed = {f"score_{side}/{name}": x.detach().flatten(1).mean(dim=1) for name, x in logits.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: Mapping[str, Tensor]) -> PhaseOutput:
        config, losses, observed = self.config, {}, {}
        for side, other in OTHER.items():
            fake, same = self._fake_and_same(side, batch, draws)
            if config.gan_weight:
                losses[f"gan_{side}"] = self._loss(self.D[side](fake), True) * config.gan_weight
            if side in self.cycles:
                cycle = l1_distance(self.G[other](fake, draws[f"cycle_{side}"]), batch[side])
                losses[f"cycle_{side}"] = cycle * config.cycle_weight(side)
                observed[f"cycle/{side}"] = cycle.detach()
            if config.identity_weight:
                identity = l1_distance(same, batch[other])
                losses[f"identity_{side}"] = identity * config.identity_weight
                observed[f"identity/{side}"] = identity.detach()
        return PhaseOutput(losses, observed)

    def _fake_and_same(
        self, side: str, batch: Batch, draws: Mapping[str, Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """What a generator makes of images of its side and of the other one; None where no loss needs it."""
        G, own, foreign = self.G[side], batch[side], batch[OTHER[side]]
        seeds = draws[f"fake_{side}"], draws[f"same_{side}"]
        needs_fake, needs_same = self.config.gan_weight or side in self.cycles, self.config.identity_weight
        if needs_fake and needs_same and not has_batch_norms(G):
            # In one pass, which gives the same and is faster.
            return G(torch.cat([own, foreign]), torch.cat(seeds)).split(len(own))
        return G(own, seeds[0]) if needs_fake else None, G(foreign, seeds[1]) if needs_same else None

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
