# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The light decoder that turns the discriminator into an encoder-decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width


class DecoderLayer(nn.Module):
    """1x1 convolution, 2x FIR upsampling, bias; linear: [N, Cin, h, w] -> [N, Cout, 2h, 2w].

    Weights have equalised learning rate: stored with variance 1, scaled by 1/sqrt(Cin) when used.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("resample_filter", torch.outer(taps, taps) / taps.sum().square())

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight * self.weight_gain)
        # Gain 4 makes up for the three zeros that upsampling puts beside each sample.
        kernel = (self.resample_filter * 4).expand(x.shape[1], 1, -1, -1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1, groups=x.shape[1])


class FeatureDecoder(nn.Module):
    """Predicts the generator's feature maps from the discriminator's.

    It starts from the smallest encoder map. Each level doubles the size; from the second level on its input is
    the previous level's output beside the encoder map of that size, if there is one. Layers are named
    `b{height}_dec` after the size that they produce (`b{height}x{width}_dec` if not square).

    Source: Lee et al. 2022, arXiv:2207.13320, Section 3.
    """

    def __init__(self, encoder: Mapping[str, Shape], guides: Mapping[str, Shape]) -> None:
        """Builds the levels up to the largest guide.

        Args:
            encoder: shapes of the discriminator's feature maps by name; maps not smaller than the largest guide
                     are left out.
            guides:  shapes of the generator's feature maps to predict, by name.

        Raises:
            ValueError: a guide's size is not a power of two times that of the smallest encoder map; two
                        encoder maps or two guides have one size.
        """
        super().__init__()
        by_size = _by_size(encoder, "encoder maps")
        guide_at = _by_size(guides, "guides")
        if not by_size or not guide_at:
            raise ValueError(f"need at least one encoder map and one guide, got {dict(encoder)} and {dict(guides)}")
        size = min(by_size)
        largest = max(guide_at)
        self.start = by_size[size]
        self._levels: list[tuple[str, str | None, str | None]] = []
        channels, skip = encoder[self.start][0], None
        reached = set()
        while size < largest:
            size = (size[0] * 2, size[1] * 2)
            guide, next_skip = guide_at.get(size), by_size.get(size)
            in_channels = channels + (encoder[skip][0] if skip else 0)
            channels = guides[guide][0] if guide else encoder[next_skip][0] if next_skip else channels
            layer = f"b{size[0]}_dec" if size[0] == size[1] else f"b{size[0]}x{size[1]}_dec"
            self.add_module(layer, DecoderLayer(in_channels, channels))
            self._levels.append((layer, skip, guide))
            skip = next_skip
            reached.add(size)
        for size, name in guide_at.items():
            if size not in reached:
                sizes = ", ".join(f"{h}x{w}" for h, w in by_size)
                raise ValueError(
                    f"guide {name!r} of {size[0]}x{size[1]} pixels is not a power of two times the smallest of "
                    f"the encoder maps ({sizes})"
                )

    @property
    def encoder_names(self) -> list[str]:
        """The encoder maps that are used, from the smallest up."""
        return [self.start] + [skip for _, skip, _ in self._levels if skip]

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encoder maps [N, C, h, w] by name -> predicted guides [N, C, H, W] float32 by name."""
        x = feats[self.start].float()
        pred = {}
        for layer, skip, guide in self._levels:
            if skip is not None:
                x = torch.cat([x, feats[skip].float()], dim=1)
            x = getattr(self, layer)(x)
            if guide is not None:
                pred[guide] = x
        return pred


def _by_size(shapes: Mapping[str, Shape], what: str) -> dict[tuple[int, int], str]:
    """Names by (height, width), ascending; raises ValueError where two share a size."""
    names: dict[tuple[int, int], str] = {}
    for name, (_, height, width) in sorted(shapes.items(), key=lambda item: item[1][1:]):
        other = names.setdefault((height, width), name)
        if other != name:
            raise ValueError(f"{what} {other!r} and {name!r} are both {height}x{width}; name one of them")
    return names
