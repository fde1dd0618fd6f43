# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""SPADE's blocks, and what generators of label maps have in common.

Source: Park et al. 2019, arXiv:1903.07291.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.translation.layers import BatchNorm, InstanceNorm
from ggdr.translation.spectral_norm import SpectralConv2d

WIDEST_G = 16  # times `channels`
SLOPE = 0.2

activate = partial(F.leaky_relu, negative_slope=SLOPE)
enlarge = partial(F.interpolate, scale_factor=2, mode="nearest")


def spade_widths(channels: int, ups: int) -> list[int]:
    """Feature maps before the first block, and after each: with 64 channels and 5 ups 1024 three times, 512, ... 64."""
    return [min(2**i, WIDEST_G) * channels for i in reversed(range(ups + 2))]


def plain_norm(norm: str, width: int) -> nn.Module:
    """A "batch" or "instance" norm without weights."""
    return BatchNorm(width, affine=False) if norm == "batch" else InstanceNorm(width)


class Spade(nn.Module):
    """norm(x) * (1 + gamma) + beta, which a small network makes of the condition at every pixel.

    x [N, width, H, W], condition [N, cond, H, W] -> [N, width, H, W].

    Source: Eq. (1).
    """

    def __init__(self, width: int, cond: int, hidden: int, norm: str) -> None:
        super().__init__()
        self.norm = plain_norm(norm, width)
        self.shared = nn.Sequential(nn.Conv2d(cond, hidden, 3, padding=1), nn.ReLU())
        self.modulation = nn.Conv2d(hidden, 2 * width, 3, padding=1)  # gamma and beta

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.modulation(self.shared(condition)).chunk(2, dim=1)
        return self.norm(x) * (1 + gamma) + beta


class SpadeBlock(nn.Module):
    """A residual block of two convolutions behind SPADE norms: [N, cin, H, W] -> [N, cout, H, W]."""

    def __init__(self, cin: int, cout: int, cond: int, hidden: int, norm: str) -> None:
        super().__init__()
        middle = min(cin, cout)
        self.norm_0, self.norm_1 = Spade(cin, cond, hidden, norm), Spade(middle, cond, hidden, norm)
        self.conv_0, self.conv_1 = SpectralConv2d(cin, middle, 3), SpectralConv2d(middle, cout, 3)
        self.is_wider = cin != cout
        if self.is_wider:
            self.norm_s, self.conv_s = Spade(cin, cond, hidden, norm), SpectralConv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        skip = self.conv_s(self.norm_s(x, condition)) if self.is_wider else x
        x = self.conv_0(activate(self.norm_0(x, condition)))
        return skip + self.conv_1(activate(self.norm_1(x, condition)))
