# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2's generator.

Parameters and buffers have the names and shapes of published StyleGAN2-ADA PyTorch networks.
Source: Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from ggdr.stylegan2.config import GeneratorConfig
from ggdr.stylegan2.layers import Conv2dLayer, FullyConnectedLayer, MappingNetwork
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.conv2d_resample import conv2d_resample
from ggdr.torch_utils.ops.demodulation import demodulation
from ggdr.torch_utils.ops.linear_layers import linear_layers
from ggdr.torch_utils.ops.modulated_product import modulated_product
from ggdr.torch_utils.ops.modulation import demodulated_act, modulate
from ggdr.torch_utils.ops.upfirdn2d import setup_filter, upsample2d


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU: [N, Cin, H, W] -> [N, Cout, H*up, W*up].

    Its styles [N, Cin] are what its `affine` makes of a w; the network does that for all layers together.
    """

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, res: int, *, up: int, conv_clamp: float | None
    ) -> None:
        super().__init__()
        self.res, self.up, self.conv_clamp = res, up, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(res, res))
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))

    def forward(self, x: Tensor, styles: Tensor, noise: Tensor | None, *, gain: float = 1.0) -> Tensor:
        weight, styles, dcoefs = demodulation(self.weight, styles, x.dtype)
        x = conv2d_resample(modulate(x, styles), weight, self.resample_filter, up=self.up)
        return demodulated_act(x, dcoefs, noise, self.noise_strength, self.bias, gain=gain, clamp=self.conv_clamp)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution without demodulation: [N, Cin, H, W] -> [N, img_channels, H, W].

    Its styles are those of a SynthesisLayer.
    """

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, *, conv_clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        x = modulated_product(x, self.weight, styles, gain=self.weight_gain)
        return bias_act(x, self.bias, clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution; returns features and image, (x [N, Cout, res, res], img or None)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        res: int,
        config: GeneratorConfig,
        *,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.res, self.architecture, self.dtype = res, config.architecture, dtype
        w_dim, conv_clamp = config.w_dim, config.conv_clamp
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, res, res))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, res, up=2, conv_clamp=conv_clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, res, up=1, conv_clamp=conv_clamp)
        self.is_first = in_channels == 0
        self.has_torgb = config.architecture == "skip" or res == config.img_resolution
        if self.has_torgb:
            self.torgb = ToRGBLayer(out_channels, config.img_channels, w_dim, conv_clamp=conv_clamp)
        if not self.is_first and config.architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2)

    @property
    def convs(self) -> list[SynthesisLayer]:
        """The modulated 3x3 convolutions of this block, each with a w and a noise input of its own."""
        return [self.conv1] if self.is_first else [self.conv0, self.conv1]

    @property
    def modulated(self) -> list[SynthesisLayer | ToRGBLayer]:
        """The layers with styles: `convs`, and then toRGB if there is one."""
        return [*self.convs, self.torgb] if self.has_torgb else self.convs

    def forward(
        self, x: Tensor | None, img: Tensor | None, styles: Sequence[Tensor], noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """x [N, Cin, res/2, res/2], img [N, 3, res/2, res/2], styles: one a layer of `modulated`, noise: one a conv."""
        if self.is_first:
            x = self.const.to(self.dtype).unsqueeze(0).expand(styles[0].shape[0], -1, -1, -1)
            x = self.conv1(x, styles[0], noise[0])
        elif self.architecture == "resnet":
            x = x.to(self.dtype)
            y = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, styles[0], noise[0])
            x = y + self.conv1(x, styles[1], noise[1], gain=math.sqrt(0.5))
        else:
            x = self.conv0(x.to(self.dtype), styles[0], noise[0])
            x = self.conv1(x, styles[1], noise[1])
        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.has_torgb:
            rgb = self.torgb(x, styles[-1])
            img = rgb.to(torch.float32) if img is None else img + rgb  # float32, also if rgb is of a half type
        return x, img


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] -> img [N, img_channels, img_resolution, img_resolution] float32."""

    def __init__(self, config: GeneratorConfig, *, half_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(config.img_resolution)) + 1)]
        half_from = config.img_resolution >> (config.num_half_res - 1) if config.num_half_res > 0 else math.inf
        in_channels = 0
        for res in self.resolutions:
            dtype = half_dtype if half_dtype is not None and res >= max(half_from, 8) else torch.float32
            block = SynthesisBlock(in_channels, config.channels(res), res, config, dtype=dtype)
            setattr(self, f"b{res}", block)
            in_channels = config.channels(res)

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """Synthesis blocks from 4x4 up."""
        return [getattr(self, f"b{res}") for res in self.resolutions]

    @property
    def num_ws(self) -> int:
        """One w for each 3x3 convolution, and one for the last toRGB."""
        return sum(len(block.convs) for block in self.blocks) + 1

    def noise_shapes(self) -> list[tuple[int, int, int]]:
        """[1, res, res] for each noise input, in the order that `forward` takes them."""
        return [(1, block.res, block.res) for block in self.blocks for _ in block.convs]

    def draw_noise(
        self, n: int, *, device: torch.device | str | None = None, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Standard normal noise for `n` images: a list of [n, 1, res, res] float32."""
        return [torch.randn([n, *s], device=device, generator=generator) for s in self.noise_shapes()]

    def forward(
        self,
        ws: Tensor,
        *,
        noise: Sequence[Tensor] | None = None,
        noise_mode: str = "random",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Synthesises images.

        Args:
            ws:         [N, num_ws, w_dim] float32.
            noise:      as `draw_noise` gives it; overrides `noise_mode`.
            noise_mode: "random" (drawn from `generator`, on its device), "const" (the stored buffers) or "none".
            generator:  None for torch's global one.

        Raises:
            ValueError: wrong shape of ws, or an unknown noise mode.
        """
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must be [N, {self.num_ws}, w_dim], got {tuple(ws.shape)}")
        convs = [layer for block in self.blocks for layer in block.convs]
        if noise is None and noise_mode == "random":
            source = ws.device if generator is None else generator.device
            noise = [x.to(ws.device) for x in self.draw_noise(len(ws), device=source, generator=generator)]
        elif noise is None and noise_mode == "const":
            noise = [layer.noise_const for layer in convs]
        elif noise is None and noise_mode == "none":
            noise = [None] * len(convs)
        elif noise is None:
            raise ValueError(f"noise_mode must be random, const or none, got {noise_mode!r}")
        x = img = None
        styles, noise = iter(self.styles(ws)), iter(noise)
        for block in self.blocks:
            x, img = block(x, img, list(islice(styles, len(block.modulated))), list(islice(noise, len(block.convs))))
        return img

    def styles(self, ws: Tensor) -> list[Tensor]:
        """ws [N, num_ws, w_dim] -> [N, Cin] for each modulated layer, from the first block to the last."""
        affines: list[FullyConnectedLayer] = []
        inputs: list[int] = []
        i = 0
        for block in self.blocks:
            # toRGB shares its w with the next block's first convolution.
            affines += [layer.affine for layer in block.modulated]
            inputs += range(i, i + len(block.modulated))
            i += len(block.convs)
        weights, biases = [affine.weight for affine in affines], [affine.bias for affine in affines]
        return linear_layers(ws, weights, biases, inputs, gain=affines[0].weight_gain)


class Generator(nn.Module):
    """z [N, z_dim], c [N, c_dim] -> img [N, img_channels, img_resolution, img_resolution] float32, about [-1, 1]."""

    def __init__(self, config: GeneratorConfig, *, half_dtype: torch.dtype | None = None) -> None:
        """`half_dtype`: type of the highest `config.num_half_res` resolutions; None keeps all in float32."""
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config, half_dtype=half_dtype)
        self.mapping = MappingNetwork(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            self.synthesis.num_ws,
            num_layers=config.mapping_num_layers,
            lr_multiplier=config.mapping_lr_multiplier,
        )

    z_dim = property(lambda self: self.config.z_dim)
    c_dim = property(lambda self: self.config.c_dim)
    w_dim = property(lambda self: self.config.w_dim)
    num_ws = property(lambda self: self.mapping.num_ws)
    img_resolution = property(lambda self: self.config.img_resolution)
    img_channels = property(lambda self: self.config.img_channels)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float | Tensor = 1.0,
        truncation_cutoff: int | None = None,
        noise: Sequence[Tensor] | None = None,
        noise_mode: str = "random",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Maps and synthesises; arguments as of MappingNetwork and SynthesisNetwork."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise=noise, noise_mode=noise_mode, generator=generator)
