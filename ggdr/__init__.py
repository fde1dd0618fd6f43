# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Generator-guided discriminator regularisation, for any PyTorch GAN.

Source: Lee et al. 2022, "Generator Knows What Discriminator Should Learn in Unconditional GANs", arXiv:2207.13320.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggdr.contrastive import Contrastive, pixel_nce_loss
    from ggdr.decoder import FeatureDecoder
    from ggdr.ema_guide import EMAGuide
    from ggdr.loss import cosine_distance_loss
    from ggdr.real_features import RealFeatures
    from ggdr.regularizer import GGDR
    from ggdr.semantic import Semantic, class_balanced_cross_entropy
    from ggdr.suggestion import Suggestion, suggest
    from ggdr.taps import Features, FeatureTap

__all__ = [
    "GGDR",
    "Contrastive",
    "EMAGuide",
    "FeatureDecoder",
    "FeatureTap",
    "Features",
    "RealFeatures",
    "Semantic",
    "Suggestion",
    "class_balanced_cross_entropy",
    "cosine_distance_loss",
    "pixel_nce_loss",
    "suggest",
]

_MODULES = {
    "GGDR": "regularizer",
    "Contrastive": "contrastive",
    "EMAGuide": "ema_guide",
    "FeatureDecoder": "decoder",
    "FeatureTap": "taps",
    "Features": "taps",
    "RealFeatures": "real_features",
    "Semantic": "semantic",
    "Suggestion": "suggestion",
    "class_balanced_cross_entropy": "semantic",
    "cosine_distance_loss": "loss",
    "pixel_nce_loss": "contrastive",
    "suggest": "suggestion",
}


def __getattr__(name: str) -> object:
    """Imports on first use, so that packages below this one can be imported without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
