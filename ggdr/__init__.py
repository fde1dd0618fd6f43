# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Generator-guided discriminator regularisation, for any PyTorch GAN.

Source: Lee et al. 2022, "Generator Knows What Discriminator Should Learn in Unconditional GANs", arXiv:2207.13320.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggdr.decoder import FeatureDecoder
    from ggdr.loss import cosine_distance_loss
    from ggdr.regularizer import GGDR
    from ggdr.suggestion import Suggestion, suggest
    from ggdr.taps import Features, FeatureTap

__all__ = ["GGDR", "FeatureDecoder", "FeatureTap", "Features", "Suggestion", "cosine_distance_loss", "suggest"]

_MODULES = {
    "GGDR": "regularizer",
    "FeatureDecoder": "decoder",
    "FeatureTap": "taps",
    "Features": "taps",
    "Suggestion": "suggestion",
    "cosine_distance_loss": "loss",
    "suggest": "suggestion",
}


def __getattr__(name: str) -> object:
    """Imports on first use, so that packages below this one can be imported without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
