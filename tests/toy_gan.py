# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A small GAN that was not written for GGDR, and one step of its discriminator."""

from __future__ import annotations

import torch
from torch import nn

from ggdr import GGDR


class ToyG(nn.Module):
    """z [N, 4] -> img [N, 3, 16, 16]; the 8x8 layer returns a tuple, as synthesis blocks do."""

    class Mid(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 5, 3, padding=1)

        def forward(self, x):
            return nn.functional.interpolate(self.conv(x).tanh(), scale_factor=2), None

    def __init__(self):
        super().__init__()
        self.low = nn.Linear(4, 6 * 4 * 4)
        self.mid = self.Mid()
        self.top = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(5, 3, 3, padding=1))

    def forward(self, z):
        x, _ = self.mid(self.low(z).reshape(-1, 6, 4, 4))
        return self.top(x)


class ToyD(nn.Module):
    """img [N, 3, 16, 16] -> logits [N, 1]; 8x8 and 4x4 layers, batch norm and dropout inside."""

    def __init__(self, inplace=False):
        super().__init__()
        self.e8 = nn.Sequential(nn.Conv2d(3, 7, 3, 2, 1), nn.BatchNorm2d(7))
        self.act = nn.LeakyReLU(0.2, inplace=inplace)
        self.e4 = nn.Sequential(nn.Conv2d(7, 9, 3, 2, 1), nn.Dropout(0.5))
        self.out = nn.Linear(9 * 16, 1)

    def forward(self, img):
        return self.out(self.e4(self.act(self.e8(img))).flatten(1))


def attach(G, D, **kwargs):
    options = dict(guide="mid", encoder=["e8", "e4"], probe=lambda: D(G(torch.zeros(2, 4))))
    return GGDR(G, D, **{**options, **kwargs})


def d_step(ggdr, G, D, n=3, seed=0):
    """Gradients after one discriminator step on fakes, with (or without) the regulariser."""
    torch.manual_seed(seed)
    z = torch.randn(n, 4)
    for net in (G, D):
        net.zero_grad(set_to_none=True)
    if ggdr is None:
        nn.functional.softplus(D(G(z).detach())).mean().backward()
    else:
        with ggdr.watch() as feats:
            logits = D(G(z).detach())
        (nn.functional.softplus(logits).mean() + ggdr.penalty(feats).mean()).backward()
    return [p.grad.clone() for p in D.parameters()]
