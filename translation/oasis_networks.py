# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""OASIS' networks: a generator that is given label map and noise at every scale, and a U-Net that segments.

Source: Sushko et al. 2020, arXiv:2012.04781, Section 3 and Appendix.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.translation.layers import Tanh, at_multiple
from ggdr.translation.layout_config import OASISDiscriminatorConfig, OASISGeneratorConfig
from ggdr.translation.spade import SLOPE, SpadeBlock, activate, enlarge, spade_widths
from ggdr.translation.spectral_norm import SpectralConv2d

WIDEST_D = 8  # times `channels`

shrink = partial(F.avg_pool2d, kernel_size=2)


class OASISGenerator(nn.Module):
    """Label maps [N, in_channels, H, W] and noise [N, noise_channels, H, W] to images in [-1, 1], of any size.

    It begins with both at 1 / 2^ups of the size; a block follows at each size up to the full one. Each is given both,
    of which pixels are picked, in all its norms. Sides that are no multiple of 2^ups are continued by reflection.

    Attributes:
        multiple: of which the sides are, in pixels, of label maps that need not be continued.
    """

    def __init__(self, config: OASISGeneratorConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, 2**config.ups
        k, cond = config.channels, config.in_channels + config.noise_channels
        widths = spade_widths(k, config.ups)
        self.first = nn.Conv2d(cond, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            SpadeBlock(cin, cout, cond, 2 * k, config.norm) for cin, cout in zip(widths, widths[1:], strict=False)
        )
        self.last = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Conv2d(widths[-1], config.out_channels, 3, padding=1), Tanh())

    def forward(self, layout: Tensor, noise: Tensor) -> Tensor:
        """`noise` may have sides of 1, which is the same for all pixels."""
        condition = torch.cat([layout, noise.expand(-1, -1, *layout.shape[2:])], dim=1)
        # Instance norms need more than one pixel.
        return at_multiple(self._synthesize, condition, self.multiple, at_least=2 * self.multiple)

    def _synthesize(self, condition: Tensor) -> Tensor:
        height, width = condition.shape[2:]
        sizes = [(height >> i, width >> i) for i in reversed(range(self.config.ups + 1))]
        x = self.first(F.interpolate(condition, sizes[0], mode="nearest"))
        for block, size in zip(self.blocks, sizes, strict=True):
            if x.shape[2:] != size:
                x = enlarge(x)
            x = block(x, F.interpolate(condition, size, mode="nearest"))
        return self.last(x)


class _Down(nn.Module):
    """A residual block that halves the size: [N, cin, H, W] -> [N, cout, H/2, W/2]."""

    def __init__(self, cin: int, cout: int, *, is_first: bool) -> None:
        super().__init__()
        self.conv_0, self.conv_1 = SpectralConv2d(cin, cout, 3), SpectralConv2d(cout, cout, 3)
        self.skip = SpectralConv2d(cin, cout, 1, bias=False) if cin != cout else nn.Identity()
        self.is_first = is_first

    def forward(self, x: Tensor) -> Tensor:
        # An image is no feature, whose negative values mean less.
        y = self.conv_0(x if self.is_first else activate(x))
        return self.skip(shrink(x)) + shrink(self.conv_1(activate(y)))


class _Up(nn.Module):
    """A residual block that doubles the size: [N, cin, h, w] -> [N, cout, 2h, 2w]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv_0, self.conv_1 = SpectralConv2d(cin, cout, 3), SpectralConv2d(cout, cout, 3)
        self.skip = SpectralConv2d(cin, cout, 1, bias=False) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_0(enlarge(activate(x)))
        return enlarge(self.skip(x)) + self.conv_1(activate(y))


class OASISDiscriminator(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, classes + 1, H, W] float32, the first of them "fake".

    A U-Net of residual blocks that halves the image `layers` times; each map on the way up is joined with that on the
    way down of its size.
    """

    def __init__(self, config: OASISDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        # At 64 channels 64 (the last of all), and on the way down 128, 128, 256, 256, 512 and 512.
        widths = [min(2 ** ((i + 1) // 2), WIDEST_D) * config.channels for i in range(config.layers + 1)]
        self.down = nn.ModuleList(
            _Down(cin, cout, is_first=i == 0)
            for i, (cin, cout) in enumerate(zip([config.in_channels, *widths[1:]], widths[1:], strict=False))
        )
        self.up = nn.ModuleList(
            _Up(widths[i] * (1 if i == config.layers else 2), widths[i - 1]) for i in range(config.layers, 0, -1)
        )
        self.last = nn.Conv2d(widths[0], config.classes + 1, 1)

    @property
    def multiple(self) -> int:
        """Of which the sides of images are, in pixels."""
        return 2**self.config.layers

    def forward(self, img: Tensor) -> Tensor:
        """Raises ValueError for images that cannot be halved so often."""
        height, width = img.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"a discriminator of {self.config.layers} layers takes images whose sides are multiples of "
                f"{self.multiple} pixels, got {width}x{height}"
            )
        maps, x = [], img
        for down in self.down:
            x = down(x)
            maps.append(x)
        for i, up in enumerate(self.up):
            x = up(x if i == 0 else torch.cat([x, maps[-1 - i]], dim=1))
        return self.last(activate(x)).float()
