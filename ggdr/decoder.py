# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The light decoder that turns the discriminator into an encoder-decoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width
Size = tuple[int, int]  # height, width

REACH = 4  # times the size of D's largest map; beyond it the decoder would have to invent what D never saw


class DecoderLayer(nn.Module):
    """1x1 convolution, 2x FIR upsampling, bias; linear: [N, Cin, h, w] -> [N, Cout, H, W], of 2h x 2w or a given size.

    Weights have equalised learning rate: stored with variance 1, scaled by 1/sqrt(Cin) when used.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("resample_filter", torch.outer(taps, taps) / taps.sum().square())

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        n, _, h, w = x.shape
        high, wide = size or (2 * h, 2 * w)
        # Products with small dense matrices, one for each axis: faster than a convolution of each channel by itself,
        # and a resize to another size is a factor in them.
        rows, columns = self._upsampling(h, high, ones=0), self._upsampling(w, wide, ones=1)
        x = F.conv2d(x, self.weight.float()).permute(0, 2, 3, 1)
        x = torch.bmm(rows.expand(n, -1, -1), x.reshape(n, h, -1))
        # The bias is one more pixel of each row, of weight 1 in the second product: no pass over the large map.
        bias = self.bias.float().expand(n * high, 1, -1)
        x = torch.cat([x.reshape(n * high, w, -1), bias], dim=1)
        x = torch.bmm(columns.expand(n * high, -1, -1), x)
        return x.reshape(n, high, wide, -1).permute(0, 3, 1, 2)

    def _upsampling(self, length: int, upsampled: int, *, ones: int) -> Tensor:
        """Of one axis, with half of the weights' gain, as the other axis has the other half: no pass over them."""
        f = self.resample_filter
        version = None if f.is_inference() else f._version
        return _upsampling_matrix(f, version, length, upsampled, math.sqrt(self.weight_gain), ones)


@lru_cache(maxsize=64)
def _upsampling_matrix(f: Tensor, version: int | None, length: int, upsampled: int, gain: float, ones: int) -> Tensor:
    """[upsampled, length + ones]: zeros between samples, FIR filter, a linear resize unless that doubles it; then ones.

    `version` is how often the filter [4, 4] had been written to: an older matrix is not taken then.
    """
    with torch.inference_mode(False), torch.no_grad():
        taps = 2 * gain * f.float().sum(dim=0)  # 2 makes up for the zeros
        one_hot = torch.eye(length, device=taps.device, dtype=taps.dtype)[:, None]
        x = F.conv_transpose1d(one_hot, taps[None, None], stride=2, padding=1)
        if upsampled != 2 * length:
            x = F.interpolate(x, upsampled, mode="linear", align_corners=False)
        return F.pad(x[:, 0].t(), (0, ones), value=1.0)


class Level(NamedTuple):
    """One level of a FeatureDecoder."""

    layer: str
    size: Size  # of its output, for images as large as those of the probe
    skip: str | None  # encoder map of that size, beside which the output goes into the next level
    guide: str | None  # that its output predicts


class FeatureDecoder(nn.Module):
    """Predicts the generator's feature maps from the discriminator's.

    It starts from the smallest encoder map. Each level doubles the size; from the second level on its input is
    the previous level's output beside the encoder map of that size, if there is one. Where the next map is not quite
    twice as large (7x7 after 4x4, or 64x64 after 31x31), the doubled map is resized to it bilinearly. Layers are named
    `b{height}_dec` after the size that they produce (`b{height}x{width}_dec` if not square).

    Source: Lee et al. 2022, arXiv:2207.13320, Section 3; the resizing is this project's.
    """

    def __init__(self, encoder: Mapping[str, Shape], guides: Mapping[str, Shape]) -> None:
        """Builds the levels up to the largest guide.

        Args:
            encoder: shapes of the discriminator's feature maps by name; maps not smaller than the largest guide
                     are left out.
            guides:  shapes of the generator's feature maps to predict, by name.

        Raises:
            ValueError: a guide is not larger than the smallest encoder map, or more than REACH times as large as the
                        largest; two encoder maps or two guides have one size; a map is higher and narrower than
                        another.
        """
        super().__init__()
        if not encoder or not guides:
            raise ValueError(f"need at least one encoder map and one guide, got {dict(encoder)} and {dict(guides)}")
        guide_at = _by_size(guides, "guides")
        largest = max(guide_at, key=math.prod)
        by_size = _by_size(encoder, "encoder maps")
        _check_reach(by_size, guide_at)
        by_size = {size: name for size, name in by_size.items() if math.prod(size) < math.prod(largest)}
        sizes = sorted({*by_size, *guide_at}, key=math.prod)
        _check_nested(sizes, {**by_size, **guide_at})

        self.start, self._start_size = by_size[sizes[0]], sizes[0]
        self.levels: list[Level] = []
        channels, skip = encoder[self.start][0], None
        for before, next_size in itertools.pairwise(sizes):
            for size in _doublings(before, next_size):
                in_channels = channels + (encoder[skip][0] if skip else 0)
                guide, skip = guide_at.get(size), by_size.get(size)
                channels = guides[guide][0] if guide else encoder[skip][0] if skip else channels
                layer = f"b{size[0]}_dec" if size[0] == size[1] else f"b{size[0]}x{size[1]}_dec"
                self.add_module(layer, DecoderLayer(in_channels, channels))
                self.levels.append(Level(layer, size, skip, guide))

    @property
    def encoder_names(self) -> list[str]:
        """The encoder maps that are used, from the smallest up."""
        return [self.start] + [level.skip for level in self.levels if level.skip]

    def forward(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encoder maps [N, C, h, w] by name -> predicted guides [N, C, H, W] float32 by name.

        Maps of smaller or larger images than those of the probe (crops) give guides of proportional size. It computes
        in float32, also under autocast and with parameters of another type.
        """
        with torch.autocast(feats[self.start].device.type, enabled=False):
            return self._decode(feats)

    def _decode(self, feats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = feats[self.start].float()
        as_probed = x.shape[2:] == self._start_size
        pred = {}
        for level in self.levels:
            skip = None if level.skip is None else feats[level.skip].float()
            size = tuple(skip.shape[2:]) if skip is not None else level.size if as_probed else None
            x = getattr(self, level.layer)(x, size)
            if level.guide is not None:
                pred[level.guide] = x
            if skip is not None:
                x = torch.cat([x, skip], dim=1)
        return pred


def _doublings(size: Size, last: Size) -> Iterator[Size]:
    """Sizes from the next after `size` up to `last`: doubled each time, and at last up to twice and a half as large."""
    while size != last:
        doubled = tuple(2 * length for length in size)
        near = all(4 * end <= 5 * length for end, length in zip(last, doubled, strict=True))
        size = last if near else tuple(map(min, doubled, last))
        yield size


def _by_size(shapes: Mapping[str, Shape], what: str) -> dict[Size, str]:
    """Names by (height, width), ascending; raises ValueError where two share a size."""
    names: dict[Size, str] = {}
    for name, (_, height, width) in sorted(shapes.items(), key=lambda item: math.prod(item[1][1:])):
        other = names.setdefault((height, width), name)
        if other != name:
            raise ValueError(f"{what} {other!r} and {name!r} are both {height}x{width}; name one of them")
    return names


def _check_reach(encoder: Mapping[Size, str], guides: Mapping[Size, str]) -> None:
    """ValueError unless the decoder can get from D's maps to every guide."""
    smallest = min(encoder, key=math.prod)
    for size, name in guides.items():
        below = [other for other in encoder if math.prod(other) < math.prod(size)]
        if not below:
            raise ValueError(
                f"guide {name!r} is {_text(size)}, and the smallest map of the discriminator, {encoder[smallest]!r}, "
                f"is {_text(smallest)}: the decoder goes up from a smaller map; name a deeper layer of D in "
                "`encoder`, or a guide of higher resolution"
            )
        nearest = max(below, key=math.prod)
        if size[0] > REACH * nearest[0] or size[1] > REACH * nearest[1]:
            raise ValueError(
                f"guide {name!r} of {_text(size)} is out of reach: the largest map of the discriminator below it, "
                f"{encoder[nearest]!r}, is {_text(nearest)}, and the decoder goes up to {REACH} times its size; name "
                "layers of D in between in `encoder`, or a guide of lower resolution"
            )


def _check_nested(sizes: list[Size], names: Mapping[Size, str]) -> None:
    """ValueError unless each size contains the one before it."""
    for small, large in zip(sizes, sizes[1:], strict=False):
        if small[0] > large[0] or small[1] > large[1]:
            raise ValueError(
                f"maps {names[small]!r} of {_text(small)} and {names[large]!r} of {_text(large)} do not see the same "
                "picture: one is higher and the other wider; name others"
            )


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
