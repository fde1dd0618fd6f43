# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The generators of all hosts as they are used after training: images of one domain to images of another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.translation.combogan_networks import ComboGANGenerator
from ggdr.translation.generators import MULTIPLE, ResnetGenerator, UnetGenerator
from ggdr.translation.layers import image_statistics

PIX2PIX_DOMAINS = ("input", "output")
CYCLEGAN_DOMAINS = ("A", "B")


class Translator(ABC):
    """Translates images between domains, with dropout on, and with each image's own statistics in batch norms.

    Attributes:
        model:    what the networks were trained as.
        returns:  whether what was translated can be translated back.
        domains:  names of all domains, in order.
        multiple: sides of images that are multiples of so many pixels are not continued before they are translated.
        labels:   the classes, if it makes images of label maps: `label_maps.to_input` gives what it takes.
    """

    model: ClassVar[str]
    returns: ClassVar[bool] = True
    domains: tuple[str, ...]
    multiple: int
    labels: LabelClasses | None = None

    @property
    @abstractmethod
    def networks(self) -> Sequence[nn.Module]:
        """The generators."""

    @abstractmethod
    def generator(self, source: str) -> nn.Module:
        """The one that takes images of a domain."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The domains whose images it takes."""
        return self.domains

    @abstractmethod
    def targets(self, source: str) -> tuple[str, ...]:
        """The domains that images of `source` are translated to; among them its own if the networks can do that."""

    @abstractmethod
    def channels(self, source: str, target: str) -> tuple[int, int]:
        """Channels of images of the one domain, and of the other."""

    @abstractmethod
    def _generate(self, img: Tensor, source: str, target: str, seeds: Tensor) -> Tensor:
        """Images on the device of the networks."""

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    @torch.no_grad()
    def __call__(
        self,
        img: Tensor,
        source: str | None = None,
        target: str | None = None,
        *,
        seed: int | Sequence[int] = 0,
        batch_size: int = 1,
    ) -> Tensor:
        """Translates images. The result for each depends on no other image.

        Args:
            img:        [N, in_channels, H, W] float32 in [-1, 1], or 0 and 1 of label maps, of any size, on any device.
            source:     the domain that they are of; None where there is only one.
            target:     the domain that they become images of; None where there is only one.
            seed:       of the dropout: image i has that of seed + i. Or one for each image.
            batch_size: images that go through the network together; changes results by rounding only.

        Returns:
            [N, out_channels, H, W] float32 in [-1, 1] on the CPU.

        Raises:
            ValueError: there is no such domain, several where none is named, or other numbers of channels or seeds.
        """
        source = _one_of(source, self.sources, "source")
        target = _one_of(target, self.targets(source), "target")
        channels = self.channels(source, target)[0]
        if img.ndim != 4 or img.shape[1] != channels:
            raise ValueError(f"expected images [N, {channels}, H, W] of {source}, got {tuple(img.shape)}")
        seeds = torch.tensor([seed + i for i in range(len(img))] if isinstance(seed, int) else list(seed))
        if len(seeds) != len(img):
            raise ValueError(f"expected a seed for each of {len(img)} images, got {len(seeds)}")
        parts = []
        for x, its_seeds in zip(img.split(batch_size), seeds.split(batch_size), strict=True):
            parts.append(self._generate(x.to(self.device), source, target, its_seeds).cpu())
        return torch.cat(parts)


class Pix2PixTranslator(Translator):
    """G makes outputs of inputs, and nothing the other way round."""

    model, returns = "pix2pix", False
    domains = PIX2PIX_DOMAINS

    def __init__(self, G: ResnetGenerator | UnetGenerator, labels: LabelClasses | None = None) -> None:
        self.G, self.labels, self.multiple = G, labels, G.multiple

    @property
    def networks(self) -> Sequence[nn.Module]:
        return [self.G]

    def generator(self, source: str) -> nn.Module:
        return self.G

    @property
    def sources(self) -> tuple[str, ...]:
        return self.domains[:1]

    def targets(self, source: str) -> tuple[str, ...]:
        return self.domains[1:]

    def channels(self, source: str, target: str) -> tuple[int, int]:
        return self.G.config.in_channels, self.G.config.out_channels

    def _generate(self, img: Tensor, source: str, target: str, seeds: Tensor) -> Tensor:
        with image_statistics(self.G):
            return self.G(img, seeds)


class CycleGANTranslator(Translator):
    """G_A makes images of the second domain of those of the first, G_B the other way round.

    Raises:
        ValueError: they differ in the channels of a domain.
    """

    model = "CycleGAN"

    def __init__(
        self,
        G_A: ResnetGenerator | UnetGenerator,
        G_B: ResnetGenerator | UnetGenerator,
        domains: Sequence[str] = CYCLEGAN_DOMAINS,
    ) -> None:
        a, b = G_A.config, G_B.config
        if (a.in_channels, a.out_channels) != (b.out_channels, b.in_channels):
            raise ValueError(
                f"G_A takes {a.in_channels} channels and gives {a.out_channels}, G_B takes {b.in_channels} and gives "
                f"{b.out_channels}: expected the same the other way round"
            )
        self.domains = tuple(domains)
        self.multiple = max(G_A.multiple, G_B.multiple)
        self._generators = dict(zip(self.domains, (G_A, G_B), strict=True))

    @property
    def networks(self) -> Sequence[nn.Module]:
        return list(self._generators.values())

    def generator(self, source: str) -> nn.Module:
        return self._generators[source]

    def targets(self, source: str) -> tuple[str, ...]:
        return tuple(name for name in self.domains if name != source)

    def channels(self, source: str, target: str) -> tuple[int, int]:
        config = self._generators[source].config
        return config.in_channels, config.out_channels

    def _generate(self, img: Tensor, source: str, target: str, seeds: Tensor) -> Tensor:
        G = self._generators[source]
        with image_statistics(G):
            return G(img, seeds)


class ComboGANTranslator(Translator):
    """The encoder of one domain, and the decoder of another or of the same; nothing is random."""

    model = "ComboGAN"
    multiple = MULTIPLE

    def __init__(self, G: ComboGANGenerator, domains: Sequence[str] | None = None) -> None:
        self.G = G
        self.domains = numbered(G.config.domains) if domains is None else tuple(domains)
        self._numbers = dict(zip(self.domains, range(G.config.domains), strict=True))

    @property
    def networks(self) -> Sequence[nn.Module]:
        return [self.G]

    def generator(self, source: str) -> nn.Module:
        return self.G

    def targets(self, source: str) -> tuple[str, ...]:
        return self.domains

    def channels(self, source: str, target: str) -> tuple[int, int]:
        return self.G.config.img_channels, self.G.config.img_channels

    def _generate(self, img: Tensor, source: str, target: str, seeds: Tensor) -> Tensor:
        return self.G(img, self._numbers[source], self._numbers[target])


def numbered(num: int) -> tuple[str, ...]:
    """Names of domains that have none: "0", "1", ..."""
    return tuple(map(str, range(num)))


def _one_of(name: str | None, names: Sequence[str], what: str) -> str:
    if name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    raise ValueError(f"{what}: expected one of {', '.join(names)}, got {name!r}")
