# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Discriminators: images [N, 3, 64, 64] -> logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as sn


def conv(cin: int, cout: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, stride, 1)


def dcgan_d() -> nn.Sequential:
    """Radford et al. 2016, arXiv:1511.06434."""
    net = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2, True))
    for cin, cout in ((16, 32), (32, 64), (64, 64)):
        net.extend([nn.Conv2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), nn.LeakyReLU(0.2, True)])
    return net.append(nn.Conv2d(64, 1, 4))


def patchgan(antialiased: bool = False) -> nn.Sequential:
    """Isola et al. 2016, arXiv:1611.07004: logits for patches; `antialiased` as in Zhang 2019, arXiv:1904.11486."""
    layers: list[nn.Module] = []
    for cin, cout in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(cin, cout, 4, 1 if antialiased else 2, 1),
            nn.InstanceNorm2d(cout),
            nn.LeakyReLU(0.2, True),
        ]
        layers += [Blur(cout, stride=2)] if antialiased else []
    layers += [nn.Conv2d(64, 64, 4, 1, 1), nn.InstanceNorm2d(64), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 4, 1, 1))


class Blur(nn.Module):
    """[1, 2, 1] in both directions; `pad` pixels on each side, as a convolution after it may want."""

    def __init__(self, channels: int, stride: int = 1, pad: int = 1) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(taps, taps).repeat(channels, 1, 1, 1))
        self.stride, self.pad = stride, pad

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, None, self.stride, self.pad, groups=len(self.kernel))


class StyleGAN2(nn.Module):
    """Karras et al. 2019, arXiv:1912.04958: residual blocks with blurs of odd sizes inside."""

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.conv1 = nn.Sequential(conv(cin, cin), nn.LeakyReLU(0.2, True))
            down, act = nn.Conv2d(cin, cout, 3, 2), nn.LeakyReLU(0.2, True)
            self.conv2, self.skip = nn.Sequential(Blur(cin, pad=2), down, act), nn.Sequential(Blur(cin, pad=1))
            self.skip.append(nn.Conv2d(cin, cout, 1, 2))

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv2(self.conv1(x))[:, :, : x.shape[2] // 2, : x.shape[3] // 2] + self.skip(x)) / 2**0.5

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 16, 1), *(self.Block(c, 2 * c) for c in (16, 32)))
        self.convs.extend([self.Block(64, 64), self.Block(64, 64)])
        self.final_conv = conv(65, 64)
        self.final_linear = nn.Sequential(nn.Linear(64 * 16, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

    def forward(self, img: Tensor) -> Tensor:
        x = self.convs(img)
        std = x.std(dim=0, unbiased=False).mean().expand(len(x), 1, *x.shape[2:])
        return self.final_linear(self.final_conv(torch.cat([x, std], dim=1)).flatten(1))


class SNGAN(nn.Module):
    """Miyato et al. 2018, arXiv:1802.05957: a block begins with an activation in place, over the block before it."""

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.c1, self.c2, self.c_sc = sn(conv(cin, cin)), sn(conv(cin, cout)), sn(nn.Conv2d(cin, cout, 1))
            self.activation = nn.ReLU(True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.c2(self.activation(self.c1(self.activation(x))))
            return F.avg_pool2d(h, 2) + F.avg_pool2d(self.c_sc(x), 2)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block1, self.block2 = sn(conv(3, 16)), self.Block(16, 32), self.Block(32, 64)
        self.block3, self.block4 = self.Block(64, 64), self.Block(64, 64)
        self.l5, self.activation = sn(nn.Linear(64, 1)), nn.ReLU(True)

    def forward(self, img: Tensor) -> Tensor:
        h = self.block4(self.block3(self.block2(self.block1(self.stem(img)))))
        return self.l5(self.activation(h).sum(dim=(2, 3)))


class UNet(nn.Module):
    """Schönfeld et al. 2020, arXiv:2002.12655, in the form that super-resolution uses: all activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = conv(3, 16)
        self.conv1, self.conv2, self.conv3 = (sn(nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False)) for c in (16, 32, 64))
        self.conv4, self.conv5, self.conv6 = (sn(conv(c, c // 2)) for c in (128, 64, 32))
        self.conv7, self.conv9 = sn(conv(16, 16)), conv(16, 1)

    def forward(self, img: Tensor) -> Tensor:
        def act(x: Tensor) -> Tensor:
            return F.leaky_relu(x, 0.2, inplace=True)

        def larger(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2, mode="bilinear")

        x0 = act(self.conv0(img))
        x1 = act(self.conv1(x0))
        x2 = act(self.conv2(x1))
        x3 = larger(act(self.conv3(x2)))
        x4 = larger(act(self.conv4(x3)) + x2)
        x5 = larger(act(self.conv5(x4)) + x1)
        x6 = act(self.conv6(x5)) + x0
        return self.conv9(act(self.conv7(x6)))


class MultiScale(nn.Module):
    """Wang et al. 2017, arXiv:1711.11585: PatchGANs on images of two sizes, with all their maps."""

    class Patch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer0 = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 2), nn.LeakyReLU(0.2, True))
            for i, (cin, cout, stride) in enumerate(((16, 32, 2), (32, 64, 2), (64, 64, 1)), start=1):
                norm = nn.InstanceNorm2d(cout)
                self.add_module(
                    f"layer{i}", nn.Sequential(nn.Conv2d(cin, cout, 4, stride, 2), norm, nn.LeakyReLU(0.2, True))
                )
            self.layer4 = nn.Conv2d(64, 1, 4, 1, 2)

        def forward(self, img: Tensor) -> list[Tensor]:
            maps = [img]
            for layer in self.children():
                maps.append(layer(maps[-1]))
            return maps[1:]

    def __init__(self) -> None:
        super().__init__()
        self.scale0, self.scale1 = self.Patch(), self.Patch()
        self.downsample = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, img: Tensor) -> list[list[Tensor]]:
        return [self.scale0(img), self.scale1(self.downsample(img))]


class FastGAN(nn.Module):
    """Liu et al. 2021, arXiv:2101.04775: two ways down in a block, gates across blocks, and a smaller image."""

    class Down(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            act = nn.LeakyReLU(0.2, inplace=True)
            self.main = nn.Sequential(sn(nn.Conv2d(cin, cout, 4, 2, 1)), act, sn(conv(cout, cout)), act)
            self.direct = nn.Sequential(nn.AvgPool2d(2), sn(nn.Conv2d(cin, cout, 1)), act)

        def forward(self, x: Tensor) -> Tensor:
            return (self.main(x) + self.direct(x)) / 2

    class Gate(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.main = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(cin, cout, 4), nn.Sigmoid())

        def forward(self, large: Tensor, small: Tensor) -> Tensor:
            return small * self.main(large)

    def __init__(self) -> None:
        super().__init__()
        self.down_from_big = nn.Sequential(sn(nn.Conv2d(3, 16, 3, 1, 1)), nn.LeakyReLU(0.2, inplace=True))
        self.down_4, self.down_8, self.down_16 = self.Down(16, 32), self.Down(32, 64), self.Down(64, 64)
        self.se_4_16 = self.Gate(32, 64)
        self.rf_big = nn.Sequential(sn(nn.Conv2d(64, 32, 1)), nn.LeakyReLU(0.2, inplace=True), sn(nn.Conv2d(32, 1, 4)))
        self.down_from_small = nn.Sequential(conv(3, 16, 2), nn.LeakyReLU(0.2, inplace=True), self.Down(16, 32))
        self.rf_small = sn(nn.Conv2d(32, 1, 4))

    def forward(self, img: Tensor) -> Tensor:
        feat_4 = self.down_4(self.down_from_big(img))
        feat_16 = self.se_4_16(feat_4, self.down_16(self.down_8(feat_4)))
        small = self.down_from_small(F.interpolate(img, size=32))
        return torch.cat([self.rf_big(feat_16).flatten(1), self.rf_small(small).flatten(1)], dim=1)


class MSG(nn.Module):
    """Karnewar and Wang 2019, arXiv:1903.06048: the image of each size comes in beside the features of that size."""

    def __init__(self) -> None:
        super().__init__()
        self.from_rgb = nn.ModuleList(nn.Conv2d(3, 8, 1) for _ in range(4))
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(cin, cout), nn.LeakyReLU(0.2), nn.AvgPool2d(2))
            for cin, cout in ((8, 32), (40, 64), (72, 64), (72, 64))
        )
        self.final = nn.Conv2d(64, 1, 4)

    def forward(self, img: Tensor) -> Tensor:
        x = img[:, :0]
        for from_rgb, block in zip(self.from_rgb, self.blocks, strict=True):
            x = block(torch.cat([x, from_rgb(F.adaptive_avg_pool2d(img, x.shape[2]))], dim=1))
        return self.final(x)


class DenselyConnected(nn.Module):
    """Layers that append to their input, and transitions between sizes; written without blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 2)
        self.layers = nn.ModuleList(conv(c, 16) for c in (16, 32, 32, 48, 48, 64))
        self.transitions = nn.ModuleList(nn.Conv2d(c, cout, 2, 2) for c, cout in ((48, 32), (64, 48), (80, 64)))
        self.final = nn.Linear(64 * 16, 1)

    def forward(self, img: Tensor) -> Tensor:
        x = self.stem(img)
        for i, transition in enumerate(self.transitions):
            for layer in self.layers[2 * i : 2 * i + 2]:
                x = torch.cat([x, F.relu(layer(x))], dim=1)
            x = transition(x)
        return self.final(x.flatten(1))


class Autoencoder(nn.Module):
    """Berthelot et al. 2017, arXiv:1703.10717: judges an image by how well it can make it anew."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 48, 64, 64)
        pairs = list(zip(widths, widths[1:], strict=False))
        self.encoder = nn.Sequential(*(nn.Sequential(conv(a, b, 2), nn.ELU(True)) for a, b in pairs))
        self.code, self.decode = nn.Linear(64 * 16, 32), nn.Linear(32, 64 * 16)
        ups = [nn.Sequential(nn.Upsample(scale_factor=2), conv(b, a), nn.ELU(True)) for a, b in pairs[:0:-1]]
        self.decoder = nn.Sequential(*ups, nn.Upsample(scale_factor=2), conv(32, 3))

    def forward(self, img: Tensor) -> Tensor:
        code = self.code(self.encoder(img).flatten(1))
        return (self.decoder(self.decode(code).view(-1, 64, 4, 4)) - img).abs().mean(dim=(1, 2, 3))


DISCRIMINATORS = {
    "DCGAN": dcgan_d,
    "PatchGAN": patchgan,
    "PatchGAN, antialiased": lambda: patchgan(antialiased=True),
    "StyleGAN2": StyleGAN2,
    "SNGAN": SNGAN,
    "U-Net, in place": UNet,
    "pix2pixHD": MultiScale,
    "FastGAN": FastGAN,
    "MSG-GAN": MSG,
    "densely connected": DenselyConnected,
    "BEGAN": Autoencoder,
}
