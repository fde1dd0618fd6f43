# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Latents and images of seeds, and the statistics of W."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent.seeded_noise import seeded_noise
from ggdr.stylegan2.layers import MappingNetwork
from ggdr.torch_utils.pictures.images import to_u8

# Latents drawn and mapped at once; fixed, since the numbers that a seed gives depend on how many are drawn at a time.
SAMPLES_AT_ONCE = 1024


# What a conditional network is to make: a class, or the c_dim numbers of a label; None for other networks.
Label = int | Sequence[float] | None

# Seeds and pictures.


def latents_of_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """[len(seeds), z_dim] float32 on the CPU, each row drawn from a random generator of its own."""
    return torch.stack([torch.randn([z_dim], generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds])


def repeat_label(num: int, c_dim: int, label: Label) -> Tensor:
    """[num, c_dim] float32, the same label for all; zeros where it is None."""
    c = torch.zeros([num, c_dim])
    if isinstance(label, int):
        c[:, label] = 1
    elif label is not None:
        c[:] = torch.tensor(label)
    return c


def map_latents(
    G: Generator,
    z: Tensor,
    label: Label = None,
    *,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> Tensor:
    """z [N, z_dim], on any device, to ws [N, num_ws, w_dim] float32 on the device of G; all of one label."""
    device = G.mapping.w_avg.device
    c = repeat_label(len(z), G.c_dim, label).to(device)
    with torch.no_grad():
        return G.mapping(z.to(device), c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)


def pictures(G: Generator, ws: Tensor, *, batch_size: int, noise_mode: str = "const") -> Iterator[np.ndarray]:
    """The images [H, W, C] uint8 of ws [N, num_ws, w_dim], on any device, one after the other."""
    device = G.mapping.w_avg.device
    for start in range(0, len(ws), batch_size):
        with torch.inference_mode():
            img = G.synthesis(ws[start : start + batch_size].to(device, torch.float32), noise_mode=noise_mode)
            images = to_u8(img).permute(0, 2, 3, 1).cpu().numpy()
        yield from images


def generate_images(
    G: Generator,
    seeds: Sequence[int],
    *,
    device: torch.device | str,
    batch_size: int,
    label: Label = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Generate the images of `seeds`, batch by batch.

    A seed's z is drawn on the CPU from a `torch.Generator` of its own, and its noise, if `noise_mode` is "random", is
    `seeded_noise`. So they depend neither on the device nor on the batch size nor on the other seeds.

    Args:
        G:         on `device`, in eval mode.
        label:     for a conditional G; None is all zeros, for an unconditional one.

    Yields:
        The batch's n seeds; images [n, C, H, W] uint8 and ws [n, num_ws, w_dim] float32, both on the CPU.
    """
    for start in range(0, len(seeds), batch_size):
        batch = list(seeds[start : start + batch_size])
        c = repeat_label(len(batch), G.c_dim, label)
        img, ws = images_of_seeds(
            G,
            batch,
            c,
            device=device,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            noise_mode=noise_mode,
        )
        yield batch, to_u8(img).cpu(), ws.cpu()


def images_of_seeds(
    G: Generator,
    seeds: Sequence[int],
    c: Tensor,
    *,
    device: torch.device | str,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> tuple[Tensor, Tensor]:
    """The image and the ws of each seed, drawn as `generate_images` says.

    Args:
        G: on `device`, in eval mode.
        c: [n, c_dim] labels.

    Returns:
        img [n, C, H, W] float32 and ws [n, num_ws, w_dim] float32, both on `device`.
    """
    z, noise = latents_of_seeds(seeds, G.z_dim), None
    if noise_mode == "random":
        shapes = G.synthesis.noise_shapes()
        noise = [seeded_noise(seeds, shape, stream=i, device=device) for i, shape in enumerate(shapes)]
    with torch.inference_mode():
        ws = G.mapping(z.to(device), c.to(device), truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return G.synthesis(ws, noise=noise, noise_mode=noise_mode), ws


# Statistics.


def sampled_w(mapping: MappingNetwork, num: int, label: Label = None, *, seed: int = 0) -> Iterator[Tensor]:
    """`num` latents of W, of one label, drawn on the CPU from `seed`: groups [n, w_dim] float32."""
    generator = torch.Generator("cpu").manual_seed(seed)
    device = mapping.w_avg.device
    for start in range(0, num, SAMPLES_AT_ONCE):
        z = torch.randn([SAMPLES_AT_ONCE, mapping.z_dim], generator=generator)[: num - start]
        c = repeat_label(len(z), mapping.c_dim, label)
        with torch.no_grad():
            w = mapping(z.to(device), c.to(device))[:, 0]
        yield w


def w_covariance(mapping: MappingNetwork, num: int, label: Label = None, *, seed: int = 0) -> Tensor:
    """Covariance of W: [w_dim, w_dim] float64 on the CPU, of `num` >= 2 latents of `sampled_w`."""
    total, squares = 0, 0
    for w in sampled_w(mapping, num, label, seed=seed):
        # About the tracked mean, so that little cancels when the mean is taken away below.
        w = (w - mapping.w_avg).double()
        total, squares = total + w.sum(0), squares + w.t() @ w
    return ((squares - torch.outer(total, total) / num) / (num - 1)).cpu()
