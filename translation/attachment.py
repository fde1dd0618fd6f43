# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where regularisers take hold of a generator and a discriminator of image translation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ggdr.torch_utils.regularizers import Attachment
from ggdr.translation.discriminators import PatchDiscriminator
from ggdr.translation.generators import ResnetGenerator, UnetGenerator


def attachment(
    G: ResnetGenerator | UnetGenerator, D: nn.Module, judge: Callable[[Tensor, Tensor], object], resolution: int
) -> Attachment:
    """The layers of G that make features on the way to the image, and those of D that halve the size.

    Args:
        judge:      runs D once on (input, output) of G, as D is given them in training.
        resolution: side of the images in training, in pixels.

    Raises:
        ValueError: D halves no sizes, or G takes images of this size only with a border.
    """
    if not isinstance(D, PatchDiscriminator):
        raise ValueError(
            f"regularisers need a discriminator that looks at several scales, a patch discriminator, got "
            f"{type(D).__name__}"
        )
    guides = guide_layers(G, resolution)

    def probe() -> None:
        device = next(G.parameters()).device
        img = torch.zeros([1, G.config.in_channels, resolution, resolution], device=device)
        judge(img, G(img))

    encoder = [f"model.{3 * i + 1}" for i in range(D.config.layers)]
    return Attachment(G, D, probe, guides, encoder)


def guide_layers(G: ResnetGenerator | UnetGenerator, resolution: int) -> dict[int, str]:
    """Layers of G by the size of their feature maps: the ends of the stages of a ResNet, the way up of a U-Net.

    Raises:
        ValueError: the resolution is no multiple of what G needs, so that features and image would not lie alike.
    """
    is_unet = isinstance(G, UnetGenerator)
    multiple = 2**G.config.downs if is_unet else 4
    if resolution % multiple:
        raise ValueError(
            f"regularisers need images whose side is a multiple of {multiple} for this generator, got {resolution}"
        )
    if is_unet:
        downs = G.config.downs
        levels = {i: f"model.model.1{'.model.3' * (i - 1)}.model" for i in range(1, downs)}
        # The norm after the transposed convolution; the innermost level has neither norm nor level before it.
        return {resolution >> i: f"{name}.{4 if i == downs - 1 else 6}" for i, name in levels.items()}
    last = 9 + G.config.blocks
    return {resolution // 4: f"model.{last}", resolution // 2: f"model.{last + 3}", resolution: f"model.{last + 6}"}
