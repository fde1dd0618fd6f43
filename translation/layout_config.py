# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of networks and hosts that make images of label maps. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ggdr.translation.config_base import HostConfig, NetworkConfig


@dataclass(frozen=True)
class OASISGeneratorConfig(NetworkConfig):
    """Of OASIS' generator, which takes a plane for each class; 5 ups make 256 pixels of 8."""

    network: ClassVar[str] = "oasis_generator"
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 64
    noise_channels: int = 64
    ups: int = 5
    norm: str = "batch"


@dataclass(frozen=True)
class OASISDiscriminatorConfig(NetworkConfig):
    """Of OASIS' discriminator, which says of each pixel which class it is of, or that it is fake."""

    network: ClassVar[str] = "oasis_discriminator"
    in_channels: int = 3
    classes: int = 3
    channels: int = 64
    layers: int = 6


@dataclass(frozen=True)
class CCFPSEGeneratorConfig(NetworkConfig):
    """Of CC-FPSE's generator, which takes a plane for each class; 5 ups make 256 pixels of 8."""

    network: ClassVar[str] = "cc_fpse_generator"
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 64
    noise_channels: int = 16
    ups: int = 5
    norm: str = "batch"


@dataclass(frozen=True)
class CCFPSEDiscriminatorConfig(NetworkConfig):
    """Of CC-FPSE's discriminator, a feature pyramid of so many layers."""

    network: ClassVar[str] = "cc_fpse_discriminator"
    in_channels: int = 3
    classes: int = 3
    channels: int = 64
    layers: int = 5
    limits: ClassVar = {**NetworkConfig.limits, "layers": (4, 12)}


@dataclass(frozen=True)
class LayoutConfig(HostConfig):
    """Losses and optimisers that all hosts of label maps have; see HostConfig.

    Attributes:
        lr:          of G.
        d_lr_factor: how many times that is the learning rate of D (two time scales).
        ema_kimg:    half-life of G's moving average in thousands of images; at most 5 % of those that were seen.
        G_gain:      of G's first weights without spectral norm; see `spectral_norm.init_xavier`.
        D_gain:      of those of D.
    """

    lr: float = 1e-4
    beta1: float = 0.0
    d_lr_factor: float = 4.0
    ema_kimg: float = 138.6  # 0.9999 an iteration of 20 images
    G_gain: float = 0.02
    D_gain: float = 0.02


@dataclass(frozen=True)
class OASISConfig(LayoutConfig):
    """Losses and optimisers of OASIS; see LayoutConfig.

    Attributes:
        labelmix_weight: of D's consistency on mixed images; with 0 there are none.

    Source: Sushko et al. 2020, arXiv:2012.04781, Section 3 and Appendix.
    """

    gan_losses: ClassVar[tuple[str, ...]] = ("segmentation",)
    gan_loss: str = "segmentation"
    labelmix_weight: float = 10.0


@dataclass(frozen=True)
class CCFPSEConfig(LayoutConfig):
    """Losses and optimisers of CC-FPSE; see LayoutConfig.

    Attributes:
        feature_weight: of the distance of D's features of a result from those of its target; with 0 there are none.

    Source: Liu et al. 2019, arXiv:1910.06809, Section 3.3, without the perceptual loss, which needs another network.
    """

    gan_losses: ClassVar[tuple[str, ...]] = ("hinge",)
    gan_loss: str = "hinge"
    feature_weight: float = 10.0
