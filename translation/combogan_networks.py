# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""ComboGAN's networks, under the parameter names of the published ones: an encoder and a decoder for each domain.

Activations are PReLUs; norms are instance norms without parameters.
Source: Anoosheh et al. 2017, arXiv:1712.06909.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.translation.config import (
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    DecoderConfig,
    EncoderConfig,
    SharedConfig,
)
from ggdr.translation.generators import AT_LEAST, MULTIPLE, c7s1, down, to_image
from ggdr.translation.layers import ResnetBlock, at_multiple, conv, conv_up, norm_layer

NORM = "instance"
LUMINANCE = (0.299, 0.587, 0.114)
BLUR_SIZE, BLUR_SIGMA = 5, 3.0  # pixels


class Encoder(nn.Module):
    """img [N, in_channels, H, W] -> code [N, 4 x channels, H/4, W/4]; H and W are multiples of 4, from 8 up."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        k = config.channels
        self.model = nn.Sequential(
            *c7s1(config.in_channels, k, NORM, nn.PReLU),
            *down(k, 2 * k, NORM, nn.PReLU),
            *down(2 * k, 4 * k, NORM, nn.PReLU),
            *(ResnetBlock(4 * k, NORM, act=nn.PReLU) for _ in range(config.blocks)),
        )

    def forward(self, img: Tensor) -> Tensor:
        return self.model(img)


class Decoder(nn.Module):
    """code [N, 4 x channels, h, w] -> img [N, out_channels, 4h, 4w] in [-1, 1]."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        k = config.channels
        ups = (
            layer
            for width in (2 * k, k)
            for layer in (conv_up(2 * width, width, 4), norm_layer(NORM, width), nn.PReLU())
        )
        self.model = nn.Sequential(
            *(ResnetBlock(4 * k, NORM, act=nn.PReLU) for _ in range(config.blocks)),
            *ups,
            *to_image(k, config.out_channels),
        )

    def forward(self, code: Tensor) -> Tensor:
        return self.model(code)


class SharedBlock(nn.Module):
    """A residual block whose convolutions also see a plane for each domain: -1, but +1 for the one at hand."""

    def __init__(self, width: int, domains: int) -> None:
        super().__init__()
        self.domains = domains
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            conv(width + domains, width, 3),
            norm_layer(NORM, width),
            nn.PReLU(),
            nn.ReflectionPad2d(1),
            conv(width + domains, width, 3),
            norm_layer(NORM, width),
        )

    def forward(self, x: Tensor, domain: int) -> Tensor:
        y = x
        for layer in self.conv_block:
            if isinstance(layer, nn.Conv2d):
                planes = y.new_full([y.shape[0], self.domains, *y.shape[2:]], -1)
                planes[:, domain] = 1
                y = torch.cat([y, planes], dim=1)
            y = layer(y)
        return x + y


class SharedBlocks(nn.Module):
    """code [N, 4 x channels, h, w], domain -> the same shape."""

    def __init__(self, config: SharedConfig) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleList(SharedBlock(4 * config.channels, config.domains) for _ in range(config.blocks))

    def forward(self, code: Tensor, domain: int) -> Tensor:
        for block in self.model:
            code = block(code, domain)
        return code


class ComboGANGenerator(nn.Module):
    """An encoder and a decoder for each domain, and blocks that all domains share, if there are any.

    Images are [N, img_channels, H, W] float32 in [-1, 1], of any size.
    """

    def __init__(self, config: ComboGANGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList(Encoder(config.encoder) for _ in range(config.domains))
        self.decoders = nn.ModuleList(Decoder(config.decoder) for _ in range(config.domains))
        self.shared_encoder = SharedBlocks(config.shared_encoder)
        self.shared_decoder = SharedBlocks(config.shared_decoder)

    def encode(self, img: Tensor, domain: int) -> Tensor:
        """The code of images of a domain, [N, 4 x channels, H/4, W/4]; sides must be multiples of 4, from 8 up."""
        return self.shared_encoder(self.encoders[domain](img), domain)

    def decode(self, code: Tensor, domain: int) -> Tensor:
        """Images of a domain, [N, img_channels, H, W]."""
        return self.decoders[domain](self.shared_decoder(code, domain))

    def forward(self, img: Tensor, from_domain: int, to_domain: int) -> Tensor:
        """Translates images of any size from one domain to another, or to the same."""
        return at_multiple(
            lambda x: self.decode(self.encode(x, from_domain), to_domain), img, MULTIPLE, at_least=AT_LEAST
        )


class ComboGANDiscriminator(nn.Module):
    """img [N, 3, H, W] -> a map of logits for each layer but the first, [N, 2, h, w], the coarsest last.

    One stack of layers judges the luminance, channel 0 of a map, another one the blurred colours, channel 1.
    """

    def __init__(self, config: ComboGANDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.model_gray = _stack(1, config)
        self.model_rgb = _stack(3, config)
        # No part of the published files. On the CPU also where the weights are on the meta device, for which
        # arithmetic would import PyTorch's compiler.
        blur = blur_kernel(BLUR_SIZE, BLUR_SIGMA).expand(3, 1, -1, -1)
        luminance = torch.tensor(LUMINANCE, device="cpu")[:, None, None]
        self.register_buffer("blur", blur, persistent=False)
        self.register_buffer("luminance", luminance, persistent=False)

    def forward(self, img: Tensor) -> list[Tensor]:
        gray = (img * self.luminance).sum(dim=1, keepdim=True)
        blurred = F.conv2d(img, self.blur, padding=BLUR_SIZE // 2, groups=3)
        of_gray, of_rgb = _judge(self.model_gray, gray), _judge(self.model_rgb, blurred)
        return [torch.cat(maps, dim=1).float() for maps in zip(of_gray, of_rgb, strict=True)]


def blur_kernel(size: int, sigma: float) -> Tensor:
    """The published blur: a Gaussian cut off at 4 sigma whose tails are reflected into the kernel, so nearly a mean.

    Args:
        size:  of the kernel in pixels, odd.
        sigma: in pixels.

    Returns:
        [size, size] float32 with sum 1.
    """
    radius = int(4 * sigma + 0.5)
    row = [0.0] * size
    for x in range(-radius, radius + 1):
        # Where x lies between mirrors at both borders: ..., 1, 0, 0, 1, ..., size - 1, size - 1, ..., 0, 0, ...
        at = (x + size // 2) % (2 * size)
        row[min(at, 2 * size - 1 - at)] += math.exp(-(x**2) / (2 * sigma**2))
    total = sum(row) ** 2
    return torch.tensor([[a * b / total for b in row] for a in row], device="cpu")


def _stack(img_channels: int, config: ComboGANDiscriminatorConfig) -> nn.ModuleList:
    """4x4 convolutions of 64, 128, 256, 512, ... feature maps; those between the first and the last make one more."""
    k, n = config.channels, config.layers
    widths = [min(2**i, 8) * k for i in range(n + 1)]
    stack = nn.ModuleList([nn.Sequential(conv(img_channels, k, 4, 2, 2), nn.PReLU())])
    for i in range(1, n):
        layer = conv(widths[i - 1], widths[i] + 1, 4, 2, 2)
        stack.append(nn.Sequential(layer, norm_layer(NORM, widths[i] + 1), nn.PReLU()))
    layer, logits = conv(widths[n - 1], widths[n], 4, 1, 2), conv(widths[n], 1, 4, 1, 2)
    stack.append(nn.Sequential(layer, norm_layer(NORM, widths[n]), nn.PReLU(), logits))
    return stack


def _judge(stack: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The last feature map of each layer but the first, [N, 1, h, w] each; the others are the next layer's input."""
    maps = []
    x = stack[0](x)
    for layer in list(stack)[1:]:
        y = layer(x)
        x, logits = y[:, :-1], y[:, -1:]
        maps.append(logits)
    return maps
