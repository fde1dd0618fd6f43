# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is exported of StyleGAN2's networks, as functions of named tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.export_formats import PSI, Part

PARTS = ("generator", "mapping", "synthesis", "discriminator")
NOISE_MODES = ("const", "none")


class _Generate(nn.Module):
    """z, c and perhaps truncation_psi to img, or to ws if `mapping_only`."""

    def __init__(self, G: Generator, psi: float, cutoff: int | None, noise_mode: str, *, mapping_only: bool) -> None:
        super().__init__()
        self.mapping, self.synthesis = G.mapping, None if mapping_only else G.synthesis
        self.psi, self.cutoff, self.noise_mode = psi, cutoff, noise_mode

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: Tensor | None = None) -> Tensor:
        psi = self.psi if truncation_psi is None else truncation_psi
        ws = self.mapping(z, c, truncation_psi=psi, truncation_cutoff=self.cutoff)
        return ws if self.synthesis is None else self.synthesis(ws, noise_mode=self.noise_mode)


class _Synthesize(nn.Module):
    """ws to img."""

    def __init__(self, G: Generator, noise_mode: str) -> None:
        super().__init__()
        self.synthesis, self.noise_mode = G.synthesis, noise_mode

    def forward(self, ws: Tensor) -> Tensor:
        return self.synthesis(ws, noise_mode=self.noise_mode)


def generator_part(
    G: Generator,
    name: str = "generator",
    *,
    truncation_psi: float | None = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> Part:
    """A generator, or its mapping or synthesis network, to be exported.

    Args:
        G:                 float32, on the CPU, in evaluation mode.
        name:              "generator", "mapping" or "synthesis".
        truncation_psi:    fixed in the file; None makes it an input. Of no meaning to "synthesis".
        truncation_cutoff: how many of the ws are truncated; None: all.
        noise_mode:        "const" or "none". Random noise would be the runtime's own, which no seed controls.

    Raises:
        ValueError: another name or noise mode.
    """
    if name not in PARTS[:3] or noise_mode not in NOISE_MODES:
        raise ValueError(f"expected one of {PARTS[:3]} and of {NOISE_MODES}, got {name!r} and {noise_mode!r}")
    shape = f"[N, {G.img_channels}, {G.img_resolution}, {G.img_resolution}]"
    img = f"{shape} float32, images, about -1 to 1; clamp them"
    ws = f"[N, {G.num_ws}, {G.w_dim}] float32, intermediate latents, one for each layer"
    inputs = {"z": f"[N, {G.z_dim}] float32, latents, standard normal"}
    if G.c_dim:
        inputs["c"] = f"[N, {G.c_dim}] float32, one-hot labels"
    if truncation_psi is None:
        inputs[PSI] = "[] float32, 1: no truncation, 0: the mean image"

    def latents(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        drawn = {"z": torch.randn([n, G.z_dim], generator=rng), "c": _labels(n, G.c_dim, rng), PSI: torch.tensor(0.7)}
        return {key: drawn[key] for key in inputs}

    def mapped(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"ws": G.mapping(torch.randn([n, G.z_dim], generator=rng), _labels(n, G.c_dim, rng))}

    batches = (1, 3, 5)
    if name == "synthesis":
        return Part(name, _Synthesize(G, noise_mode).eval(), {"ws": ws}, "img", img, mapped, batches)
    psi = 1.0 if truncation_psi is None else truncation_psi
    module = _Generate(G, psi, truncation_cutoff, noise_mode, mapping_only=name == "mapping").eval()
    output, meaning = ("ws", ws) if name == "mapping" else ("img", img)
    return Part(name, module, inputs, output, meaning, latents, batches)


def discriminator_part(D: Discriminator) -> Part:
    """A discriminator to be exported; float32, on the CPU, in evaluation mode.

    Where PyTorch's takes a batch, of up to the group size of its minibatch standard deviation or a multiple of it,
    the file computes the same; it takes other batches too, in groups that differ in size by one.
    """
    config = D.config
    size = [config.img_channels, config.img_resolution, config.img_resolution]
    inputs = {"img": f"[N, {', '.join(map(str, size))}] float32, images, -1 to 1"}
    if config.c_dim:
        inputs["c"] = f"[N, {config.c_dim}] float32, one-hot labels"

    def example(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        drawn = {"img": torch.rand([n, *size], generator=rng) * 2 - 1, "c": _labels(n, config.c_dim, rng)}
        return {key: drawn[key] for key in inputs}

    group = config.mbstd_group_size
    batches = (1, 3, 5) if group is None or not config.mbstd_num_channels else (1, min(group, 3), 2 * group)
    meaning = "[N, 1] float32, above 0: rather real"
    return Part("discriminator", D, inputs, "logits", meaning, example, tuple(sorted(set(batches))))


def _labels(n: int, c_dim: int, rng: torch.Generator) -> Tensor:
    """One-hot [n, c_dim] float32 of random classes."""
    return torch.eye(c_dim)[torch.randint(max(c_dim, 1), [n], generator=rng)] if c_dim else torch.zeros([n, 0])
