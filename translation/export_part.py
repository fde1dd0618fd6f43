# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is exported of a translator: images of one domain to images of another, as a function of named tensors."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from ggdr.torch_utils.export_formats import Part
from ggdr.translation.combogan_networks import ComboGANGenerator
from ggdr.translation.generators import AT_LEAST, MULTIPLE, ResnetGenerator, UnetGenerator
from ggdr.translation.layers import BatchNorm
from ggdr.translation.translator import Translator

COMPARED_SIDE = 64  # pixels


class _Translate(nn.Module):
    """img to out of any size, as `layers.at_multiple` does it, but without a branch on sizes."""

    def __init__(self, model: nn.Module, multiple: int, at_least: int) -> None:
        super().__init__()
        self.model, self.multiple, self.fewest = model, multiple, max(at_least // multiple, 1)

    def forward(self, img: Tensor) -> Tensor:
        height, width = img.shape[2:]
        for dim, size in ((2, height), (3, width)):
            # The largest of several sizes as the graph has it; of a whole number of `multiple`, which proves that
            # maps can be halved and joined.
            wanted = torch.sym_max((size + self.multiple - 1) // self.multiple, self.fewest) * self.multiple
            period = torch.full([1], torch.sym_max(2 * size - 2, 1))
            at = torch.remainder(torch.arange(wanted), period)
            img = img.index_select(dim, torch.minimum(at, period - at))
        out = self.model(img)
        return out.index_select(2, torch.arange(height)).index_select(3, torch.arange(width))


class _Between(nn.Module):
    """ComboGAN's networks that take part in translations from one domain to another."""

    def __init__(self, G: ComboGANGenerator, source: int, target: int) -> None:
        super().__init__()
        self.encoder, self.decoder = G.encoders[source], G.decoders[target]
        self.shared_encoder, self.shared_decoder = G.shared_encoder, G.shared_decoder
        self.source, self.target = source, target

    def forward(self, img: Tensor) -> Tensor:
        code = self.shared_encoder(self.encoder(img), self.source)
        return self.decoder(self.shared_decoder(code, self.target))


def translator_part(translator: Translator, source: str, target: str) -> Part:
    """The networks that make images of `target` of those of `source`, to be exported.

    Images have any size, and several of one size go through at once. Batch norms take each image's own statistics.
    Dropout is off: a file has no seeds.

    Args:
        translator: float32, on the CPU.

    Raises:
        ValueError: it does not translate between these domains.
    """
    if source not in translator.sources or target not in translator.targets(source):
        raise ValueError(f"expected domains that the networks translate between, got {source!r} and {target!r}")
    G = deepcopy(translator.generator(source))
    for layer in G.modules():
        if isinstance(layer, BatchNorm):
            layer.alone = True
    if isinstance(G, ComboGANGenerator):
        module = _Translate(_Between(G, *map(translator.domains.index, (source, target))), MULTIPLE, AT_LEAST)
    else:
        module = _Translate(G.model, G.multiple, AT_LEAST if isinstance(G, ResnetGenerator) else 0)
    taken, made = translator.channels(source, target)

    def example(case: tuple[int, int, int], rng: torch.Generator) -> dict[str, Tensor]:
        n, height, width = case
        return {"img": torch.rand([n, taken, height, width], generator=rng) * 2 - 1}

    k = module.multiple
    # Norms over a few pixels are rounding alone, which every implementation does in its own way.
    side = max(k, COMPARED_SIDE)
    return Part(
        "generator",
        module.eval(),
        {"img": f"[N, {taken}, H, W] float32, images of {source}, -1 to 1, of any size"},
        "out",
        f"[N, {made}, H, W] float32, images of {target}, -1 to 1",
        example,
        # Larger and smaller than, and of, what can be halved; and a side that is reflected more than once.
        cases=((1, 2 * side, side), (2, side + 1, 2 * side + 3), (3, side - 1, 3)),
        traced=(2, k + 5, 2 * k + 6),
        axes={0: "N", 2: "H", 3: "W"},
    )


def has_dropout(translator: Translator, source: str) -> bool:
    """Whether the networks that translate images of a domain have dropout, which an exported file leaves out."""
    G = translator.generator(source)
    return isinstance(G, (ResnetGenerator, UnetGenerator)) and G.config.dropout
