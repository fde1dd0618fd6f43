# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Layers with equalised learning rate, shared by the generator and the discriminator.

Source: Karras et al. 2018 (arXiv:1710.10196, equalised learning rate, minibatch standard deviation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ggdr.torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from ggdr.torch_utils.ops.conv2d_resample import conv2d_resample
from ggdr.torch_utils.ops.demodulation import scaled_weight
from ggdr.torch_utils.ops.upfirdn2d import setup_filter


def normalize_2nd_moment(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """[N, C] -> [N, C] with mean square 1 over channels."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class FullyConnectedLayer(nn.Module):
    """Linear layer, bias and activation: [N, in_features] -> [N, out_features].

    Weights are stored with variance 1 / lr_multiplier^2 and scaled when they are used, so that Adam changes
    them at `lr_multiplier` times the optimiser's rate.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        act: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.act = act
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        # The product takes both gains as factors, which spares scaled copies of the weights.
        w, b = self.weight.to(x.dtype), self.bias.to(x.dtype)
        x = torch.addmm(b, x, w.t(), beta=self.bias_gain, alpha=self.weight_gain)
        return x if self.act == "linear" else bias_act(x, act=self.act)


class Conv2dLayer(nn.Module):
    """Convolution with optional resampling, bias and activation: [N, Cin, H, W] -> [N, Cout, H*up/down, W*up/down]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        act: str = "linear",
        up: int = 1,
        down: int = 1,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.act, self.up, self.down, self.conv_clamp = act, up, down, conv_clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        if self.bias is None and self.act == "linear" and self.conv_clamp is None:
            # A factor on the weights saves a pass over the maps.
            w = scaled_weight(self.weight, self.weight_gain * gain, x.dtype)
            return conv2d_resample(x, w, self.resample_filter, up=self.up, down=self.down)
        w = scaled_weight(self.weight, self.weight_gain, x.dtype)
        x = conv2d_resample(x, w, self.resample_filter, up=self.up, down=self.down)
        return scaled_bias_act(x, self.bias, act=self.act, gain=gain, clamp=self.conv_clamp)


def scaled_bias_act(x: Tensor, b: Tensor | None, *, act: str, gain: float, clamp: float | None) -> Tensor:
    """bias_act with the activation's own gain times `gain`; the clamp is scaled along."""
    act_gain = ACTIVATIONS[act].default_gain
    return bias_act(x, b, act=act, gain=act_gain * gain, clamp=None if clamp is None else clamp * gain)


class MappingNetwork(nn.Module):
    """Latents and labels to intermediate latents.

    Args:
        z_dim:          width of z; 0 if there are only labels (conditional discriminators).
        c_dim:          width of the label; 0 if unconditional.
        w_dim:          width of w.
        num_ws:         how often w is repeated; None for a single [N, w_dim] and no moving average.
        num_layers:     fully connected layers.
        lr_multiplier:  of their learning rate.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = (
            z_dim,
            c_dim,
            w_dim,
            num_ws,
            num_layers,
        )
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        for i in range(num_layers):
            layer = FullyConnectedLayer(widths[i], widths[i + 1], act="lrelu", lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None,
        *,
        truncation_psi: float | Tensor = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """z [N, z_dim], c [N, c_dim] -> ws [N, num_ws, w_dim], or w [N, w_dim] if num_ws is None.

        `truncation_psi`, a number or a tensor [] or [N, 1, 1], pulls the first `truncation_cutoff` ws (None: all)
        towards the mean w.
        """
        parts = []
        if self.z_dim > 0:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                raise ValueError(f"z must be [N, {self.z_dim}], got {None if z is None else tuple(z.shape)}")
            parts.append(normalize_2nd_moment(z.to(torch.float32)))
        if self.c_dim > 0:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                raise ValueError(f"c must be [N, {self.c_dim}], got {None if c is None else tuple(c.shape)}")
            parts.append(normalize_2nd_moment(self.embed(c.to(torch.float32))))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.num_ws is None:
            return x
        ws = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        return self.truncate(ws, truncation_psi, truncation_cutoff)

    def truncate(self, ws: Tensor, psi: float | Tensor, cutoff: int | None = None) -> Tensor:
        """ws [N, num_ws, w_dim], the first `cutoff` of them (None: all) pulled towards the mean w as `forward` says."""
        if not isinstance(psi, Tensor) and psi == 1:
            return ws
        cutoff = ws.shape[1] if cutoff is None else cutoff
        first = ws[:, :cutoff]
        # Expanded here: torch 2.6 cannot export a lerp that broadcasts over batches of any size.
        psi = psi.expand_as(first) if isinstance(psi, Tensor) else psi
        return torch.cat([self.w_avg.expand_as(first).lerp(first, psi), ws[:, cutoff:]], dim=1)


def minibatch_std(x: Tensor, *, group_size: int | None, num_channels: int = 1, num_batches: int = 1) -> Tensor:
    """Appends the standard deviation over groups of images as constant channels.

    Image i belongs to group i mod (N / group_size), so interleaved parts of a batch hold whole groups.

    Args:
        x:            [N, C, H, W].
        group_size:   images a group, at most a batch; None for the whole batch.
        num_channels: channels appended; each sums up C / num_channels channels.
        num_batches:  x holds so many batches, an image of each in turn; a group has images of one batch alone.

    Returns:
        [N, C + num_channels, H, W].

    Raises:
        ValueError: a batch is not a multiple of the group size.
    """
    n, c, h, w = x.shape
    if isinstance(n, torch.SymInt):
        return _minibatch_std_of_any_batch(x, group_size, num_channels)
    batch = n // num_batches
    g = batch if group_size is None else min(group_size, batch)
    if batch % g:
        raise ValueError(f"batch of {batch} images is not a multiple of the minibatch-std group size {g}")
    y = x.reshape(g, n // g, num_channels, c // num_channels, h, w)
    y = (y.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=[2, 3, 4])
    y = y[:, :, None, None].repeat(g, 1, h, w)
    return torch.cat([x, y], dim=1)


def _minibatch_std_of_any_batch(x: Tensor, group_size: int | None, num_channels: int) -> Tensor:
    """`minibatch_std` where the size of the batch is unknown (torch.export), so that no shape may depend on its groups.

    A batch that is not a multiple of the group size is taken too: its groups differ in size by one image at most.
    """
    n, c, h, w = x.shape
    image = torch.arange(n, device=x.device)
    num_groups = torch.ones_like(image[:1]) if group_size is None else ((image[-1:] + 1) // group_size).clamp(min=1)
    group = image % num_groups
    same = (group[:, None] == group[None, :]).to(x.dtype)
    averages = same / same.sum(dim=1, keepdim=True)  # [N, N], to each image the mean over its group
    flat = x.flatten(1)
    y = (averages @ (flat - averages @ flat).square() + 1e-8).sqrt()
    y = y.reshape(n, num_channels, -1).mean(dim=2)[:, :, None, None].expand(-1, -1, h, w)
    return torch.cat([x, y], dim=1)
