# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR whose guide comes from the moving average of the generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ggdr.regularizer import GGDR, GuidedFeatures
from ggdr.taps import named_layers, plain_name


class EMAGuide(GGDR):
    """GGDR, but D learns the features that the averaged generator computes for the latents of the fakes that D sees.

    Whenever G runs inside `watch`, `G_ema` runs on the same inputs, without gradients. The average changes slowly and
    is less noisy than G; its image differs somewhat from the one that D sees.

    Example:
        >>> guide = EMAGuide(G, D, G_ema=G_ema, guide="synthesis.b8", encoder=["b16", "b8"], probe=lambda: D(G(z)))
        >>> with guide.watch() as feats:
        ...     fake_logits = D(augment(G(z).detach()))
        >>> loss = adversarial(fake_logits) + guide.penalty(feats, warp=augment_features).mean()

    Source: Lee et al. 2022, arXiv:2207.13320, for GGDR; the average as its guide is this project's.
    """

    name = "ema-guide"

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        *,
        G_ema: nn.Module,
        part: str = "",
        guide: str | Sequence[str] | None = None,
        encoder: Sequence[str] | None = None,
        probe: Callable[[], object],
        weight: float = 10.0,
    ) -> None:
        """See GGDR; `guide` names layers of `G_ema`, which has those of G.

        Args:
            G_ema: of the architecture of G, in eval mode. What is random in it is drawn anew: pass noise as an
                   argument, if both are to have the same.
            part:  dotted name of the part of G that is called, and that runs again in `G_ema`; "" if it is G itself.

        Raises:
            ValueError: G and `G_ema` are one network, or have no such part; and what GGDR raises.
        """
        if G_ema is G:
            raise ValueError("G_ema is G itself; it takes a copy, whose weights are an average of those of G")
        self._G_ema = G_ema
        self._called, self._repeated = (_part(net, part) for net in (G, G_ema))
        super().__init__(G, D, guide=guide, encoder=encoder, probe=probe, weight=weight)

    def _teacher(self, G: nn.Module) -> nn.Module:
        return self._G_ema

    @contextmanager
    def watch(self, calls: int = 1) -> Iterator[GuidedFeatures]:
        """See GGDR.watch."""

        def repeat(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            with torch.no_grad():
                self._repeated(*args, **kwargs)

        with super().watch(calls) as feats:
            hook = self._called.register_forward_hook(repeat, with_kwargs=True)
            try:
                yield feats
            finally:
                hook.remove()


def _part(net: nn.Module, name: str) -> nn.Module:
    """A part of a network by its name there, wrapped or not; ValueError if there is none."""
    layers = named_layers(net)
    found = layers.get(plain_name(name))
    if found is None:
        raise ValueError(f"{type(net).__name__} has no part {name!r}; it has {', '.join(filter(None, layers))}")
    return found
