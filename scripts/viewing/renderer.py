# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""From seeds and latents to images, with one generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ggdr.scripts.options.pictures import LARGEST
from ggdr.scripts.viewing.latents import Latent
from ggdr.stylegan2 import Generator
from ggdr.stylegan2.latent.sampling import Label, latents_of_seeds, map_latents, pictures
from ggdr.torch_utils.pictures.sheets import thumbnail


@dataclass(frozen=True)
class Renderer:
    """How images of latents are made.

    Attributes:
        G:                 in eval mode.
        label:             for a conditional G.
        truncation_cutoff: layers that are truncated; None: all.
        noise_mode:        "const" or "none"; of seeds also "random".
        batch_size:        images at once.
    """

    G: Generator
    label: Label = None
    truncation_psi: float = 1.0
    truncation_cutoff: int | None = None
    noise_mode: str = "const"
    batch_size: int = 16

    def map(self, z: Tensor) -> Tensor:
        """z [N, z_dim] to ws [N, num_ws, w_dim] float32 on the device of G."""
        how = {"truncation_psi": self.truncation_psi, "truncation_cutoff": self.truncation_cutoff}
        return map_latents(self.G, z, self.label, **how)

    def ws_of(self, latents: Sequence[Latent]) -> Tensor:
        """The ws [N, num_ws, w_dim] of latents, truncated, on the device of G."""
        seeds = [latent.seed for latent in latents if latent.ws is None]
        ws = torch.empty([len(latents), self.G.num_ws, self.G.w_dim], device=self.G.mapping.w_avg.device)
        of_file = torch.tensor([latent.ws is not None for latent in latents], device=ws.device)
        if seeds:
            ws[~of_file] = self.map(latents_of_seeds(seeds, self.G.z_dim))
        stored = [latent.ws for latent in latents if latent.ws is not None]
        if stored:
            found = torch.stack(stored).to(ws.device)
            ws[of_file] = self.G.mapping.truncate(found, self.truncation_psi, self.truncation_cutoff)
        return ws

    def render(self, ws: Tensor) -> Iterator[np.ndarray]:
        """The images [H, W, C] uint8 of ws [N, num_ws, w_dim], one after the other."""
        return pictures(self.G, ws, batch_size=self.batch_size, noise_mode=self.noise_mode)

    def render_cells(self, ws: Tensor, size: int) -> list[np.ndarray]:
        """The same for a contact sheet, at about `size` pixels."""
        return [fit_to_sheet(image, size) for image in self.render(ws)]


def fit_to_sheet(image: np.ndarray, size: int) -> np.ndarray:
    """An image [H, W, C] uint8 as `size_option` says for sheets."""
    return thumbnail(image, smallest=size, largest=max(size, LARGEST))
