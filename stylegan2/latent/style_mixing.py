# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images with the styles of others: which layers there are, and what mixing them gives."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ggdr.stylegan2.generator import SynthesisNetwork


def layer_resolutions(synthesis: SynthesisNetwork) -> list[int]:
    """Pixels of the layer that each of the ws drives: the 3x3 convolutions from 4x4 up, and the last toRGB."""
    return [block.res for block in synthesis.blocks for _ in block.convs] + [synthesis.resolutions[-1]]


def layer_bands(synthesis: SynthesisNetwork) -> dict[str, list[int]]:
    """Indices of ws called "coarse", "middle" and "fine".

    As in the paper coarse ends at 8x8 and middle at 32x32, if the network is large enough. Else fine is the highest
    resolution, middle the one below it and coarse the rest; of an 8x8 network fine is the last toRGB alone.

    Source: Karras et al. 2019, arXiv:1812.04948, Section 3.1.
    """
    resolutions = layer_resolutions(synthesis)
    middle_end = max(min(32, resolutions[-1] // 2), 8)
    coarse_end = min(8, middle_end // 2)
    bands: dict[str, list[int]] = {"coarse": [], "middle": [], "fine": [len(resolutions) - 1]}
    for i, res in reversed(list(enumerate(resolutions[:-1]))):
        bands["coarse" if res <= coarse_end else "middle" if res <= middle_end else "fine"].insert(0, i)
    return bands


def mix_style_table(base: Tensor, style: Tensor, layers: Sequence[int]) -> Tensor:
    """Every base with the styles of every other: ws [R, num_ws, w_dim], [C, num_ws, w_dim] to [R, C, num_ws, w_dim].

    Source: Karras et al. 2019, arXiv:1812.04948, Section 3.1.
    """
    ws = base[:, None].repeat(1, len(style), 1, 1)
    ws[:, :, list(layers)] = style[None, :, list(layers)]
    return ws
