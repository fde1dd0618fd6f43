# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The networks of image translation by their settings."""

from __future__ import annotations

from torch import nn

from ggdr.translation.cc_fpse_networks import CCFPSEDiscriminator, CCFPSEGenerator
from ggdr.translation.combogan_networks import (
    ComboGANDiscriminator,
    ComboGANGenerator,
    Decoder,
    Encoder,
    SharedBlocks,
)
from ggdr.translation.config import (
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    DecoderConfig,
    EncoderConfig,
    NetworkConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    SharedConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.discriminators import PatchDiscriminator, PixelDiscriminator
from ggdr.translation.generators import ResnetGenerator, UnetGenerator
from ggdr.translation.layout_config import (
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)
from ggdr.translation.oasis_networks import OASISDiscriminator, OASISGenerator

NETWORKS: dict[type[NetworkConfig], type[nn.Module]] = {
    ResnetGeneratorConfig: ResnetGenerator,
    UnetGeneratorConfig: UnetGenerator,
    PatchDiscriminatorConfig: PatchDiscriminator,
    PixelDiscriminatorConfig: PixelDiscriminator,
    EncoderConfig: Encoder,
    DecoderConfig: Decoder,
    SharedConfig: SharedBlocks,
    ComboGANGeneratorConfig: ComboGANGenerator,
    ComboGANDiscriminatorConfig: ComboGANDiscriminator,
    OASISGeneratorConfig: OASISGenerator,
    OASISDiscriminatorConfig: OASISDiscriminator,
    CCFPSEGeneratorConfig: CCFPSEGenerator,
    CCFPSEDiscriminatorConfig: CCFPSEDiscriminator,
}


def build_network(config: NetworkConfig) -> nn.Module:
    """The network of these settings, with PyTorch's own initial weights; see `layers.init_weights`."""
    return NETWORKS[type(config)](config)
