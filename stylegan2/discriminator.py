# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2's discriminator.

Parameters and buffers have the names and shapes of published StyleGAN2-ADA PyTorch networks.
Source: Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676; projection: Miyato & Koyama, arXiv:1802.05637.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ggdr.stylegan2.config import DiscriminatorConfig
from ggdr.stylegan2.layers import Conv2dLayer, FullyConnectedLayer, MappingNetwork, minibatch_std
from ggdr.torch_utils.ops.upfirdn2d import downsample2d, setup_filter


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution; returns (x [N, Cout, res/2, res/2], img [N, 3, res/2, res/2] or None)."""

    def __init__(self, res: int, config: DiscriminatorConfig, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.res, self.architecture, self.dtype = res, config.architecture, dtype
        is_first, conv_clamp = res == config.img_resolution, config.conv_clamp
        width, out_channels = config.channels(res), config.channels(res // 2)
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        if is_first or config.architecture == "skip":
            self.fromrgb = Conv2dLayer(config.img_channels, width, 1, act="lrelu", conv_clamp=conv_clamp)
        self.conv0 = Conv2dLayer(width, width, 3, act="lrelu", conv_clamp=conv_clamp)
        self.conv1 = Conv2dLayer(width, out_channels, 3, act="lrelu", down=2, conv_clamp=conv_clamp)
        if config.architecture == "resnet":
            self.skip = Conv2dLayer(width, out_channels, 1, bias=False, down=2)

    def forward(self, x: Tensor | None, img: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if x is not None:
            x = x.to(self.dtype)
        if hasattr(self, "fromrgb"):
            y = self.fromrgb(img.to(self.dtype))
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv1(self.conv0(x), gain=math.sqrt(0.5))
            return y + x, img
        return self.conv1(self.conv0(x)), img


class DiscriminatorEpilogue(nn.Module):
    """4x4 features to logits: x [N, C, 4, 4], img (skip architecture only), cmap [N, cmap_dim] -> [N, 1] float32."""

    def __init__(self, config: DiscriminatorConfig, *, cmap_dim: int) -> None:
        super().__init__()
        self.mbstd_group_size, self.cmap_dim = config.mbstd_group_size, cmap_dim
        self.mbstd_num_channels = config.mbstd_num_channels
        width = config.channels(4)
        if config.architecture == "skip":
            self.fromrgb = Conv2dLayer(config.img_channels, width, 1, act="lrelu")
        in_channels = width + self.mbstd_num_channels
        self.conv = Conv2dLayer(in_channels, width, 3, act="lrelu", conv_clamp=config.conv_clamp)
        self.fc = FullyConnectedLayer(width * 4 * 4, width, act="lrelu")
        self.out = FullyConnectedLayer(width, cmap_dim if cmap_dim > 0 else 1)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None, *, num_batches: int = 1) -> Tensor:
        x = x.to(torch.float32)
        if hasattr(self, "fromrgb"):
            x = x + self.fromrgb(img)
        if self.mbstd_num_channels > 0:
            group, channels = self.mbstd_group_size, self.mbstd_num_channels
            x = minibatch_std(x, group_size=group, num_channels=channels, num_batches=num_batches)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is not None:
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """img [N, img_channels, img_resolution, img_resolution], c [N, c_dim] -> logits [N, 1] float32."""

    def __init__(self, config: DiscriminatorConfig, *, half_dtype: torch.dtype | None = None) -> None:
        """`half_dtype`: type of the highest `config.num_half_res` resolutions; None keeps all in float32."""
        super().__init__()
        self.config = config
        self.resolutions = [2**i for i in range(int(math.log2(config.img_resolution)), 2, -1)]
        half_from = config.img_resolution >> (config.num_half_res - 1) if config.num_half_res > 0 else math.inf
        for res in self.resolutions:
            dtype = half_dtype if half_dtype is not None and res >= max(half_from, 8) else torch.float32
            setattr(self, f"b{res}", DiscriminatorBlock(res, config, dtype=dtype))
        cmap_dim = config.channels(4) if config.c_dim > 0 else 0
        if cmap_dim > 0:
            self.mapping = MappingNetwork(0, config.c_dim, cmap_dim, None)
        self.b4 = DiscriminatorEpilogue(config, cmap_dim=cmap_dim)

    def forward(self, img: Tensor, c: Tensor | None = None, *, num_batches: int = 1) -> Tensor:
        """Logits; of several batches at once, if `img` and `c` hold an image of each in turn.

        Raises:
            ValueError: `img` has another size or number of channels than the network.
        """
        size = (self.config.img_channels, self.config.img_resolution, self.config.img_resolution)
        if img.ndim != 4 or img.shape[1:] != size:
            raise ValueError(f"img must be [N, {', '.join(map(str, size))}], got {tuple(img.shape)}")
        x = None
        for res in self.resolutions:
            x, img = getattr(self, f"b{res}")(x, img)
        cmap = self.mapping(None, c) if self.config.c_dim > 0 else None
        return self.b4(x, img, cmap, num_batches=num_batches)
