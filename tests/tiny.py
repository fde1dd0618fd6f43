# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of tiny networks, for the commands that look at one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ggdr import GGDR
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.checkpoint import save_snapshot


def tiny_generator(*, res: int = 8, c_dim: int = 0, img_channels: int = 3) -> Generator:
    """With weights that let z, class, noise and truncation all show in the image."""
    torch.manual_seed(0)
    config = GeneratorConfig(res, img_channels, c_dim, z_dim=6, w_dim=5, mapping_num_layers=1, channel_base=32)
    G = Generator(config).eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    return G


def save_tiny(path: Path, G: Generator, *, guide_res: int | None = None, nimg: int = 1000) -> Path:
    """Writes a snapshot of G; with `guide_res` also of a discriminator and a GGDR decoder of that size."""
    networks, config = {"G_ema": G.state_dict()}, {"G": asdict(G.config), "nimg": nimg}
    if guide_res is not None:
        torch.manual_seed(1)
        D = Discriminator(DiscriminatorConfig(G.img_resolution, G.img_channels, G.c_dim, channel_base=32))
        ggdr = GGDR(
            G,
            D,
            guide=f"synthesis.b{guide_res}",
            encoder=[f"b{res}" for res in D.resolutions],
            probe=lambda: D(G(torch.zeros(1, G.z_dim), torch.zeros(1, G.c_dim)), torch.zeros(1, G.c_dim)),
        )
        networks |= {"D": D.state_dict(), "ggdr": ggdr.state_dict()}
        config |= {
            "D": asdict(D.config),
            "training": {"regularizers": {"ggdr": {"guide_res": [guide_res], "weight": 10.0}}},
        }
    save_snapshot(path, networks, config)
    return path


def pixels(path: Path) -> np.ndarray:
    """The pixels of a picture on disk."""
    with Image.open(path) as picture:
        return np.asarray(picture)
