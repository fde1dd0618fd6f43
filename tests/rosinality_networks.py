# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 written out from the papers' equations, with parameters named as in rosinality's stylegan2-pytorch.

Each image has its own modulated kernel, and resampling is zero insertion and a convolution with a FIR filter: slow,
and plain enough to be checked by eye. For tests of imported weights.
Source: Karras et al. 2020, arXiv:1912.04958, Section 2 and Appendix B.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = math.sqrt(2)


def fir_kernel(gain: float) -> Tensor:
    """[4, 4], the outer product of [1, 3, 3, 1] with itself, of this sum."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum() * gain


def fir(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """Pads and filters each channel."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n * c, 1, h, w), [before, after, before, after])
    x = F.conv2d(x, kernel.flip([0, 1])[None, None])
    return x.reshape(n, c, *x.shape[2:])


def insert_zeros(x: Tensor) -> Tensor:
    """A zero behind each row and column."""
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, 2 * h, 2 * w)
    out[:, :, ::2, ::2] = x
    return out


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * SQRT2


class Filter(nn.Module):
    """Holds a FIR kernel."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(gain))


class Bias(nn.Module):
    """Bias and leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return leaky(x + self.bias[:, None, None])


class Linear(nn.Module):
    """Equalised linear layer."""

    def __init__(self, n_in: int, n_out: int, *, lr: float = 1.0, bias: float = 0.0, act: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr)
        self.bias = nn.Parameter(bias + torch.randn(n_out) * 0.1)
        self.lr, self.act = lr, act

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.lr / math.sqrt(self.weight.shape[1]), self.bias * self.lr)
        return leaky(x) if self.act else x


class PixelNorm(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


class ModulatedConv(nn.Module):
    """Convolution with a kernel for each image."""

    def __init__(self, c_in: int, c_out: int, size: int, w_dim: int, *, demodulate: bool = True, up: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, c_out, c_in, size, size))
        self.modulation = Linear(w_dim, c_in, bias=1.0)
        self.demodulate, self.up = demodulate, up
        if up:
            self.blur = Filter(4)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n, c_in, h, _ = x.shape
        kernels = self.weight / math.sqrt(self.weight[0, 0].numel()) * self.modulation(w)[:, None, :, None, None]
        if self.demodulate:
            kernels = kernels / (kernels.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).sqrt()
        c_out, size = kernels.shape[1], kernels.shape[-1]
        if self.up:
            # A transposed convolution for each image, and the filter over its (2h + 1)^2 pixels.
            x = x.reshape(1, n * c_in, h, h)
            kernels = kernels.transpose(1, 2).reshape(n * c_in, c_out, size, size)
            x = F.conv_transpose2d(x, kernels, stride=2, groups=n).reshape(n, c_out, 2 * h + 1, 2 * h + 1)
            return fir(x, self.blur.kernel, 1, 1)
        x = F.conv2d(x.reshape(1, n * c_in, h, h), kernels.flatten(0, 1), padding=size // 2, groups=n)
        return x.reshape(n, c_out, h, h)


class Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1))


class StyledConv(nn.Module):
    def __init__(self, c_in: int, c_out: int, w_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, c_out, 3, w_dim, up=up)
        self.noise = Noise()
        self.activate = Bias(c_out)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        return self.activate(self.conv(x, w) + self.noise.weight * noise)


class ToRGB(nn.Module):
    def __init__(self, c_in: int, w_dim: int, *, up: bool = True) -> None:
        super().__init__()
        if up:
            self.upsample = Filter(4)
        self.conv = ModulatedConv(c_in, 3, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.randn(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor, img: Tensor | None = None) -> Tensor:
        rgb = self.conv(x, w) + self.bias
        return rgb if img is None else rgb + fir(insert_zeros(img), self.upsample.kernel, 2, 1)


class ConstantInput(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))


class Noises(nn.Module):
    """noise_0 of 4x4, noise_1 and noise_2 of 8x8, and so on."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        for i in range(num_layers):
            res = 4 << (i + 1) // 2
            self.register_buffer(f"noise_{i}", torch.randn(1, 1, res, res))


class Generator(nn.Module):
    """z [N, w_dim] -> [N, 3, size, size]."""

    def __init__(self, channels: dict[int, int], *, w_dim: int = 6, num_layers: int = 3, lr: float = 0.01) -> None:
        super().__init__()
        self.style = nn.Sequential(PixelNorm(), *(Linear(w_dim, w_dim, lr=lr, act=True) for _ in range(num_layers)))
        self.input = ConstantInput(channels[4])
        self.conv1 = StyledConv(channels[4], channels[4], w_dim)
        self.to_rgb1 = ToRGB(channels[4], w_dim, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for res in sorted(channels)[1:]:
            self.convs.append(StyledConv(channels[res // 2], channels[res], w_dim, up=True))
            self.convs.append(StyledConv(channels[res], channels[res], w_dim))
            self.to_rgbs.append(ToRGB(channels[res], w_dim))
        self.noises = Noises(1 + len(self.convs))

    def forward(self, z: Tensor, *, psi: float = 1.0, latent_avg: Tensor | None = None) -> Tensor:
        w = self.style(z)
        if latent_avg is not None:
            w = latent_avg + psi * (w - latent_avg)
        x = self.input.input.expand(len(z), -1, -1, -1)
        x = self.conv1(x, w, self.noises.noise_0)
        img = self.to_rgb1(x, w)
        for i, conv in enumerate(self.convs):
            x = conv(x, w, getattr(self.noises, f"noise_{i + 1}"))
            if i % 2:
                img = self.to_rgbs[i // 2](x, w, img)
        return img


class Conv(nn.Module):
    """Equalised convolution without bias."""

    def __init__(self, c_in: int, c_out: int, size: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, size, size))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


class Blur(Filter):
    def __init__(self, padding: int) -> None:
        super().__init__(1)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return fir(x, self.kernel, self.padding, self.padding)


class ResBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(Conv(c_in, c_in, 3, padding=1), Bias(c_in))
        self.conv2 = nn.Sequential(Blur(2), Conv(c_in, c_out, 3, stride=2), Bias(c_out))
        self.skip = nn.Sequential(Blur(1), Conv(c_in, c_out, 1, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / SQRT2


class Discriminator(nn.Module):
    """[N, 3, size, size] -> [N, 1]."""

    def __init__(self, channels: dict[int, int]) -> None:
        super().__init__()
        sizes = sorted(channels, reverse=True)
        blocks = [ResBlock(channels[res], channels[res // 2]) for res in sizes[:-1]]
        self.convs = nn.Sequential(nn.Sequential(Conv(3, channels[sizes[0]], 1), Bias(channels[sizes[0]])), *blocks)
        self.final_conv = nn.Sequential(Conv(channels[4] + 1, channels[4], 3, padding=1), Bias(channels[4]))
        self.final_linear = nn.Sequential(Linear(channels[4] * 16, channels[4], act=True), Linear(channels[4], 1))

    def forward(self, img: Tensor) -> Tensor:
        x = self.convs(img)
        n, c, h, w = x.shape
        group = min(n, 4)
        deviation = (x.reshape(group, -1, c, h, w).var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=[1, 2, 3])
        x = torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(-1, 1, h, w)], dim=1)
        return self.final_linear(self.final_conv(x).flatten(1))
