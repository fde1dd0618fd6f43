# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Four small GANs written as people write them, none of them with this project in mind, to attach GGDR to.

Each class has `G` and `D`, the `shape` of its images, a `probe`, and the losses of both steps; what its D step needs
for GGDR is in `d_loss`. All of them learn scikit-learn's digits; see `train`.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr import GGDR


class DCGAN:
    """Radford et al. 2016, arXiv:1511.06434, for 28x28: plain nn.Sequential, batch norm, in-place activations."""

    shape = (1, 28, 28)

    def __init__(self) -> None:
        self.G = nn.Sequential(
            nn.ConvTranspose2d(32, 64, 7),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(64, 32, 4, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Tanh(),
        )
        self.D = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, 64, 3, 2, 1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, 1, 4),
        )

    def probe(self) -> Tensor:
        return self.D(self.G(torch.randn(2, 32, 1, 1)))

    def d_loss(self, real: Tensor, label: Tensor, ggdr: GGDR | None) -> tuple[Tensor, Tensor | None]:
        with watching(ggdr) as feats:
            fake_logits = self.D(self.G(torch.randn(len(real), 32, 1, 1)).detach())
        real_logits = self.D(real)
        loss = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
        loss = loss + F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
        return loss, feats and ggdr.penalty(feats)

    def g_loss(self, label: Tensor) -> Tensor:
        logits = self.D(self.G(torch.randn(len(label), 32, 1, 1)))
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


class SNGAN:
    """Miyato et al. 2018, arXiv:1802.05957 and 1802.05637: residual, conditional; D runs once on fakes and reals."""

    shape = (3, 32, 32)

    class ConditionalNorm(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(channels, affine=False)
            self.gain, self.shift = nn.Embedding(10, channels), nn.Embedding(10, channels)
            nn.init.ones_(self.gain.weight)
            nn.init.zeros_(self.shift.weight)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.norm(x) * self.gain(y)[:, :, None, None] + self.shift(y)[:, :, None, None]

    class UpBlock(nn.Module):
        def __init__(self, cin: int, cout: int) -> None:
            super().__init__()
            self.n1, self.n2 = SNGAN.ConditionalNorm(cin), SNGAN.ConditionalNorm(cout)
            self.c1, self.c2 = nn.Conv2d(cin, cout, 3, padding=1), nn.Conv2d(cout, cout, 3, padding=1)
            self.skip = nn.Conv2d(cin, cout, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            h = self.c1(F.interpolate(F.relu(self.n1(x, y)), scale_factor=2))
            return self.c2(F.relu(self.n2(h, y))) + self.skip(F.interpolate(x, scale_factor=2))

    class DownBlock(nn.Module):
        def __init__(self, cin: int, cout: int, sn) -> None:
            super().__init__()
            self.c1, self.c2 = sn(nn.Conv2d(cin, cout, 3, padding=1)), sn(nn.Conv2d(cout, cout, 3, padding=1))
            self.skip = sn(nn.Conv2d(cin, cout, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(self.c2(F.relu(self.c1(F.relu(x)))) + self.skip(x), 2)

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(32, 24 * 4 * 4)
            self.blocks = nn.ModuleList([SNGAN.UpBlock(24, 24), SNGAN.UpBlock(24, 16), SNGAN.UpBlock(16, 8)])
            self.to_rgb = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            x = self.linear(z).view(-1, 24, 4, 4)
            for block in self.blocks:
                x = block(x, y)
            return torch.tanh(self.to_rgb(F.relu(x)))

    class Discriminator(nn.Module):
        def __init__(self, sn) -> None:
            super().__init__()
            self.blocks = nn.Sequential(
                SNGAN.DownBlock(3, 8, sn), SNGAN.DownBlock(8, 24, sn), SNGAN.DownBlock(24, 32, sn)
            )
            self.linear, self.embed = sn(nn.Linear(32, 1)), sn(nn.Embedding(10, 32))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            x = F.relu(self.blocks(x)).sum(dim=(2, 3))
            return self.linear(x)[:, 0] + (self.embed(y) * x).sum(dim=1)

    def __init__(self, spectral_norm=nn.utils.spectral_norm) -> None:
        self.G, self.D = self.Generator(), self.Discriminator(spectral_norm)

    def probe(self) -> Tensor:
        y = torch.tensor([0, 1])
        return self.D(self.G(torch.randn(2, 32), y), y)

    def d_loss(self, real: Tensor, label: Tensor, ggdr: GGDR | None) -> tuple[Tensor, Tensor | None]:
        n = len(real)
        with watching(ggdr) as feats:
            fake = self.G(torch.randn(n, 32), label).detach()
            fake_logits, real_logits = self.D(torch.cat([fake, real]), label.repeat(2)).split(n)
        loss = F.relu(1 + fake_logits).mean() + F.relu(1 - real_logits).mean()
        return loss, feats and ggdr.penalty(feats, fakes=slice(0, n))

    def g_loss(self, label: Tensor) -> Tensor:
        return -self.D(self.G(torch.randn(len(label), 32), label), label).mean()


class UNetGAN:
    """Schönfeld et al. 2020, arXiv:2002.12655: a logit for the image and one for each pixel; CutMix; 48x32 images."""

    shape = (1, 48, 32)

    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.down3 = self.down(1, 8), self.down(8, 16), self.down(16, 32)
            self.up3, self.up2, self.up1 = self.up(32, 16), self.up(16 + 16, 8), self.up(8 + 8, 8)
            self.whole, self.pixel = nn.Linear(32 * 6 * 4, 1), nn.Conv2d(8, 1, 1)

        @staticmethod
        def down(cin: int, cout: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(cin, cout, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True))

        @staticmethod
        def up(cin: int, cout: int) -> nn.Module:
            return nn.Sequential(
                nn.Upsample(scale_factor=2), nn.Conv2d(cin, cout, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            d1 = self.down1(x)
            d2 = self.down2(d1)
            d3 = self.down3(d2)
            u1 = self.up1(torch.cat([self.up2(torch.cat([self.up3(d3), d2], dim=1)), d1], dim=1))
            return self.whole(d3.flatten(1)), self.pixel(u1)

    def __init__(self) -> None:
        self.G = nn.Sequential(nn.Linear(32, 32 * 6 * 4), nn.Unflatten(1, (32, 6, 4)))
        for cin, cout in [(32, 32), (32, 16), (16, 8)]:
            self.G.extend([nn.Upsample(scale_factor=2), nn.Conv2d(cin, cout, 3, padding=1)])
            self.G.extend([nn.BatchNorm2d(cout), nn.ReLU()])
        self.G.extend([nn.Conv2d(8, 1, 3, padding=1), nn.Tanh()])
        self.D = self.Discriminator()

    def probe(self) -> object:
        return self.D(self.G(torch.randn(2, 32)))

    def d_loss(self, real: Tensor, label: Tensor, ggdr: GGDR | None) -> tuple[Tensor, Tensor | None]:
        with watching(ggdr) as feats:
            fake = self.G(torch.randn(len(real), 32)).detach()
            fake_whole, fake_pixel = self.D(fake)
        real_whole, real_pixel = self.D(real)
        # CutMix: a rectangle of the fake in the real; D runs on it outside the watch block.
        mask = torch.ones_like(real[:1, :1])
        top, left = int(torch.randint(24, ())), int(torch.randint(16, ()))
        mask[:, :, top : top + 24, left : left + 16] = 0
        mixed_whole, mixed_pixel = self.D(torch.where(mask > 0, real, fake))
        loss = F.softplus(fake_whole).mean() + F.softplus(fake_pixel).mean()
        loss = loss + F.softplus(-real_whole).mean() + F.softplus(-real_pixel).mean()
        loss = loss + F.softplus(mixed_whole).mean()
        loss = loss + F.binary_cross_entropy_with_logits(mixed_pixel, mask.expand_as(mixed_pixel))
        loss = loss + (mixed_pixel - torch.where(mask > 0, real_pixel, fake_pixel)).square().mean()
        return loss, feats and ggdr.penalty(feats)

    def g_loss(self, label: Tensor) -> Tensor:
        whole, pixel = self.D(self.G(torch.randn(len(label), 32)))
        return F.softplus(-whole).mean() + F.softplus(-pixel).mean()


class ProjectedGAN:
    """Sauer et al. 2021, arXiv:2111.01007: D judges the maps of a frozen network at four scales; D sees two crops.

    The frozen network is a random one, small and not downloaded.
    """

    shape = (3, 64, 64)
    CROP = 48

    class Features(nn.Module):
        """Four maps, mixed across channels and, from the smallest up, across scales; never trained."""

        def __init__(self) -> None:
            super().__init__()
            widths = [3, 8, 16, 24, 24]
            self.stages = nn.ModuleList(
                nn.Sequential(nn.Conv2d(cin, cout, 3, 2, 1), nn.ReLU(inplace=True))
                for cin, cout in zip(widths, widths[1:], strict=False)
            )
            self.mix_channels = nn.ModuleList(nn.Conv2d(width, 16, 1) for width in widths[1:])
            self.mix_scales = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
            for conv in self.modules():
                if isinstance(conv, nn.Conv2d):
                    nn.init.kaiming_normal_(conv.weight)
            self.requires_grad_(False)

        def forward(self, x: Tensor) -> list[Tensor]:
            maps = []
            for stage, mix in zip(self.stages, self.mix_channels, strict=True):
                x = stage(x)
                maps.append(mix(x))
            mixed = maps[-1:]
            for feat, mix in zip(maps[-2::-1], self.mix_scales, strict=True):
                mixed.insert(0, mix(feat + F.interpolate(mixed[0], feat.shape[2:], mode="bilinear")))
            return mixed

    class Head(nn.Module):
        """Down to the size of the smallest map, so that all four give equally many logits."""

        def __init__(self, scale: int) -> None:
            super().__init__()
            sn, layers, width = nn.utils.parametrizations.spectral_norm, [], 16
            for _ in range(3 - scale):
                layers += [sn(nn.Conv2d(width, 32, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True)]
                width = 32
            self.main = nn.Sequential(*layers, sn(nn.Conv2d(width, 1, 3, padding=1)))

        def forward(self, feat: Tensor) -> Tensor:
            return self.main(feat).flatten(1)

    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = ProjectedGAN.Features()
            self.heads = nn.ModuleList(ProjectedGAN.Head(scale) for scale in range(4))

        def forward(self, x: Tensor) -> list[Tensor]:
            return [head(feat) for head, feat in zip(self.heads, self.features(x), strict=True)]

    def __init__(self) -> None:
        self.G = nn.Sequential(nn.ConvTranspose2d(32, 64, 4), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        for cin, cout in [(64, 32), (32, 24), (24, 8), (8, 3)]:
            self.G.extend([nn.Upsample(scale_factor=2), nn.Conv2d(cin, cout, 3, padding=1)])
            self.G.extend([nn.Tanh()] if cout == 3 else [nn.BatchNorm2d(cout), nn.ReLU(inplace=True)])
        self.D = self.Discriminator()

    def probe(self) -> object:
        return self.D(self.G(torch.randn(2, 32, 1, 1)))

    def view(self, n: int):
        """A random flip of each image and a random crop of all, as a function of maps of any size."""
        flip = torch.rand(n, 1, 1, 1) < 0.5
        # Multiples of 8 pixels, so that the crop falls on whole pixels of the guides of 8x8 and up.
        top, left = (torch.randint((self.shape[1] - self.CROP) // 8 + 1, (2,)) * 8).tolist()

        def warp(x: Tensor) -> Tensor:
            scale = x.shape[2] / self.shape[1]
            y0, x0, size = (int(pixels * scale) for pixels in (top, left, self.CROP))
            return torch.where(flip, x.flip(3), x)[:, :, y0 : y0 + size, x0 : x0 + size]

        return warp

    def d_loss(self, real: Tensor, label: Tensor, ggdr: GGDR | None) -> tuple[Tensor, Tensor | None]:
        n = len(real)
        views = [self.view(n), self.view(n)]
        with watching(ggdr, calls=2) as feats:
            fake = self.G(torch.randn(n, 32, 1, 1)).detach()
            fake_logits = [logits for view in views for logits in self.D(view(fake))]
        real_logits = [logits for view in views for logits in self.D(view(real))]
        loss = sum(F.relu(1 + logits).mean() for logits in fake_logits)
        loss = loss + sum(F.relu(1 - logits).mean() for logits in real_logits)
        return loss, feats and ggdr.penalty(feats, warp=views)

    def g_loss(self, label: Tensor) -> Tensor:
        fake = self.G(torch.randn(len(label), 32, 1, 1))
        return -sum(logits.mean() for logits in self.D(self.view(len(label))(fake)))


GANS = {"DCGAN": DCGAN, "SNGAN": SNGAN, "U-Net GAN": UNetGAN, "projected GAN": ProjectedGAN}


def watching(ggdr: GGDR | None, **kwargs):
    """A watch block; without GGDR, one that gives None."""
    return nullcontext() if ggdr is None else ggdr.watch(**kwargs)


def digits(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits as images [1797, *shape] in [-1, 1], and their labels [1797]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    img = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    img = F.interpolate(img, shape[1:], mode="bilinear", align_corners=False)
    return img.expand(-1, shape[0], -1, -1), torch.from_numpy(data.target)


class Trainer:
    """Both steps of a GAN, with GGDR or without."""

    def __init__(self, gan, data: tuple[Tensor, Tensor], ggdr: GGDR | None = None, batch: int = 8) -> None:
        self.gan, self.data, self.ggdr, self.batch = gan, data, ggdr, batch
        decoder = [] if ggdr is None else ggdr.parameters()
        d_params = [p for p in gan.D.parameters() if p.requires_grad]
        self.d_optimizer = torch.optim.Adam([*d_params, *decoder], 2e-3, betas=(0.5, 0.99))
        self.g_optimizer = torch.optim.Adam(gan.G.parameters(), 1e-3, betas=(0.5, 0.99))

    def step(self) -> float | None:
        """One step of D and one of G; the cosine distance, if GGDR is attached."""
        picks = torch.randint(len(self.data[0]), (self.batch,))
        real, label = (x[picks] for x in self.data)
        loss, penalty = self.gan.d_loss(real, label, self.ggdr)
        self.d_optimizer.zero_grad()
        (loss if penalty is None else loss + penalty.mean()).backward()
        self.d_optimizer.step()
        self.g_optimizer.zero_grad()
        self.gan.g_loss(label).backward()
        self.g_optimizer.step()
        return None if penalty is None else penalty.mean().item() / self.ggdr.gain
