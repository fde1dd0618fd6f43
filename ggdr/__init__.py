# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Generator-guided discriminator regularisation, for any PyTorch GAN.

Source: Lee et al. 2022, "Generator Knows What Discriminator Should Learn in Unconditional GANs", arXiv:2207.13320.
"""

from ggdr.decoder import FeatureDecoder
from ggdr.loss import cosine_distance_loss
from ggdr.regularizer import GGDR
from ggdr.suggestion import Suggestion, suggest
from ggdr.taps import Features, FeatureTap

__all__ = ["GGDR", "FeatureDecoder", "FeatureTap", "Features", "Suggestion", "cosine_distance_loss", "suggest"]
