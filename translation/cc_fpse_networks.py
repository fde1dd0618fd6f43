# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""CC-FPSE's networks: convolutions that the label map predicts, and a feature pyramid that compares image and layout.

Source: Liu et al. 2019, arXiv:1910.06809, Section 3; depths, widths and where norms are, as far as the paper leaves
them open, are this project's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.translation.layers import Tanh, at_multiple
from ggdr.translation.layout_config import CCFPSEDiscriminatorConfig, CCFPSEGeneratorConfig
from ggdr.translation.spade import SLOPE, activate, enlarge, plain_norm, spade_widths
from ggdr.translation.spectral_norm import SpectralConv2d

KERNEL = 3
SCALES = 3  # at which D compares
WIDEST_D = 8  # times `channels`
SHORTEST = 0.1  # vectors below it are made longer by no more than those that have it


def pixel_norm(x: Tensor) -> Tensor:
    """[N, C, H, W], of which the vector of each pixel is scaled to an RMS of 1.

    Convolutions with spectral norm pass on about half of what they are given, so that the largest maps, which are
    behind few of them, and the small ones would differ by much where a pyramid adds them. Unlike batch and instance
    norms it depends on no other pixel: it leaves images of one class, and of one colour, apart.

    Source: Karras et al. 2018, arXiv:1710.10196, Section 4.2.
    """
    return F.normalize(x, dim=1, eps=SHORTEST) * x.shape[1] ** 0.5


class Pyramid(nn.Module):
    """Features of a label map at each of the generator's sizes, which also see what those of smaller sizes see.

    [N, cond, H, W] -> [N, width, h, w] from H / 2^ups up to H.

    Source: Section 3.1.2.
    """

    def __init__(self, cond: int, width: int, ups: int) -> None:
        super().__init__()
        self.first = SpectralConv2d(cond, width, 3)
        self.down = nn.ModuleList(SpectralConv2d(width, width, 3, 2) for _ in range(ups))
        self.lateral = nn.ModuleList(SpectralConv2d(width, width, 1) for _ in range(ups + 1))
        self.smooth = nn.ModuleList(SpectralConv2d(width, width, 3) for _ in range(ups + 1))

    def forward(self, layout: Tensor) -> list[Tensor]:
        maps = [activate(pixel_norm(self.first(layout)))]
        for down in self.down:
            maps.append(activate(pixel_norm(down(maps[-1]))))
        found, x = [], None
        for lateral, smooth, skip in zip(self.lateral, self.smooth, reversed(maps), strict=True):
            x = lateral(skip) if x is None else lateral(skip) + enlarge(x)
            found.append(activate(smooth(x)))
        return found


class ConditionalConv(nn.Module):
    """A depth-wise convolution whose kernels and gates are predicted for each pixel and channel, and a 1x1 one.

    x [N, cin, H, W], features of the layout [N, hidden, H, W] -> [N, cout, H, W].

    Source: Sections 3.1.1 and 3.1.3.
    """

    def __init__(self, cin: int, cout: int, hidden: int) -> None:
        super().__init__()
        self.kernels = SpectralConv2d(hidden, cin * KERNEL**2, 1)
        self.gates = SpectralConv2d(hidden, cin, 1)
        self.mix = SpectralConv2d(cin, cout, 1)
        # With spectral norm all numbers of a pixel's kernels together have the energy of its features, however many
        # they are. This gives each of them the size that a feature has.
        self.kernel_gain = (cin * KERNEL**2 / hidden) ** 0.5

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        kernels = self.kernels(features).unflatten(1, (x.shape[1], KERNEL**2)) * self.kernel_gain
        y = convolve_pixelwise(x, kernels)
        return self.mix(y * self.gates(features).sigmoid())


def convolve_pixelwise(x: Tensor, kernels: Tensor) -> Tensor:
    """A depth-wise 3x3 convolution with a kernel for each pixel and channel, borders padded with zeros.

    Args:
        x:       [N, C, H, W].
        kernels: [N, C, 9, H, W], row by row: the weight of the neighbour at (i // 3 - 1, i % 3 - 1).

    Returns:
        [N, C, H, W].
    """
    height, width = x.shape[2:]
    padded = F.pad(x, [KERNEL // 2] * 4)
    # Nine products, in place of a copy of all neighbours.
    parts = (
        padded[:, :, i : i + height, j : j + width] * kernels[:, :, i * KERNEL + j]
        for i in range(KERNEL)
        for j in range(KERNEL)
    )
    out = next(parts)
    for part in parts:
        out = out + part
    return out


class ConditionalBlock(nn.Module):
    """A residual block of two conditional convolutions: [N, cin, H, W] -> [N, cout, H, W]."""

    def __init__(self, cin: int, cout: int, hidden: int, norm: str) -> None:
        super().__init__()
        middle = min(cin, cout)
        self.norm_0, self.norm_1 = plain_norm(norm, cin), plain_norm(norm, middle)
        self.conv_0, self.conv_1 = ConditionalConv(cin, middle, hidden), ConditionalConv(middle, cout, hidden)
        self.skip = SpectralConv2d(cin, cout, 1, bias=False) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        y = self.conv_0(activate(self.norm_0(x)), features)
        return self.skip(x) + self.conv_1(activate(self.norm_1(y)), features)


class CCFPSEGenerator(nn.Module):
    """Label maps [N, in_channels, H, W] and noise [N, noise_channels, H, W] to images in [-1, 1], of any size.

    It begins with both at 1 / 2^ups of the size, of which pixels are picked; a block follows at each size up to the
    full one, with the features of the layout at that size. Sides that are no multiple of 2^ups are continued by
    reflection.

    Attributes:
        multiple: of which the sides are, in pixels, of label maps that need not be continued.
    """

    def __init__(self, config: CCFPSEGeneratorConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, 2**config.ups
        k = config.channels
        widths = spade_widths(k, config.ups)
        self.first = nn.Conv2d(config.in_channels + config.noise_channels, widths[0], 3, padding=1)
        self.pyramid = Pyramid(config.in_channels, 2 * k, config.ups)
        self.blocks = nn.ModuleList(
            ConditionalBlock(cin, cout, 2 * k, config.norm) for cin, cout in zip(widths, widths[1:], strict=False)
        )
        self.last = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Conv2d(widths[-1], config.out_channels, 3, padding=1), Tanh())

    def forward(self, layout: Tensor, noise: Tensor) -> Tensor:
        """`noise` may have sides of 1, which is the same for all pixels."""
        condition = torch.cat([layout, noise.expand(-1, -1, *layout.shape[2:])], dim=1)
        # Instance norms need more than one pixel.
        return at_multiple(self._synthesize, condition, self.multiple, at_least=2 * self.multiple)

    def _synthesize(self, condition: Tensor) -> Tensor:
        features = self.pyramid(condition[:, : self.config.in_channels])
        x = self.first(F.interpolate(condition, features[0].shape[2:], mode="nearest"))
        for i, (block, its) in enumerate(zip(self.blocks, features, strict=True)):
            x = block(enlarge(x) if i else x, its)
        return self.last(x)


class _Down(SpectralConv2d):
    """Halves the size: [N, cin, H, W] -> [N, cout, H/2, W/2]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return activate(pixel_norm(super().forward(x)))


class CCFPSEDiscriminator(nn.Module):
    """How real images are and how well they fit their label maps, patch by patch, at three scales.

    A feature pyramid of `layers` levels, each of half the size; all but the coarsest and the finest ones are judged
    on the way back, three at most.

    Source: Section 3.2.
    """

    def __init__(self, config: CCFPSEDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        k = config.channels
        # At 64 channels and 5 levels 64, 128, 256, 512 and 512; on the way back 256, and 128 where it is judged.
        widths = [min(2**i, WIDEST_D) * k for i in range(config.layers)]
        self.down = nn.ModuleList(
            _Down(cin, cout) for cin, cout in zip([config.in_channels, *widths], widths, strict=False)
        )
        self.lateral = nn.ModuleList(SpectralConv2d(width, 4 * k, 1) for width in widths[-1 - SCALES :])
        self.smooth = nn.ModuleList(SpectralConv2d(4 * k, 2 * k, 3) for _ in range(SCALES))
        self.score = SpectralConv2d(2 * k, 1, 1)
        self.project = SpectralConv2d(2 * k, 2 * k, 1)
        self.embed = SpectralConv2d(config.classes, 2 * k, 1, bias=False)

    @property
    def multiple(self) -> int:
        """Of which the sides of images are, in pixels."""
        return 2**self.config.layers

    def forward(self, img: Tensor, layout: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Judges images together with their label maps.

        Args:
            img:    [N, in_channels, H, W], sides multiples of `multiple`.
            layout: [N, classes, H, W], 0 or 1.

        Returns:
            Maps of logits [N, 1, h, w] float32 at three scales, the coarsest first; and the features of all levels of
            the way down, the finest first.

        Raises:
            ValueError: images cannot be halved so often.
        """
        height, width = img.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"a discriminator of {self.config.layers} layers takes images whose sides are multiples of "
                f"{self.multiple} pixels, got {width}x{height}"
            )
        feats = []
        for down in self.down:
            feats.append(down(feats[-1] if feats else img))
        embedded = self.embed(layout)
        x, logits = self.lateral[-1](feats[-1]), []
        for i in range(SCALES):
            skip = feats[-2 - i]
            x = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False) + self.lateral[-2 - i](skip)
            y = activate(self.smooth[i](activate(x)))
            of_layout = F.adaptive_avg_pool2d(embedded, y.shape[2:])
            aligned = (self.project(y) * of_layout).sum(dim=1, keepdim=True)
            logits.append((self.score(y) + aligned).float())
        return logits, feats
