# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A host unlike StyleGAN2: vectors of two unpaired sets of different size, translated into each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput
from ggdr.torch_utils.regularizers import Regularizers

DIM, TOTAL_NIMG = 6, 48
SIZES = {"A": 7, "B": 12}  # of the two sets


def network(seed: int, num_out: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(DIM, 8), nn.LeakyReLU(0.2), nn.Linear(8, num_out))


class FeatureSize:
    """A regulariser beside GGDR: keeps the first layer's outputs of D on fakes small."""

    name, quantity, gain = "size", "square", 0.5

    def __init__(self, D: nn.Sequential) -> None:
        self.D = D

    @contextmanager
    def watch(self) -> Iterator[list[Tensor]]:
        feats: list[Tensor] = []
        hook = self.D[0].register_forward_hook(lambda module, args, out: feats.append(out))
        try:
            yield feats
        finally:
            hook.remove()

    def penalty(self, feats: list[Tensor], warp=None, *, fakes=None) -> Tensor:
        return self.gain * feats[-1][fakes or slice(None)].square().mean(dim=1)

    def parameters(self):
        return []

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert not state


class ToyTask:
    """Two generators by Adam in one phase, each discriminator by SGD in its own, a pool of old fakes, falling rates."""

    def __init__(self, group: ProcessGroup | None = None, *, regularize: bool = True) -> None:
        self.group = group or ProcessGroup()
        self.G = {side: network(seed, DIM) for seed, side in enumerate("AB")}  # G["A"]: from A to B
        self.D = {side: network(seed + 2, 1) for seed, side in enumerate("AB")}
        self.regularizers = {s: Regularizers([FeatureSize(self.D[s])] if regularize else []) for s in "AB"}
        self.pool = {side: torch.zeros(0, DIM) for side in "AB"}
        self.rng = torch.Generator().manual_seed(1)
        G_params = [p for net in self.G.values() for p in net.parameters()]
        self.optimizers = {
            "G": torch.optim.Adam(G_params, 0.01),
            **{f"D_{s}": torch.optim.SGD(self.D[s].parameters(), 0.02, momentum=0.9) for s in "AB"},
        }
        self.phases = [
            Phase("G", G_params, self.optimizers["G"], self._G_losses, ("fool", "cycle")),
            *(
                Phase(
                    f"D_{s}",
                    list(self.D[s].parameters()),
                    self.optimizers[f"D_{s}"],
                    lambda batch, draws, s=s: self._D_losses(s, batch, draws),
                    (f"real_{s}", f"fake_{s}"),
                    self._draw,
                )
                for s in "AB"
            ),
        ]
        self.panels = [Panel("rate", "rate", "Rate"), Panel("margin/A", "A", "Margin", headline=True)]
        self.pictures = []
        self._made: dict[str, list[Tensor]] = {side: [] for side in "AB"}

    def _draw(self, n: int, parts: int) -> dict[str, Tensor]:
        return {"from_pool": torch.rand(n, generator=self.rng)}

    def _G_losses(self, batch: Batch, draws: Any) -> PhaseOutput:
        a, b = batch["A"][0], batch["B"][0]
        to_b, to_a = self.G["A"](a), self.G["B"](b)
        fool = -(self.D["B"](to_b) + self.D["A"](to_a)).squeeze(1)
        cycle = (self.G["B"](to_b) - a).abs().mean(1) + (self.G["A"](to_a) - b).abs().mean(1)
        self._made["B"].append(to_b.detach())
        self._made["A"].append(to_a.detach())
        return PhaseOutput({"fool": fool, "cycle": cycle, "identity": 0.1 * (self.G["A"](b) - b).abs().mean(1)})

    def _D_losses(self, side: str, batch: Batch, draws: dict[str, Tensor]) -> PhaseOutput:
        other, real = batch["B" if side == "A" else "A"][0], batch[side][0]
        regularizers = self.regularizers[side]
        with regularizers.watch() as feats:
            with torch.no_grad():
                fake = self.G["B" if side == "A" else "A"](other)
            now = self.D[side](fake).squeeze(1)
        old = fake
        if len(self.pool[side]):
            picks = (draws["from_pool"] * len(self.pool[side])).long()
            old = torch.where(draws["from_pool"][:, None] < 0.5, self.pool[side][picks], fake)
        logits = self.D[side](real).squeeze(1)
        guided = regularizers.penalties(feats)
        losses = {f"real_{side}": (1 - logits).relu(), f"fake_{side}": (1 + self.D[side](old).squeeze(1)).relu()}
        return PhaseOutput({**losses, **guided.losses}, {f"margin/{side}": (logits - now).detach(), **guided.observed})

    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        for side, made in self._made.items():
            # Shares are interleaved twice, over processes and over rounds: put them back in the batch's order.
            mine = torch.stack(made, dim=1).flatten(0, 1)
            self.pool[side] = torch.cat([self.pool[side], self.group.gather_rows(mine, batch_size)])[-10:]
            made.clear()
        rate = 0.01 * (1 - nimg / TOTAL_NIMG)
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = rate
        return {"rate": rate}

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        nets = {f"{kind}_{s}": net.state_dict() for kind in "GD" for s, net in getattr(self, kind).items()}
        return nets, {}

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.snapshot()[0],
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "pool": dict(self.pool),
            "rng": self.rng.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, weights in state["networks"].items():
            getattr(self, name[0])[name[2]].load_state_dict(weights)
        for name, saved in state["optimizers"].items():
            self.optimizers[name].load_state_dict(saved)
        self.pool = dict(state["pool"])
        self.rng.set_state(state["rng"])


def batches(start_nimg: int, batch: int, group: ProcessGroup | None = None) -> Iterator[Batch]:
    """{"A": (vectors,), "B": (vectors,)} of this process' share."""
    group = group or ProcessGroup()
    rng = torch.Generator().manual_seed(0)
    data = {side: torch.randn(num, DIM, generator=rng) + (side == "B") for side, num in SIZES.items()}
    while True:
        order = torch.arange(start_nimg, start_nimg + batch)[group.rank :: group.world]
        yield {side: (vectors[order % len(vectors)],) for side, vectors in data.items()}
        start_nimg += batch
