# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""PatchGAN and PixelGAN, under the parameter names of the published networks.

They take images [N, in_channels, H, W] float32 and give a map of logits [N, 1, h, w], one for each patch or pixel.
"""

from __future__ import annotations

from torch import Tensor, nn

from ggdr.translation.config import PatchDiscriminatorConfig, PixelDiscriminatorConfig
from ggdr.translation.layers import conv, norm_layer


class PatchDiscriminator(nn.Module):
    """C64-C128-C256-C512 and a map of logits, without a norm in the first: 70x70 patches with 3 layers.

    Source: Isola et al. 2016, arXiv:1611.07004, Appendix 6.1.2.
    """

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        k, norm = config.channels, config.norm
        widths = [min(2**i, 8) * k for i in range(config.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(config.in_channels, k, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, config.layers + 1):
            cin, cout, stride = widths[i - 1], widths[i], 1 if i == config.layers else 2
            layers += [conv(cin, cout, 4, stride, 1, norm=norm), norm_layer(norm, cout), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    @property
    def min_size(self) -> int:
        """Smallest side of an image, in pixels."""
        return 3 * 2**self.config.layers

    def forward(self, img: Tensor) -> Tensor:
        """Raises ValueError for images below `min_size`."""
        if min(img.shape[2:]) < self.min_size:
            height, width = img.shape[2:]
            raise ValueError(
                f"a patch discriminator of {self.config.layers} layers takes images from {self.min_size} pixels up, "
                f"got {width}x{height}"
            )
        return self.model(img).float()


class PixelDiscriminator(nn.Module):
    """1x1 convolutions of 64 and 128 feature maps and a map of logits.

    Source: Isola et al. 2016, arXiv:1611.07004, Appendix 6.1.2.
    """

    def __init__(self, config: PixelDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        k, norm = config.channels, config.norm
        self.net = nn.Sequential(
            nn.Conv2d(config.in_channels, k, 1),
            nn.LeakyReLU(0.2),
            conv(k, 2 * k, 1, norm=norm),
            norm_layer(norm, 2 * k),
            nn.LeakyReLU(0.2),
            conv(2 * k, 1, 1, norm=norm),
        )

    def forward(self, img: Tensor) -> Tensor:
        return self.net(img).float()
