# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Generators from noise: z [N, 32, 1, 1] -> images [N, 3, 64, 64]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = {4: 64, 8: 64, 16: 64, 32: 48, 64: 32}  # channels by size


def dcgan_g() -> nn.Sequential:
    """Radford et al. 2016, arXiv:1511.06434."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(32, 64, 4), nn.BatchNorm2d(64), nn.ReLU(True)]
    for cin, cout in ((64, 64), (64, 64), (64, 32)):
        layers += [nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())


class SelfAttention(nn.Module):
    """Zhang et al. 2018, arXiv:1805.08318: x plus attention between its pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.softmax, self.gain = nn.Softmax(dim=-1), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = self.softmax(q.transpose(1, 2) @ k)
        return x + self.gain * (v @ weights.transpose(1, 2)).view_as(x)


class BigGAN(nn.Module):
    """Brock et al. 2018, arXiv:1809.11096: residual blocks with a branch in place, attention among them."""

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(cin), nn.BatchNorm2d(cout)
            self.conv1, self.conv2 = nn.Conv2d(cin, cout, 3, padding=1), nn.Conv2d(cout, cout, 3, padding=1)
            self.conv_sc, self.activation = nn.Conv2d(cin, cout, 1), nn.ReLU(inplace=False)

        def forward(self, x: Tensor) -> Tensor:
            h = self.conv1(F.interpolate(self.activation(self.bn1(x)), scale_factor=2))
            h = self.conv2(self.activation(self.bn2(h)))
            return h + self.conv_sc(F.interpolate(x, scale_factor=2))

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 64 * 16)
        sizes = list(WIDTHS)
        self.blocks = nn.ModuleList()
        for small, large in zip(sizes, sizes[1:], strict=False):
            block = [self.Block(WIDTHS[small], WIDTHS[large])]
            self.blocks.append(nn.ModuleList(block + [SelfAttention(WIDTHS[large])] * (large == 32)))
        self.output_layer = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(True), nn.Conv2d(32, 3, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        x = self.linear(z.flatten(1)).view(-1, 64, 4, 4)
        for layers in self.blocks:
            for layer in layers:
                x = layer(x)
        return torch.tanh(self.output_layer(x))


class Modulated(nn.Module):
    """Convolution with instance norm and a style, after upsampling or not."""

    def __init__(self, cin: int, cout: int, up: bool = False) -> None:
        super().__init__()
        self.up, self.conv, self.style = up, nn.Conv2d(cin, cout, 3, padding=1), nn.Linear(32, 2 * cout)
        self.activate = nn.LeakyReLU(0.2, True)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = self.activate(self.conv(x))
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        return F.instance_norm(x + torch.randn_like(x[:, :1])) * (1 + scale) + shift


class StyleGAN1(nn.Module):
    """Karras et al. 2018, arXiv:1812.04948, grown to the end: an image at each size, of which the last counts."""

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.conv0, self.conv1 = Modulated(cin, cout, up=cin > 0), Modulated(cout, cout)

        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return self.conv1(self.conv0(x, w), w)

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32))
        self.const = nn.Parameter(torch.randn(1, 64, 4, 4))
        sizes = list(WIDTHS)
        pairs = zip(sizes, sizes[1:], strict=False)
        self.progression = nn.ModuleList(self.Block(WIDTHS[small], WIDTHS[large]) for small, large in pairs)
        self.to_rgb = nn.ModuleList(nn.Conv2d(WIDTHS[size], 3, 1) for size in sizes[1:])

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z.flatten(1))
        x = self.const.repeat(len(w), 1, 1, 1)
        for block in self.progression:
            x = block(x, w)
        return self.to_rgb[-1](x)


class StyleGAN2(nn.Module):
    """Karras et al. 2019, arXiv:1912.04958: images of all sizes are enlarged and summed. Flat, without blocks.

    `per_pixel` 4 is SWAGAN, Gal et al. 2021, arXiv:2102.06108: what is summed are wavelets, of half the image's size.
    """

    class ToRGB(nn.Module):
        def __init__(self, cin: int, channels: int) -> None:
            super().__init__()
            self.conv, self.upsample = nn.Conv2d(cin, channels, 1), nn.Upsample(scale_factor=2, mode="bilinear")

        def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
            return self.conv(x) if skip is None else self.conv(x) + self.upsample(skip)

    def __init__(self, per_pixel: int = 1) -> None:
        super().__init__()
        self.style = nn.Sequential(nn.Linear(32, 32), nn.LeakyReLU(0.2))
        self.input, self.conv1 = nn.Parameter(torch.randn(1, 64, 4, 4)), Modulated(64, 64)
        sizes = list(WIDTHS)[: None if per_pixel == 1 else -1]
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList([self.ToRGB(64, 3 * per_pixel)])
        for small, large in zip(sizes, sizes[1:], strict=False):
            self.convs.append(Modulated(WIDTHS[small], WIDTHS[large], up=True))
            self.convs.append(Modulated(WIDTHS[large], WIDTHS[large]))
            self.to_rgbs.append(self.ToRGB(WIDTHS[large], 3 * per_pixel))
        self.iwt = nn.PixelShuffle(2) if per_pixel == 4 else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        w = self.style(z.flatten(1))
        x = self.conv1(self.input.repeat(len(w), 1, 1, 1), w)
        skip = self.to_rgbs[0](x, None)
        for up, conv, to_rgb in zip(self.convs[::2], self.convs[1::2], self.to_rgbs[1:], strict=True):
            x = conv(up(x, w), w)
            skip = to_rgb(x, skip)
        return self.iwt(skip)


class FastGAN(nn.Module):
    """Liu et al. 2021, arXiv:2101.04775: small maps gate the channels of large ones."""

    class Excitation(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.main = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(cin, cout, 4), nn.SiLU())
            self.main.extend([nn.Conv2d(cout, cout, 1), nn.Sigmoid()])

        def forward(self, small: Tensor, large: Tensor) -> Tensor:
            return large * self.main(small)

    def __init__(self) -> None:
        super().__init__()
        self.init = nn.Sequential(nn.ConvTranspose2d(32, 128, 4), nn.BatchNorm2d(128), nn.GLU(dim=1))
        self.feat_8, self.feat_16 = self.up(64, 64), self.up(64, 64)
        self.feat_32, self.feat_64 = self.up(64, 48), self.up(48, 32)
        self.se_16, self.se_32, self.se_64 = (self.Excitation(64, cout) for cout in (64, 48, 32))
        self.to_big = nn.Conv2d(32, 3, 3, padding=1)

    @staticmethod
    def up(cin: int, cout: int) -> nn.Sequential:
        conv = nn.Conv2d(cin, 2 * cout, 3, padding=1, bias=False)
        return nn.Sequential(nn.Upsample(scale_factor=2), conv, nn.BatchNorm2d(2 * cout), nn.GLU(dim=1))

    def forward(self, z: Tensor) -> Tensor:
        feat_4 = self.init(z)
        feat_8 = self.feat_8(feat_4)
        feat_16 = self.se_16(feat_4, self.feat_16(feat_8))
        feat_32 = self.se_32(feat_8, self.feat_32(feat_16))
        feat_64 = self.se_64(feat_16, self.feat_64(feat_32))
        return torch.tanh(self.to_big(feat_64))


class AttentionInLists(nn.Module):
    """Lists of steps for each size, of which the attention is added by the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.initial, self.layers = nn.ConvTranspose2d(32, 64, 4), nn.ModuleList()
        sizes = list(WIDTHS)
        for small, large in zip(sizes, sizes[1:], strict=False):
            up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(WIDTHS[small], WIDTHS[large], 3, padding=1))
            attention = nn.Sequential(nn.GroupNorm(1, WIDTHS[large]), SelfAttention(WIDTHS[large]))
            self.layers.append(nn.ModuleList([up, attention] if large == 16 else [up]))
        self.out_conv = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.normalize(self.initial(z), dim=1)
        for up, *attention in self.layers:
            x = F.gelu(up(x))
            for layer in attention:
                x = layer(x) + x
        return self.out_conv(x)


GENERATORS = {
    "DCGAN": dcgan_g,
    "BigGAN": BigGAN,
    "StyleGAN": StyleGAN1,
    "StyleGAN2, flat": StyleGAN2,
    "SWAGAN": lambda: StyleGAN2(per_pixel=4),
    "FastGAN": FastGAN,
    "attention in lists": AttentionInLists,
}
