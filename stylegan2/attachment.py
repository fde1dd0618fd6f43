# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where regularisers take hold of StyleGAN2."""

from __future__ import annotations

import torch

from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.regularizers import Attachment


def attachment(G: Generator, D: Discriminator, G_ema: Generator | None = None) -> Attachment:
    """The synthesis blocks of G, by their resolution, and the blocks of D.

    The average of G computes its features from the very w that G makes its image of: training calls `synthesis`.
    """

    def probe() -> None:
        device = next(G.parameters()).device
        c = torch.zeros([1, G.c_dim], device=device)
        D(G(torch.zeros([1, G.z_dim], device=device), c, noise_mode="none"), c)

    guides = {res: f"synthesis.b{res}" for res in G.synthesis.resolutions}
    return Attachment(G, D, probe, guides, [f"b{res}" for res in D.resolutions], G_ema, "synthesis")
