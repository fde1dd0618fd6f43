# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose weights are divided by their spectral norm, and how networks with such begin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WARM_UP = 15  # power iterations before training


class SpectralConv2d(nn.Conv2d):
    """A convolution, padded by half a kernel, of weights divided by their largest singular value, as [cout, rest].

    Each pass in training is one power iteration towards that value; passes in evaluation mode change nothing. It
    computes the value in float32, whatever type convolutions have.

    Attributes:
        u: [cout] float32, the left singular vector as far as it is known.

    Source: Miyato et al. 2018, arXiv:1802.05957, Algorithm 1.
    """

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(cin, cout, kernel, stride, padding=kernel // 2, bias=bias)
        self.register_buffer("u", torch.full([cout], cout**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight / self.spectral_norm()
        return self._conv_forward(x, weight, self.bias)

    def spectral_norm(self) -> Tensor:
        """The largest singular value as far as it is known, [], with gradient; in training after one more iteration."""
        matrix, u = self.weight.flatten(1), self.u
        with torch.no_grad():
            v = F.normalize(matrix.t() @ u, dim=0)
            if self.training:
                u = F.normalize(matrix @ v, dim=0)
                # A copy: the graph of this pass keeps its own vector.
                self.u.copy_(u)
        return u @ (matrix @ v)

    @torch.no_grad()
    def find_norm(self, generator: torch.Generator) -> None:
        """Begins the power iteration anew, from a random vector."""
        matrix = self.weight.flatten(1)
        u = torch.randn([len(matrix)], generator=generator).to(matrix)
        for _ in range(WARM_UP):
            u = F.normalize(matrix @ F.normalize(matrix.t() @ u, dim=0), dim=0)
        self.u.copy_(u)


@torch.no_grad()
def init_xavier(net: nn.Module, generator: torch.Generator, gain: float = 0.02) -> None:
    """Draws the weights of all convolutions anew, in place: N(0, 2 gain^2 / (fan in + fan out)), biases 0.

    Those with spectral norm have a gain of 1. It does not change what they compute, but how far a step of Adam turns
    them: weights as small as with 0.02 are less than a step, so that D learns nothing for thousands of images.

    Args:
        generator: a CPU one, so that the weights are the same on every device.
        gain:      of convolutions without spectral norm; 0.02 is as published. It decides how soon such a network has
                   an effect; of OASIS' D the last convolution alone has it.

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight, 1 if isinstance(layer, SpectralConv2d) else gain, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
        if isinstance(layer, SpectralConv2d):
            layer.find_norm(generator)
