# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Latents and images to look at a generator with: of seeds, along walks, mixed from two; and the statistics of W."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ggdr.stylegan2.generator import Generator, SynthesisNetwork
from ggdr.stylegan2.layers import MappingNetwork
from ggdr.torch_utils.pictures.images import to_u8

CURVES = ("linear", "cubic")
# Latents drawn and mapped at once; fixed, since the numbers that a seed gives depend on how many are drawn at a time.
SAMPLES_AT_ONCE = 1024


# Seeds and pictures.


def latents_of_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """[len(seeds), z_dim] float32 on the CPU, each row drawn from a random generator of its own."""
    return torch.stack([torch.randn([z_dim], generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds])


def class_labels(num: int, c_dim: int, class_idx: int | None) -> Tensor:
    """[num, c_dim] float32 one-hot labels of one class; zeros where `class_idx` is None."""
    c = torch.zeros([num, c_dim])
    if class_idx is not None:
        c[:, class_idx] = 1
    return c


def map_latents(
    G: Generator,
    z: Tensor,
    class_idx: int | None = None,
    *,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> Tensor:
    """z [N, z_dim], on any device, to ws [N, num_ws, w_dim] float32 on the device of G; all of one class."""
    device = G.mapping.w_avg.device
    c = class_labels(len(z), G.c_dim, class_idx).to(device)
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
    class_idx: int | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Generate the images of `seeds`, batch by batch.

    A seed's z, and its noise if `noise_mode` is "random", are drawn on the CPU from a `torch.Generator` of
    their own, so that they depend neither on the device nor on the batch size nor on the other seeds.

    Args:
        G:         on `device`, in eval mode.
        class_idx: for a conditional G; None is all zeros, for an unconditional one.

    Yields:
        The batch's n seeds; images [n, C, H, W] uint8 and ws [n, num_ws, w_dim] float32, both on the CPU.
    """
    for start in range(0, len(seeds), batch_size):
        batch = list(seeds[start : start + batch_size])
        c = class_labels(len(batch), G.c_dim, class_idx)
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
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    z = torch.stack([torch.randn([G.z_dim], generator=generator) for generator in generators])
    noise = None
    if noise_mode == "random":
        draws = [G.synthesis.draw_noise(1, generator=generator) for generator in generators]
        noise = [torch.cat(layer).to(device) for layer in zip(*draws, strict=True)]
    with torch.inference_mode():
        ws = G.mapping(z.to(device), c.to(device), truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return G.synthesis(ws, noise=noise, noise_mode=noise_mode), ws


# Walks.


@dataclass(frozen=True)
class Walk:
    """A path through latents that is at key k at time k.

    keys:      [K, ..., D] float64, K >= 2.
    bends:     [K, ..., D] float64, second derivatives at the keys; None for a path of straight lines or arcs.
    closed:    it returns to the first key at time K; an open one ends with the last, at K - 1.
    on_sphere: all its points have the length of a typical latent, sqrt(D).
    """

    keys: Tensor
    bends: Tensor | None
    closed: bool
    on_sphere: bool

    @property
    def num_segments(self) -> int:
        """Stretches from one key to the next."""
        return len(self.keys) - (not self.closed)

    def times(self, frames: int) -> Tensor:
        """[T] float64, `frames` to a segment; an open walk ends on its last key, a closed one just before its first."""
        return torch.arange(self.num_segments * frames + (not self.closed), dtype=torch.float64) / frames

    def at(self, t: Tensor) -> Tensor:
        """Points [T, ..., D] float64 at times t [T] float64; from 0 to K - 1, or any time if closed."""
        segment = t.floor().long()
        if not self.closed:
            segment = segment.clamp(0, self.num_segments - 1)
        b = (t - segment).view(-1, *[1] * (self.keys.ndim - 1))
        a = 1 - b
        i, j = segment % len(self.keys), (segment + 1) % len(self.keys)
        bend = 0
        if self.bends is not None:
            bend = ((a**3 - a) * self.bends[i] + (b**3 - b) * self.bends[j]) / 6
        elif self.on_sphere:
            # Along the arc at constant speed: sin(a x) and sin(b x), both divided by x so that x may be 0.
            x = _angle(self.keys[i], self.keys[j])
            a, b = a * torch.sinc(a * x / math.pi), b * torch.sinc(b * x / math.pi)
        points = a * self.keys[i] + b * self.keys[j] + bend
        return _to_sphere(points) if self.on_sphere else points


def walk_through(
    keys: Tensor,
    *,
    curve: Literal["linear", "cubic"] = "cubic",
    closed: bool = True,
    on_sphere: bool = False,
) -> Walk:
    """A walk through key latents.

    Args:
        keys:      [K, ..., D] float, K >= 2; walks side by side share their times, as [K, cells, D].
        curve:     "linear": straight lines, on the sphere arcs of great circles, at constant speed from key to key.
            "cubic": a cubic spline, which turns without a corner or a jolt (its second derivative is continuous),
            also where a closed walk returns; natural (straight) at the ends of an open one.
        closed:    return to the first key.
        on_sphere: for z, whose direction is all that a mapping network sees: keys and points are scaled to the length
            sqrt(D), a cubic walk by projecting the spline.

    Raises:
        ValueError: fewer than two keys, or another curve.

    Source: Shoemake 1985, "Animating rotation with quaternion curves" (arcs); the spline is the textbook's.
    """
    if len(keys) < 2:
        raise ValueError(f"a walk needs 2 keys or more, got {len(keys)}")
    if curve not in CURVES:
        raise ValueError(f"expected a linear or cubic curve, got {curve!r}")
    keys = keys.detach().to("cpu", torch.float64)
    keys = _to_sphere(keys) if on_sphere else keys
    bends = _spline_bends(keys, closed=closed) if curve == "cubic" else None
    return Walk(keys, bends, closed, on_sphere)


def _spline_bends(y: Tensor, *, closed: bool) -> Tensor:
    """Second derivatives m of the cubic spline through y [K, ...]: m[i-1] + 4 m[i] + m[i+1] = 6 (y'' of differences).

    Of a closed walk the system is circulant, which a Fourier transform makes diagonal. Of an open one it becomes so by
    reflection: continued oddly about both its ends, m is 0 there, which is what makes a spline natural.
    """
    if closed:
        d = 6 * (y.roll(1, 0) - 2 * y + y.roll(-1, 0))
    else:
        inner, end = 6 * (y[:-2] - 2 * y[1:-1] + y[2:]), torch.zeros_like(y[:1])
        d = torch.cat([end, inner, end, -inner.flip(0)])
    spectrum = torch.fft.rfft(d, dim=0)
    k = torch.arange(len(spectrum), dtype=y.dtype).view(-1, *[1] * (y.ndim - 1))
    return torch.fft.irfft(spectrum / (4 + 2 * torch.cos(2 * math.pi * k / len(d))), n=len(d), dim=0)[: len(y)]


def _to_sphere(x: Tensor) -> Tensor:
    """[..., D], each point scaled to the length sqrt(D)."""
    return torch.nn.functional.normalize(x, dim=-1) * math.sqrt(x.shape[-1])


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """[..., 1], the angle between vectors of one length; exact for small ones too, unlike an arc cosine."""
    return 2 * torch.atan2((x - y).norm(dim=-1, keepdim=True), (x + y).norm(dim=-1, keepdim=True))


# Layers.


def layer_resolutions(synthesis: SynthesisNetwork) -> list[int]:
    """Pixels of the layer that each of the ws drives: the 3x3 convolutions from 4x4 up, and the last toRGB."""
    return [block.res for block in synthesis.blocks for _ in block.convs] + [synthesis.resolutions[-1]]


def layer_bands(synthesis: SynthesisNetwork) -> dict[str, list[int]]:
    """Indices of ws called "coarse", "middle" and "fine".

    As in the paper coarse ends at 8x8 and middle at 32x32, if the network is large enough. Else fine is the highest
    resolution, middle the one below it and coarse the rest; of an 8x8 network fine is the last toRGB alone.

    Source: Karras et al. 2019, arXiv:1812.04948, Section 3.1.
    """
    resolutions = layer_resolutions(synthesis)
    middle_end = max(min(32, resolutions[-1] // 2), 8)
    coarse_end = min(8, middle_end // 2)
    bands: dict[str, list[int]] = {"coarse": [], "middle": [], "fine": [len(resolutions) - 1]}
    for i, res in reversed(list(enumerate(resolutions[:-1]))):
        bands["coarse" if res <= coarse_end else "middle" if res <= middle_end else "fine"].insert(0, i)
    return bands


def mix_styles(base: Tensor, style: Tensor, layers: Sequence[int]) -> Tensor:
    """Every base with the styles of every other: ws [R, num_ws, w_dim], [C, num_ws, w_dim] to [R, C, num_ws, w_dim].

    Source: Karras et al. 2019, arXiv:1812.04948, Section 3.1.
    """
    ws = base[:, None].repeat(1, len(style), 1, 1)
    ws[:, :, list(layers)] = style[None, :, list(layers)]
    return ws


# Statistics.


def sampled_w(mapping: MappingNetwork, num: int, class_idx: int | None = None, *, seed: int = 0) -> Iterator[Tensor]:
    """`num` latents of W, of one class, drawn on the CPU from `seed`: groups [n, w_dim] float32."""
    generator = torch.Generator("cpu").manual_seed(seed)
    device = mapping.w_avg.device
    for start in range(0, num, SAMPLES_AT_ONCE):
        z = torch.randn([SAMPLES_AT_ONCE, mapping.z_dim], generator=generator)[: num - start]
        c = class_labels(len(z), mapping.c_dim, class_idx)
        with torch.no_grad():
            w = mapping(z.to(device), c.to(device))[:, 0]
        yield w


def w_covariance(mapping: MappingNetwork, num: int, class_idx: int | None = None, *, seed: int = 0) -> Tensor:
    """Covariance of W: [w_dim, w_dim] float64 on the CPU, of `num` >= 2 latents of `sampled_w`."""
    total, squares = 0, 0
    for w in sampled_w(mapping, num, class_idx, seed=seed):
        # About the tracked mean, so that little cancels when the mean is taken away below.
        w = (w - mapping.w_avg).double()
        total, squares = total + w.sum(0), squares + w.t() @ w
    return ((squares - torch.outer(total, total) / num) / (num - 1)).cpu()
