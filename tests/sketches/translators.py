# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Generators from images: [N, 3, 64, 64], or [N, 3, 16, 16] to be enlarged -> images [N, 3, 64, 64]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(cin: int, cout: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, stride, 1)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, channels)
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class UNetLevel(nn.Module):
    """A level of pix2pix's U-Net, Isola et al. 2016, arXiv:1611.07004, with the smaller levels inside of it."""

    def __init__(self, outer: int, inner: int, inside: nn.Module | None) -> None:
        super().__init__()
        self.outermost = outer == 3
        down = nn.Conv2d(outer, inner, 4, 2, 1)
        up = nn.ConvTranspose2d(inner * (1 if inside is None else 2), outer, 4, 2, 1)
        middle = [] if inside is None else [inside]
        if self.outermost:
            self.model = nn.Sequential(down, *middle, nn.ReLU(True), up, nn.Tanh())
        else:
            norm_down = [] if inside is None else [nn.BatchNorm2d(inner)]
            layers = [nn.LeakyReLU(0.2, True), down, *norm_down, *middle, nn.ReLU(True), up, nn.BatchNorm2d(outer)]
            self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


def pix2pix() -> nn.Module:
    net = None
    for outer, inner in ((64, 64), (64, 64), (64, 64), (32, 64), (3, 32)):
        net = UNetLevel(outer, inner, net)
    return net


class FlatUNet(nn.Module):
    """The same with its skip connections in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.down3, self.down4 = (
            conv(3, 32, 2),
            conv(32, 48, 2),
            conv(48, 64, 2),
            conv(64, 64, 2),
        )
        self.up4, self.up3, self.up2, self.up1 = conv(64, 64), conv(128, 48), conv(96, 32), conv(64, 32)
        self.last = conv(32, 3)

    def forward(self, img: Tensor) -> Tensor:
        def larger(x: Tensor) -> Tensor:
            return F.interpolate(F.relu(x, inplace=True), scale_factor=2)

        d1 = self.down1(img)
        d2 = self.down2(F.leaky_relu(d1, 0.2))
        d3 = self.down3(F.leaky_relu(d2, 0.2))
        d4 = self.down4(F.leaky_relu(d3, 0.2))
        u3 = torch.cat([self.up4(larger(d4)), d3], dim=1)
        u2 = torch.cat([self.up3(larger(u3)), d2], dim=1)
        u1 = torch.cat([self.up2(larger(u2)), d1], dim=1)
        return torch.tanh(self.last(F.relu(self.up1(larger(u1)))))


def cyclegan() -> nn.Sequential:
    """Zhu et al. 2017, arXiv:1703.10593: reflected borders, down, residual blocks, up."""
    net = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, 32, 7), nn.InstanceNorm2d(32), nn.ReLU(True))
    for cin, cout in ((32, 48), (48, 64)):
        net.extend([conv(cin, cout, 2), nn.InstanceNorm2d(cout), nn.ReLU(True)])
    net.extend([Residual(64) for _ in range(3)])
    for cin, cout in ((64, 48), (48, 32)):
        up = nn.ConvTranspose2d(cin, cout, 3, 2, 1, output_padding=1)
        net.extend([up, nn.InstanceNorm2d(cout), nn.ReLU(True)])
    return net.extend([nn.ReflectionPad2d(3), nn.Conv2d(32, 3, 7), nn.Tanh()])


class Autoencoder(nn.Module):
    """Rombach et al. 2021, arXiv:2112.10752, and VQGAN, Esser et al. 2020, arXiv:2012.09841: codes of few channels."""

    class Down(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.resnets, self.downsample = nn.ModuleList([Residual(cin)]), conv(cin, cout, 2)

        def forward(self, x: Tensor) -> Tensor:
            for resnet in self.resnets:
                x = resnet(x)
            return self.downsample(x)

    class Up(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.resnets, self.upsample = nn.ModuleList([Residual(cin)]), conv(cin, cout)

        def forward(self, x: Tensor) -> Tensor:
            for resnet in self.resnets:
                x = resnet(x)
            return self.upsample(F.interpolate(x, scale_factor=2))

    def __init__(self, quantized: bool) -> None:
        super().__init__()
        self.quantized = quantized
        blocks = [conv(3, 32), self.Down(32, 48), self.Down(48, 64), Residual(64), conv(64, 8)]
        self.encoder = nn.Sequential(*blocks)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1)
        self.codes = nn.Parameter(torch.randn(16, 4))
        self.decoder = nn.Sequential(conv(4, 64), Residual(64), self.Up(64, 48), self.Up(48, 32), conv(32, 3))

    def forward(self, img: Tensor) -> Tensor:
        code = self.quant_conv(self.encoder(img))
        if self.quantized:
            nearest = torch.cdist(code.flatten(2).transpose(1, 2), self.codes).argmin(dim=2)
            code = code + (self.codes[nearest].transpose(1, 2).view_as(code) - code).detach()
        return self.decoder(self.post_quant_conv(code))


class MUNIT(nn.Module):
    """Huang et al. 2018, arXiv:1804.04732: content and style are encoded apart and decoded together."""

    class Styled(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv, self.style = conv(channels, channels), nn.Linear(8, 2 * channels)
            self.given: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            scale, shift = self.style(self.given)[:, :, None, None].chunk(2, dim=1)
            return x + F.relu(F.instance_norm(self.conv(x)) * (1 + scale) + shift)

    def __init__(self) -> None:
        super().__init__()
        self.enc_style = nn.Sequential(conv(3, 32, 2), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1))
        content = [conv(3, 32), nn.ReLU(True), conv(32, 48, 2), nn.ReLU(True), conv(48, 64, 2), Residual(64)]
        self.enc_content = nn.Sequential(*content)
        self.dec = nn.Sequential(nn.Sequential(self.Styled(64), self.Styled(64)))
        for cin, cout in ((64, 48), (48, 32)):
            self.dec.extend([nn.Upsample(scale_factor=2), conv(cin, cout), nn.ReLU(True)])
        self.dec.extend([conv(32, 3), nn.Tanh()])

    def forward(self, img: Tensor) -> Tensor:
        content, style = self.enc_content(img), self.enc_style(img).flatten(1)
        for layer in self.dec.modules():
            if isinstance(layer, self.Styled):
                layer.given = style
        return self.dec(content)


class SRGAN(nn.Module):
    """Ledig et al. 2016, arXiv:1609.04802: residual blocks at the small size, and a skip connection around them all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_first, self.body = conv(3, 32), nn.Sequential(*(Residual(32) for _ in range(4)))
        self.conv_body, self.conv_up1, self.conv_up2 = conv(32, 32), conv(32, 32), conv(32, 32)
        self.conv_hr, self.conv_last, self.act = conv(32, 32), conv(32, 3), nn.LeakyReLU(0.2, inplace=True)

    def forward(self, img: Tensor) -> Tensor:
        feat = self.conv_first(img)
        feat = feat + self.conv_body(self.body(feat))
        for layer in (self.conv_up1, self.conv_up2):
            feat = self.act(layer(F.interpolate(feat, scale_factor=2)))
        return self.conv_last(F.leaky_relu(self.conv_hr(feat), 0.2, inplace=True))


class SPADE(nn.Module):
    """Park et al. 2019, arXiv:1903.07291: the input, a map of labels, scales and shifts the features of each size."""

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.shared, self.gamma, self.beta = conv(3, 16), conv(16, cin), conv(16, cin)
            self.conv_0, self.conv_s = conv(cin, cout), nn.Conv2d(cin, cout, 1)

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            of_labels = F.relu(self.shared(F.interpolate(labels, x.shape[2:])))
            h = F.instance_norm(x) * (1 + self.gamma(of_labels)) + self.beta(of_labels)
            return self.conv_s(x) + self.conv_0(F.leaky_relu(h, 0.2))

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.up = conv(3, 64), nn.Upsample(scale_factor=2)
        self.head_0, self.up_0, self.up_1 = self.Block(64, 64), self.Block(64, 64), self.Block(64, 48)
        self.up_2, self.conv_img = self.Block(48, 32), conv(32, 3)

    def forward(self, labels: Tensor) -> Tensor:
        x = self.head_0(self.fc(F.interpolate(labels, (8, 8))), labels)
        for block in (self.up_0, self.up_1, self.up_2):
            x = block(self.up(x), labels)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


TRANSLATORS = {
    "pix2pix U-Net": pix2pix,
    "U-Net, flat": FlatUNet,
    "CycleGAN": cyclegan,
    "KL autoencoder": lambda: Autoencoder(quantized=False),
    "VQGAN": lambda: Autoencoder(quantized=True),
    "MUNIT": MUNIT,
    "SRGAN": SRGAN,
    "SPADE": SPADE,
}
