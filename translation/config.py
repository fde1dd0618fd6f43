# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of the networks and of the hosts of image translation. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ggdr.translation.config_base import (
    MAX_DOMAINS,
    MAX_IMG_CHANNELS,
    HostConfig,
    NetworkConfig,
    shown,
)
from ggdr.translation.layout_config import (
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)


@dataclass(frozen=True)
class ResnetGeneratorConfig(NetworkConfig):
    """Of CycleGAN's generator; 9 blocks are for images of 256 pixels, 6 for 128."""

    network: ClassVar[str] = "resnet_generator"
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 64
    blocks: int = 9
    norm: str = "instance"
    dropout: bool = False


@dataclass(frozen=True)
class UnetGeneratorConfig(NetworkConfig):
    """Of pix2pix's generator; 8 downs take 256 pixels to one, 7 take 128."""

    network: ClassVar[str] = "unet_generator"
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 64
    downs: int = 8
    norm: str = "batch"
    dropout: bool = True


@dataclass(frozen=True)
class PatchDiscriminatorConfig(NetworkConfig):
    """Of PatchGAN; 3 layers see patches of 70x70 pixels. pix2pix gives it input and output together: 6 channels."""

    network: ClassVar[str] = "patch_discriminator"
    in_channels: int = 3
    channels: int = 64
    layers: int = 3
    norm: str = "instance"


@dataclass(frozen=True)
class PixelDiscriminatorConfig(NetworkConfig):
    """Of PixelGAN, which sees single pixels."""

    network: ClassVar[str] = "pixel_discriminator"
    in_channels: int = 3
    channels: int = 64
    norm: str = "instance"


@dataclass(frozen=True)
class EncoderConfig(NetworkConfig):
    """Of ComboGAN's encoder of one domain."""

    network: ClassVar[str] = "combogan_encoder"
    in_channels: int = 3
    channels: int = 64
    blocks: int = 4


@dataclass(frozen=True)
class DecoderConfig(NetworkConfig):
    """Of ComboGAN's decoder of one domain."""

    network: ClassVar[str] = "combogan_decoder"
    out_channels: int = 3
    channels: int = 64
    blocks: int = 5


@dataclass(frozen=True)
class SharedConfig(NetworkConfig):
    """Of the blocks that all of ComboGAN's domains share; there are 4 x `channels` feature maps."""

    network: ClassVar[str] = "combogan_shared"
    channels: int = 64
    blocks: int = 1
    domains: int = 2


@dataclass(frozen=True)
class ComboGANGeneratorConfig(NetworkConfig):
    """Of ComboGAN's encoders and decoders of all domains, 9 blocks on the way from one image to another."""

    network: ClassVar[str] = "combogan_generator"
    img_channels: int = 3
    channels: int = 64
    encoder_blocks: int = 4
    decoder_blocks: int = 5
    shared_encoder_blocks: int = 0
    shared_decoder_blocks: int = 0
    domains: int = 2
    limits: ClassVar = {**NetworkConfig.limits, "img_channels": (1, MAX_IMG_CHANNELS), "domains": (2, MAX_DOMAINS)}

    @property
    def encoder(self) -> EncoderConfig:
        return EncoderConfig(self.img_channels, self.channels, self.encoder_blocks)

    @property
    def decoder(self) -> DecoderConfig:
        return DecoderConfig(self.img_channels, self.channels, self.decoder_blocks)

    @property
    def shared_encoder(self) -> SharedConfig:
        return SharedConfig(self.channels, self.shared_encoder_blocks, self.domains)

    @property
    def shared_decoder(self) -> SharedConfig:
        return SharedConfig(self.channels, self.shared_decoder_blocks, self.domains)


@dataclass(frozen=True)
class ComboGANDiscriminatorConfig(NetworkConfig):
    """Of ComboGAN's discriminator of one domain, which judges images in RGB."""

    network: ClassVar[str] = "combogan_discriminator"
    channels: int = 64
    layers: int = 4


CONFIGS: dict[str, type[NetworkConfig]] = {
    config.network: config
    for config in (
        ResnetGeneratorConfig,
        UnetGeneratorConfig,
        PatchDiscriminatorConfig,
        PixelDiscriminatorConfig,
        EncoderConfig,
        DecoderConfig,
        SharedConfig,
        ComboGANGeneratorConfig,
        ComboGANDiscriminatorConfig,
        OASISGeneratorConfig,
        OASISDiscriminatorConfig,
        CCFPSEGeneratorConfig,
        CCFPSEDiscriminatorConfig,
    )
}


def config_from_json(stored: Any) -> NetworkConfig:
    """The settings that `NetworkConfig.to_json` gave, from a file that anyone can have written.

    Raises:
        ValueError: they are of no network.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"expected the settings of a network, got {shown(stored)}")
    settings = dict(stored)
    kind = settings.pop("network", None)
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise ValueError(f"network must be one of {', '.join(CONFIGS)}, got {shown(kind)}")
    names = [field.name for field in fields(CONFIGS[kind])]
    unknown = [name for name in settings if name not in names]
    if unknown:
        raise ValueError(f"{kind} has no setting {shown(unknown[0])}; it has {', '.join(names)}")
    return CONFIGS[kind](**settings)


def _check_learns(*weights: float) -> None:
    """ValueError if all are 0."""
    if not any(weights):
        raise ValueError("the weights of all of G's losses are 0: it would learn nothing")


@dataclass(frozen=True)
class Pix2PixConfig(HostConfig):
    """Losses and optimisers of pix2pix; see HostConfig.

    A term of weight 0 is not computed; ValueError if that leaves G nothing to learn from.

    Attributes:
        gan_weight: of the adversarial loss of G,
        l1_weight:  and of the distance from the target.

    Source: Isola et al. 2016, arXiv:1611.07004, Section 3.3 and Appendix 6.2.
    """

    gan_loss: str = "cross_entropy"
    gan_weight: float = 1.0
    l1_weight: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_learns(self.gan_weight, self.l1_weight)


@dataclass(frozen=True)
class CycleGANConfig(HostConfig):
    """Losses and optimisers of CycleGAN; see HostConfig.

    A term of weight 0 is not computed; ValueError if that leaves G nothing to learn from.

    Attributes:
        gan_weight:      of the adversarial losses of G_A and G_B,
        cycle_weight_A:  of the distance of G_B(G_A(a)) from a, the forward cycle,
        cycle_weight_B:  of that of G_A(G_B(b)) from b, the backward cycle,
        identity_weight: and of that of G_A(b) from b, and of G_B(a) from a.
        pool_size:       older fakes that each discriminator may be shown; 0: it sees new ones only.

    Source: Zhu et al. 2017, arXiv:1703.10593, Sections 3, 4 and 5.2.
    """

    gan_weight: float = 1.0
    cycle_weight_A: float = 10.0
    cycle_weight_B: float = 10.0
    identity_weight: float = 5.0
    pool_size: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_learns(self.gan_weight, self.cycle_weight_A, self.cycle_weight_B, self.identity_weight)

    def cycle_weight(self, side: str) -> float:
        """Of the cycle that begins with images of A or of B, as `side` says."""
        return {"A": self.cycle_weight_A, "B": self.cycle_weight_B}[side]


@dataclass(frozen=True)
class ComboGANConfig(HostConfig):
    """Losses and optimisers of ComboGAN; see HostConfig. A term of weight 0 is not computed.

    Attributes:
        cycle_weight:    of the distance of an image from what comes back from the other domain,
        identity_weight: of its coarse distance from what comes back from its own,
        latent_weight:   at the end of training, of the distance of a fake's code from the image's; see `latent_factor`,
        forward_weight:  and of the coarse distance of a fake from the image, beside 1 for the adversarial losses.
        pool_size:       older fakes that each discriminator may be shown; 0: it sees new ones only.

    Source: Anoosheh et al. 2017, arXiv:1712.06909; the terms with weight 0 as it is published.
    """

    cycle_weight: float = 10.0
    identity_weight: float = 0.0
    latent_weight: float = 0.0
    forward_weight: float = 0.0
    pool_size: int = 50

    def latent_factor(self, nimg: int) -> float:
        """What part of `latent_weight` counts after so many samples: it grows linearly over training."""
        return min(nimg / self.total_nimg, 1.0) if self.total_nimg else 1.0
