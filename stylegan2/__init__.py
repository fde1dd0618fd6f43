# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2-ADA: networks, augmentation, losses, and the task that the training loop runs."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
    from ggdr.stylegan2.discriminator import Discriminator
    from ggdr.stylegan2.generator import Generator
    from ggdr.stylegan2.snapshot import load_discriminator, load_generator

__all__ = [
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "load_discriminator",
    "load_generator",
]

_MODULES = {
    "Config": "config",
    "Discriminator": "discriminator",
    "Generator": "generator",
    "load_": "snapshot",
}


def __getattr__(name: str) -> object:
    """Imports on first use, so that the settings alone (for help texts) do not load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next(module for part, module in _MODULES.items() if part in name)
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
