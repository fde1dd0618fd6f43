# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Moving average of the generator's weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def averaged(net: Net) -> Net:
    """A copy in eval mode without gradients, for the moving average of a network."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def ema_beta(batch: int, nimg: int, *, halflife_kimg: float, rampup: float | None) -> float:
    """Weight of the old average: 0.5^(batch / halflife), the half-life at most `rampup` x images seen so far.

    Source: Karras et al. 2020, arXiv:2006.06676, Appendix C.
    """
    halflife_nimg = halflife_kimg * 1000
    if rampup is not None:
        halflife_nimg = min(halflife_nimg, nimg * rampup)
    return 0.5 ** (batch / max(halflife_nimg, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, net: nn.Module, beta: float) -> None:
    """average = beta * average + (1 - beta) * net for parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - beta)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(net.buffers()))
