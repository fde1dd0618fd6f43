# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the hosts of image translation have in common: a falling rate, pools of fakes, and what a resume needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.moments import load_moments
from ggdr.torch_utils.regularizers import Regularizers
from ggdr.translation.config import HostConfig
from ggdr.translation.image_pool import ImagePool
from ggdr.translation.layers import batch_statistics, has_batch_norms
from ggdr.translation.losses import cross_entropy, least_squares

LOGIT_LOSSES = {"cross_entropy": cross_entropy, "least_squares": least_squares}
MAX_SEED = 2**62
# In float16. At 128 pixels and full width 64 % of the gradients of CycleGAN's G in feature maps are below 2^-14, where
# float16 loses digits; the largest gradient that was found, at 32 pixels, is 2^3.8. They reach up to 2^16.
LOSS_SCALE = 2.0**8


class TranslationHost:
    """Networks, optimisers, rate and pools of a host; a subclass has its losses.

    What is random is drawn from generators on the CPU, in the same state on every process; see Phase.draw.

    Attributes:
        networks:     by the names that snapshots have.
        regularizers: of each discriminator, by what their weights' names end in; "" where there is one.
        domains:      what the kinds of images are called, in order; snapshots have them. Empty where there are pairs.
        pools:        older fakes for each discriminator, by names.
        half_dtype:   in which convolutions compute in training, or None for float32. Weights, moments, images, losses,
                      statistics of norms and what regularisers compare are float32.

    Raises:
        ValueError: a regulariser is called as a network or a loss term is; two domains have one name, or one has none.
    """

    phases: list[Phase]
    panels: list[Panel]

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        config: HostConfig,
        *,
        regularizers: Mapping[str, Regularizers],
        pools: Mapping[str, int] | None = None,
        domains: Sequence[str] = (),
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
        half_dtype: torch.dtype | None = None,
    ) -> None:
        """`pools`: their sizes."""
        self.networks = {name: net.train() for name, net in networks.items()}
        self.config = config
        self.regularizers = dict(regularizers)
        self.domains = list(domains)
        if len(set(self.domains)) < len(self.domains) or not all(self.domains):
            raise ValueError(f"domains: expected a name of its own for each, got {self.domains}")
        self.pictures = list(pictures)
        self.group = group or ProcessGroup()
        self.half_dtype = half_dtype
        self.cpu_rng = torch.Generator("cpu").manual_seed(seed)
        self.pools = {name: ImagePool(size, seed=int(self.draw_seeds(1))) for name, size in (pools or {}).items()}
        self._loss = LOGIT_LOSSES.get(config.gan_loss)  # others are the subclass' own

    def _start(self, phases: Sequence[Phase], panels: Sequence[Panel]) -> None:
        """Ends the construction of a subclass."""
        self.phases, self.panels = [self._in_precision(phase) for phase in phases], list(panels)
        self._set_rate(0)
        taken = [*self.networks, *(term for phase in self.phases for term in phase.terms)]
        for end, regularizers in self.regularizers.items():
            regularizers.check_names([*taken, *(name.removesuffix(f"_{end}") for name in taken)])

    def _in_precision(self, phase: Phase) -> Phase:
        """The phase, with the forward pass in `half_dtype`.

        Activations need no clamp in float16: norms keep them small.
        """
        if self.half_dtype is None:
            return phase

        def losses(batch: Batch, draws: Any) -> PhaseOutput:
            with torch.autocast(self.group.device.type, self.half_dtype):
                return phase.losses(batch, draws)

        return replace(phase, losses=losses, loss_scale=LOSS_SCALE if self.half_dtype == torch.float16 else 1.0)

    def adam(self, params: Iterable[Any]) -> Optimizer:
        """The optimiser of parameters, or of groups of them."""
        return torch.optim.Adam(params, self.config.lr, (self.config.beta1, self.config.beta2), fused=True)

    def draw_seeds(self, n: int) -> Tensor:
        """What dropout draws from, for n images: int64 [n]."""
        return torch.randint(MAX_SEED, [n], generator=self.cpu_rng)

    # Between iterations.

    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        """Puts fakes into the pools, and sets the learning rate of the next iteration."""
        for pool in self.pools.values():
            pool.step_end(self.group.gather_rows)
        self._set_rate(nimg)
        return {"rate": self.config.rate(nimg)}

    def _set_rate(self, nimg: int) -> None:
        self.nimg = nimg
        for phase in self.phases:
            for group in phase.optimizer.param_groups:
                group["lr"] = self.config.rate(nimg)

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """State dicts of the networks and the regularisers, and the settings that the networks are built from.

        Beside these, by the networks' names, "domains" has the list of the domains' names, if there are any.
        """
        states = {name: net.state_dict() for name, net in self.networks.items()} | self.regularizer_states()
        config: dict[str, Any] = {name: net.config.to_json() for name, net in self.networks.items()}
        return states, config | ({"domains": self.domains} if self.domains else {})

    def regularizer_states(self) -> dict[str, dict[str, Tensor]]:
        """Weights of the regularisers, by the names that snapshots have."""
        return {
            joined(name, end): state
            for end, regularizers in self.regularizers.items()
            for name, state in regularizers.state_dicts().items()
        }

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        return {
            "networks": self.snapshot()[0],
            "optimizers": [phase.optimizer.state_dict() for phase in self.phases],
            "pools": {name: pool.state() for name, pool in self.pools.items()},
            "cpu_rng": self.cpu_rng.get_state(),
            "nimg": self.nimg,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave; raises ValueError if moments or pools do not fit."""
        self.load_networks(state["networks"])
        for phase, saved in zip(self.phases, state["optimizers"], strict=True):
            load_moments(phase.optimizer, saved)
        for name, pool in self.pools.items():
            pool.load_state(state["pools"][name], self.group.device)
        self.cpu_rng.set_state(state["cpu_rng"])
        self._set_rate(state["nimg"])

    def load_networks(self, networks: Mapping[str, dict[str, Tensor]]) -> None:
        """Loads the networks and the regularisers; all must be in `networks` and fit."""
        for name, net in self.networks.items():
            net.load_state_dict(networks[name], strict=True)
        for end, regularizers in self.regularizers.items():
            regularizers.load_state_dicts({name: networks[joined(name, end)] for name in regularizers.by_name})


def joined(name: str, end: str) -> str:
    """A regulariser's name where there are several of them: "ggdr_A"; `name` where there is one."""
    return f"{name}_{end}" if end else name


def of_side(output: PhaseOutput, end: str) -> PhaseOutput:
    """What regularisers of one of several discriminators give, under names of their own."""
    losses = {joined(name, end): loss for name, loss in output.losses.items()}
    return PhaseOutput(losses, {_reported(name, end): value for name, value in output.observed.items()})


def panels_of_side(panels: Iterable[Panel], end: str) -> list[Panel]:
    """The panels of what `of_side` reports."""
    return [replace(panel, name=_reported(panel.name, end), label=joined(panel.label, end)) for panel in panels]


def _reported(name: str, end: str) -> str:
    regularizer, slash, quantity = name.partition("/")
    return joined(regularizer, end) + slash + quantity


def judge_both(
    make: Callable[[], Tensor],
    real: Tensor,
    D: nn.Module,
    regularizers: Regularizers,
    *,
    pool: ImagePool | None = None,
    draws: Mapping[str, Tensor] | None = None,
    drawn: Mapping[str, Any] | None = None,
) -> tuple[Any, Any, PhaseOutput]:
    """What D says of fakes and of reals, and what its regularisers give, for new fakes alone.

    D sees both in one pass, unless it has batch norms, which would see both together.

    If older fakes were drawn and there are regularisers, D runs once more, on the new ones: a regulariser needs what
    is in G while it makes the very images that D sees. Running statistics of D's batch norms do not heed this pass.

    Args:
        make:  runs G once; what D is given of its images, [N, C, H, W].
        real:  [N, C, H, W].
        pool:  older fakes that D may be shown in place of new ones.
        draws: this share's part of `pool.draw`.
        drawn: this share's part of `regularizers.draw`.

    Returns:
        What D returned for the fakes, which are those from the pool if there is one; for the reals; and the
        regularisers' terms for the new fakes.
    """
    is_joint = not has_batch_norms(D)
    is_new = pool is None or not draws["swap"].any()
    with regularizers.watch() as feats:
        with torch.no_grad():
            fake = make()
        shown = fake if pool is None else pool.query(fake, draws)
        seen = torch.cat([shown, real]) if is_joint else shown
        if is_new:
            verdict = D(seen)
        elif regularizers.by_name:
            with batch_statistics(D):
                D(fake)
    if not is_new:
        verdict = D(seen)
    n = len(fake)
    of_fake, of_real = _parted(verdict, n) if is_joint else (verdict, D(real))
    fakes = slice(0, n) if is_joint and is_new else None
    return of_fake, of_real, regularizers.penalties(feats, fakes=fakes, draws=drawn)


def _parted(verdict: Any, n: int) -> tuple[Any, Any]:
    """The first n and the other images' part of one map of logits, or of several."""
    if isinstance(verdict, Tensor):
        return verdict[:n], verdict[n:]
    return [maps[:n] for maps in verdict], [maps[n:] for maps in verdict]
