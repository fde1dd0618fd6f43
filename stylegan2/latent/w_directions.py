# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Directions in W that change images in one way, found without labels, and the file that keeps them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ggdr.stylegan2.generator import Generator, SynthesisNetwork
from ggdr.stylegan2.latent.sampling import Label, w_covariance
from ggdr.stylegan2.layers import FullyConnectedLayer
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.untrusted.regular_files import check_regular
from ggdr.torch_utils.untrusted.text import error_text

METHODS = ("sefa", "pca")
FORMAT = "ggdr-directions-1"


@dataclass(frozen=True)
class Directions:
    """Directions in W, the strongest first.

    vectors: [K, w_dim] float32, orthonormal; of each the component that is largest in magnitude is positive.
    std:     [K] float32, the standard deviation of W along each.
    share:   [K] float32 in [0, 1], what part of all variance ("pca") or of all style gain ("sefa") each makes up.
    layers:  indices of the ws that they are meant to move.
    method:  "sefa" or "pca".
    """

    vectors: Tensor
    std: Tensor
    share: Tensor
    layers: tuple[int, ...]
    method: str


def find_directions(
    G: Generator,
    method: Literal["sefa", "pca"],
    layers: Sequence[int],
    *,
    num: int,
    num_samples: int = 20000,
    label: Label = None,
) -> Directions:
    """The `num` strongest directions of one method.

    Args:
        method:      "sefa": those that change the styles of `layers` most, from the weights alone.
            "pca": those along which W itself varies most; the same for any layers.
        layers:      indices of ws.
        num_samples: latents, of one class, that the statistics of W are taken from.

    Raises:
        ValueError: another method, or more directions than there can be: `max_directions`.

    Source: Shen and Zhou 2021, arXiv:2007.06600 (sefa); Härkönen et al. 2020, arXiv:2004.02546 (pca).
    """
    if method not in METHODS:
        raise ValueError(f"expected the method sefa or pca, got {method!r}")
    most = max_directions(G, method, layers, num_samples=num_samples)
    if not 1 <= num <= most:
        raise ValueError(f"expected 1 to {most} directions, got {num}")
    covariance = w_covariance(G.mapping, num_samples, label)
    if method == "sefa":
        A = style_weights(G.synthesis, layers)
        matrix = A.t() @ A
    else:
        matrix = covariance
    vectors, values = top_eigenvectors(matrix, num)
    # n^T C n is the variance along a unit vector n.
    std = ((vectors @ covariance) * vectors).sum(1).clamp(min=0).sqrt()
    share = values.clamp(min=0) / matrix.trace()
    return Directions(vectors.float(), std.float(), share.float(), tuple(layers), method)


def max_directions(G: Generator, method: str, layers: Sequence[int], *, num_samples: int) -> int:
    """How many directions a method can tell apart: all of W, but no more than style weights or samples span."""
    span = len(style_weights(G.synthesis, layers)) if method == "sefa" else num_samples - 1
    return min(G.w_dim, span)


def style_affines(synthesis: SynthesisNetwork, layer: int) -> list[FullyConnectedLayer]:
    """The affine layers that read w number `layer`: of a 3x3 convolution, and of the toRGB that shares its w."""
    affines = []
    i = 0
    for block in synthesis.blocks:
        affines += [conv.affine for conv in block.convs[layer - i : layer - i + 1] if layer >= i]
        i += len(block.convs)
        if block.has_torgb and layer == i:
            affines.append(block.torgb.affine)
    return affines


def style_weights(synthesis: SynthesisNetwork, layers: Sequence[int]) -> Tensor:
    """A [styles, w_dim] float64 on the CPU: what takes a change of w to the change of all styles of `layers`.

    The affine layers' weights, one below the other, with the factor that they are used with.

    Source: Shen and Zhou 2021, arXiv:2007.06600.
    """
    affines = [affine for layer in layers for affine in style_affines(synthesis, layer)]
    return torch.cat([affine.weight.detach().cpu().double() * affine.weight_gain for affine in affines])


def top_eigenvectors(matrix: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors [num, D], as rows, of a symmetric matrix [D, D] float64, and their values [num], largest first.

    Their signs, which the mathematics leaves open, make the component of largest magnitude positive.
    """
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0)[:num], vectors.t().flip(0)[:num]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign(), values


def move(ws: Tensor, direction: Tensor, amounts: Tensor, layers: Sequence[int]) -> Tensor:
    """Latents moved along a direction, each by every amount.

    Args:
        ws:        [N, num_ws, w_dim] float32.
        direction: [w_dim], of length 1 as in `Directions.vectors`.
        amounts:   [T], multiples of `direction`; such as -2 to 2 times `Directions.std`.
        layers:    indices of the ws that move.

    Returns:
        [N, T, num_ws, w_dim] float32 on the device of ws.
    """
    moved = ws[:, None].repeat(1, len(amounts), 1, 1)
    moved[:, :, list(layers)] += (amounts[:, None, None] * direction).to(ws)
    return moved


def save_directions(path: str | os.PathLike, directions: Directions) -> None:
    """Writes a safetensors file, atomically: `directions`, `std`, `share`, `layers` (int64), and the method."""
    tensors = {
        "directions": directions.vectors.contiguous(),
        "std": directions.std.contiguous(),
        "share": directions.share.contiguous(),
        "layers": torch.tensor(directions.layers),
    }
    data = safetensors.torch.save(tensors, metadata={"format": FORMAT, "method": directions.method})
    with atomic_write(path) as file:
        file.write(data)


def load_directions(path: str | os.PathLike) -> Directions:
    """Reads what `save_directions` wrote.

    Raises:
        SnapshotError: the file is missing, damaged, or holds something else.
    """
    try:
        check_regular(path)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise SnapshotError(f"{path}: a safetensors file, but not of directions as `ggdr directions` writes it")
            vectors, std, share, layers = (file.get_tensor(key) for key in ("directions", "std", "share", "layers"))
            dims = vectors.ndim, std.ndim, share.ndim, layers.ndim
            if dims != (2, 1, 1, 1) or len(vectors) > min(len(std), len(share)):
                raise ValueError("tensors of other shapes")
            return Directions(vectors, std, share, tuple(layers.tolist()), metadata["method"])
    except SnapshotError:
        raise
    except Exception as error:  # damaged headers end in errors of safetensors, of PyTorch and of numbers' limits
        raise SnapshotError(f"{path}: not a readable file of directions (.safetensors): {error_text(error)}") from error
