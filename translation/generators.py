# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The generators of CycleGAN and pix2pix, under the parameter names of the published networks.

Both take [N, in_channels, H, W] float32, images in [-1, 1], of any size, and give [N, out_channels, H, W] float32 in
[-1, 1]. Their `seeds`, int64 [N] on the CPU, are what dropout draws from (see layers.Dropout); one image's result
depends on its own seed alone.
"""

from __future__ import annotations

from torch import Tensor, nn

from ggdr.translation.config import ResnetGeneratorConfig, UnetGeneratorConfig
from ggdr.translation.layers import (
    Activation,
    Dropout,
    ImageLevel,
    Layers,
    ResnetBlock,
    SkipLevel,
    at_multiple,
    conv,
    conv_up,
    generators_of,
    norm_layer,
)

MULTIPLE, AT_LEAST = 4, 8  # sides of images in pixels, for two halvings and what the borders reflect


def c7s1(cin: int, cout: int, norm: str, act: Activation = nn.ReLU) -> list[nn.Module]:
    """c7s1-k of the paper: 7x7 convolution with reflected borders, norm, activation."""
    return [nn.ReflectionPad2d(3), conv(cin, cout, 7, norm=norm), norm_layer(norm, cout), act()]


def down(cin: int, cout: int, norm: str, act: Activation = nn.ReLU) -> list[nn.Module]:
    """dk of the paper: 3x3 convolution with stride 2, norm, activation."""
    return [conv(cin, cout, 3, 2, 1, norm=norm), norm_layer(norm, cout), act()]


def up(cin: int, cout: int, norm: str) -> list[nn.Module]:
    """uk of the paper: 3x3 transposed convolution with stride 2, norm, ReLU."""
    return [conv_up(cin, cout, 3, norm=norm), norm_layer(norm, cout), nn.ReLU()]


def to_image(cin: int, cout: int) -> list[nn.Module]:
    """7x7 convolution with reflected borders, and tanh."""
    return [nn.ReflectionPad2d(3), conv(cin, cout, 7), nn.Tanh()]


class ResnetGenerator(nn.Module):
    """CycleGAN's: c7s1-64, d128, d256, R256 x `blocks`, u128, u64, c7s1-3.

    Attributes:
        multiple: of which the sides are, in pixels, of images that need not be continued.

    Source: Johnson et al. 2016, arXiv:1603.08155; Zhu et al. 2017, arXiv:1703.10593, Appendix 7.2.
    """

    def __init__(self, config: ResnetGeneratorConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, MULTIPLE
        k, norm = config.channels, config.norm
        self.model = Layers(
            *c7s1(config.in_channels, k, norm),
            *down(k, 2 * k, norm),
            *down(2 * k, 4 * k, norm),
            *(ResnetBlock(4 * k, norm, dropout=config.dropout) for _ in range(config.blocks)),
            *up(4 * k, 2 * k, norm),
            *up(2 * k, k, norm),
            *to_image(k, config.out_channels),
        )

    def forward(self, img: Tensor, seeds: Tensor | None = None) -> Tensor:
        rngs = generators_of(seeds, img.device)
        return at_multiple(lambda x: self.model(x, rngs), img, self.multiple, at_least=AT_LEAST)


class UnetGenerator(nn.Module):
    """pix2pix's: C64-C128-C256-C512-C512-... down and the same up, each level's output joined with its input.

    With 8 `downs` an image of 256x256 becomes one of 1x1. Sides that are no multiple of 2^downs are continued by
    reflection and cropped.

    Attributes:
        multiple: of which the sides are, in pixels, of images that need not be continued.

    Source: Isola et al. 2016, arXiv:1611.07004, Appendix 6.1.
    """

    def __init__(self, config: UnetGeneratorConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, 2**config.downs
        k, norm = config.channels, config.norm
        wide = 8 * k
        # From the innermost level, which has no norm on the way down, to the outermost, which has none at all.
        level = SkipLevel(*halve(wide, wide, norm), *double(wide, wide, norm))
        for _ in range(config.downs - 5):
            dropout = [Dropout()] if config.dropout else []
            down = [*halve(wide, wide, norm), norm_layer(norm, wide)]
            level = SkipLevel(*down, level, *double(2 * wide, wide, norm), *dropout)
        for width in (4 * k, 2 * k, k):
            down = [*halve(width, 2 * width, norm), norm_layer(norm, 2 * width)]
            level = SkipLevel(*down, level, *double(4 * width, width, norm))
        first = conv(config.in_channels, k, 4, 2, 1, norm=norm)
        self.model = ImageLevel(first, level, nn.ReLU(), conv_up(2 * k, config.out_channels, 4), nn.Tanh())

    def forward(self, img: Tensor, seeds: Tensor | None = None) -> Tensor:
        rngs = generators_of(seeds, img.device)
        return at_multiple(lambda x: self.model(x, rngs), img, self.multiple)


def halve(cin: int, cout: int, norm: str) -> list[nn.Module]:
    """Leaky ReLU, 4x4 convolution with stride 2."""
    return [nn.LeakyReLU(0.2), conv(cin, cout, 4, 2, 1, norm=norm)]


def double(cin: int, cout: int, norm: str) -> list[nn.Module]:
    """ReLU, 4x4 transposed convolution with stride 2, norm."""
    return [nn.ReLU(), conv_up(cin, cout, 4, norm=norm), norm_layer(norm, cout)]
