# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published batch norms, folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

EPS = 1e-3  # of Inception and of EfficientNet
TENSORS = ("weight", "bias", "running_mean", "running_var")


def fold_batch_norm(tensors: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of a convolution with the batch norm behind it; by their published names.

    In float64: a rounding error here would be one in all features.
    """
    gamma, beta, mean, var = (tensors[f"{norm}.{tensor}"].double() for tensor in TENSORS)
    scale = gamma / (var + EPS).sqrt()
    return tensors[f"{conv}.weight"].double() * scale[:, None, None, None], beta - mean * scale


def folded_shapes(conv: str, norm: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published tensors of both, from the weight's shape."""
    return {f"{conv}.weight": weight} | {f"{norm}.{tensor}": weight[:1] for tensor in TENSORS}
