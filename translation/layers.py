# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the networks of image translation are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.torch_utils.ops import uses_native
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.cpu.conv3x3 import conv3x3, is_compiled

COMPILED_ON = ("cpu",)  # the kinds of devices on which networks of this package have compiled operations

Rngs = Sequence[torch.Generator] | None  # one for each image, on its device
Activation = Callable[[], nn.Module]


class Dropout(nn.Module):
    """Sets half of the values to zero and doubles the others, [N, C, H, W].

    pix2pix' only noise. With generators it is always on, and what it does to an image depends on that image's
    generator alone, not on the batch; without, it is on in training and draws from torch's own random state.
    """

    def forward(self, x: Tensor, rngs: Rngs = None) -> Tensor:
        if rngs is None:
            return F.dropout(x, 0.5, self.training)
        kept = [torch.rand(x.shape[1:], device=x.device, generator=rng) < 0.5 for rng in rngs]
        return x * torch.stack(kept) * 2


class Layers(nn.Sequential):
    """A sequence of layers that hands random generators to those that draw."""

    def forward(self, x: Tensor, rngs: Rngs = None) -> Tensor:
        for layer in self:
            x = layer(x, rngs) if isinstance(layer, (Dropout, ResnetBlock, SkipLevel)) else layer(x)
        return x


class ResnetBlock(nn.Module):
    """x + norm(conv3x3(dropout(act(norm(conv3x3(x)))))): [N, width, H, W] -> the same shape; the borders reflect."""

    def __init__(self, width: int, norm: str, *, dropout: bool = False, act: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv_block = Layers(
            nn.ReflectionPad2d(1),
            conv(width, width, 3, norm=norm),
            norm_layer(norm, width),
            act(),
            *([Dropout()] if dropout else []),
            nn.ReflectionPad2d(1),
            conv(width, width, 3, norm=norm),
            norm_layer(norm, width),
        )

    def forward(self, x: Tensor, rngs: Rngs = None) -> Tensor:
        return x + self.conv_block(x, rngs)


class ImageLevel(nn.Module):
    """The outermost level of a U-Net, with all smaller ones inside: [N, Cin, H, W] -> [N, Cout, H, W]."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = Layers(*layers)

    def forward(self, x: Tensor, rngs: Rngs = None) -> Tensor:
        return self.model(x, rngs)


class SkipLevel(ImageLevel):
    """Another level, whose output is joined with its input: [N, C, H, W] -> [N, 2C, H, W]."""

    def forward(self, x: Tensor, rngs: Rngs = None) -> Tensor:
        return torch.cat([x, self.model(x, rngs)], dim=1)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 without padding; on a CPU, large float32 maps take the compiled kernel.

    It is PyTorch's everywhere else: on other devices, on small maps, where kernels cannot be built, and in autocast,
    as processors that have products in half precision are faster with those.
    """

    def __init__(self, cin: int, cout: int, *, bias: bool = True) -> None:
        super().__init__(cin, cout, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not is_compiled(x, self.weight) or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        y = conv3x3(x, self.weight)
        return y if self.bias is None else bias_act(y, self.bias)


class BatchNorm(nn.BatchNorm2d):
    """A batch norm that can take each image's own statistics; see `image_statistics`."""

    alone = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.alone:
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class InstanceNorm(nn.InstanceNorm2d):
    """Without weights; its statistics are float32, whatever type the images have."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            # PyTorch's instance norm would copy what the compiled convolution gives to another layout; its batch norm
            # of one image does not. In graphs that are traced with reference operations, sizes may be unknown.
            if x.device.type == "cpu" and uses_native(x.device) and len(x) == 1 and is_channels_last(x):
                return F.batch_norm(x, None, None, training=True, eps=self.eps)
            return super().forward(x)
        # On a CPU PyTorch rounds means and deviations to the type of the weights, or without any to that of x.
        one, zero = (fill(x.shape[1], dtype=torch.float32, device=x.device) for fill in (torch.ones, torch.zeros))
        return F.instance_norm(x, weight=one, bias=zero, eps=self.eps)


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of [N, C, H, W] are neighbours in memory, and its pixels are not."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class Tanh(nn.Tanh):
    """In float32, whatever type its input has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def norm_layer(norm: str, width: int) -> nn.Module:
    """ "batch": with a scale and shift that are trained, and running means; "instance": without any of them."""
    return BatchNorm(width) if norm == "batch" else InstanceNorm(width)


def conv(cin: int, cout: int, kernel: int, stride: int = 1, padding: int = 0, *, norm: str = "instance") -> nn.Conv2d:
    """A convolution, with a bias where the norm behind it does not have one."""
    bias = norm == "instance"
    if (kernel, stride, padding) == (3, 1, 0):
        return Conv3x3(cin, cout, bias=bias)
    return nn.Conv2d(cin, cout, kernel, stride, padding, bias=bias)


def conv_up(cin: int, cout: int, kernel: int, *, norm: str = "instance") -> nn.ConvTranspose2d:
    """A transposed convolution that doubles the size, with a bias as `conv`; kernels of 3 or 4."""
    bias = norm == "instance"
    return nn.ConvTranspose2d(cin, cout, kernel, stride=2, padding=1, output_padding=kernel % 2, bias=bias)


def has_batch_norms(net: nn.Module) -> bool:
    """Whether what a network makes of an image depends on the others in its batch."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norms use the statistics of their batch inside, and leave their running ones as they are."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks


@contextmanager
def image_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norms use each image's own statistics inside, so that no image depends on the others of its batch.

    So pix2pix is published: at test, too, batch norms take the statistics of their batch, which is one image.
    """
    norms = [layer for layer in net.modules() if isinstance(layer, BatchNorm)]
    before = [norm.alone for norm in norms]
    try:
        for norm in norms:
            norm.alone = True
        yield
    finally:
        for norm, alone in zip(norms, before, strict=True):
            norm.alone = alone


def generators_of(seeds: Tensor | None, device: torch.device) -> Rngs:
    """A generator for each seed, int64 [N] on the CPU; None for None."""
    if seeds is None:
        return None
    return [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]


def at_multiple(net: Callable[[Tensor], Tensor], img: Tensor, multiple: int, *, at_least: int = 0) -> Tensor:
    """Runs a network on images whose sizes it cannot halve often enough.

    The image is continued to the right and below by its reflection, as often as that takes, up to the next multiple of
    `multiple` pixels and at least `at_least`; the result is cropped to where the image was. Images of a fitting size
    pass unchanged.

    Args:
        net:      [N, C, H, W] -> [N, C', H, W], for sides that are multiples of `multiple`.
        img:      [N, C, H, W].
        multiple: of the sides, in pixels.
        at_least: smallest side, in pixels; itself a multiple.

    Returns:
        [N, C', H, W].
    """
    height, width = img.shape[2:]
    for dim in (2, 3):
        size = img.shape[dim]
        wanted = max(-(-size // multiple) * multiple, at_least)
        if wanted > size:
            img = img.index_select(dim, _reflected(size, wanted, img.device))
    return net(img)[:, :, :height, :width]


def _reflected(size: int, wanted: int, device: torch.device) -> Tensor:
    """Indices 0, 1, ..., size-1, size-2, ..., 1, 0, 1, ... of `wanted` pixels: the border itself is not repeated."""
    period = max(2 * size - 2, 1)
    at = torch.arange(wanted, device=device) % period
    return torch.minimum(at, period - at) if size > 1 else at


@torch.no_grad()
def init_weights(net: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights anew, in place: N(0, 0.02) for convolutions, N(1, 0.02) for scales of norms, biases 0.

    PReLUs keep their 0.25.

    Args:
        generator: a CPU one, so that the weights are the same on every device.

    Source: Zhu et al. 2017, arXiv:1703.10593, Section 4 and Appendix 7.1; Isola et al. 2016, arXiv:1611.07004.
    """
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.02 + mean)
            if layer.bias is not None:
                layer.bias.zero_()
