# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Bias, activation, gain and clamp in one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.torch_utils.ops.build import uses_native
from ggdr.torch_utils.ops.self_check import register_self_check


class Activation(NamedTuple):
    """An activation function of (x, alpha), and the constants that keep its output near unit variance."""

    func: Callable[[Tensor, float], Tensor]
    default_alpha: float
    default_gain: float


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, alpha: x, 0.0, 1.0),
    "relu": Activation(lambda x, alpha: F.relu(x), 0.0, math.sqrt(2)),
    "lrelu": Activation(F.leaky_relu, 0.2, math.sqrt(2)),
    "tanh": Activation(lambda x, alpha: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, alpha: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, alpha: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, alpha: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, alpha: F.silu(x), 0.0, math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Adds a bias, applies an activation, scales, and clamps, in this order.

    Half types are computed in float32. For linear, relu and lrelu, backward keeps the result only.

    Args:
        x:     any shape, floating type and memory format.
        b:     [x.shape[dim]] of any floating type, or None for no bias.
        dim:   the dimension of `x` that `b` runs along.
        act:   a key of ACTIVATIONS.
        alpha: slope of lrelu below zero, at least 0 (None: 0.2).
        gain:  factor after the activation (None: sqrt(2) for relu, lrelu and swish, else 1).
        clamp: bound on the result's magnitude, at least 0 (None: none).

    Returns:
        Tensor of the shape, type and memory format of `x`. Differentiable any number of times if `act` is linear,
        relu or lrelu, else three times.

    Raises:
        ValueError: unknown activation, negative `alpha` or `clamp`, or `b` does not fit dimension `dim`.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"unknown activation {act!r}; expected one of {', '.join(ACTIVATIONS)}")
    if b is not None and (b.ndim != 1 or b.shape[0] != x.shape[dim]):
        raise ValueError(f"bias of shape {tuple(b.shape)} does not fit dimension {dim} of x {tuple(x.shape)}")
    spec = ACTIVATIONS[act]
    alpha = spec.default_alpha if alpha is None else alpha
    gain = spec.default_gain if gain is None else gain
    if alpha < 0 or (clamp is not None and clamp < 0):
        raise ValueError(f"alpha and clamp must be at least 0, got {alpha} and {clamp}")
    if b is not None:
        dim %= x.ndim
    if uses_native(x.device):
        return torch.ops.ggdr.bias_act(x, b, dim, act, alpha, gain, clamp)
    return _bias_act_ref(x, b, dim, act, alpha, gain, clamp)


def _bias_act_ref(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    x = ACTIVATIONS[act].func(_plus(x, b, dim), alpha)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _plus(x: Tensor, b: Tensor | None, dim: int) -> Tensor:
    """x + b along `dim`, of the type of `x`."""
    return x if b is None else x + b.to(x.dtype).reshape([-1 if i == dim else 1 for i in range(x.ndim)])


# The compiled operations. The second is the order-th derivative times (g + gb), from the result or the argument in
# `ref`, and its sums along all dimensions but `dim` (an empty tensor where sum_dtype is None). How they are
# differentiated is in bias_act_autograd.h.
_ARGS = "int dim, str act, float alpha, float gain, float? clamp"
_LIBRARY = torch.library.Library("ggdr", "FRAGMENT")
_LIBRARY.define(f"bias_act(Tensor x, Tensor? b, {_ARGS}) -> Tensor")
_LIBRARY.define(
    "bias_act_grad(Tensor g, Tensor? gb, Tensor? ref, Tensor? b, int order, "
    f"{_ARGS}, ScalarType? sum_dtype) -> (Tensor, Tensor)"
)


@torch.library.register_fake("ggdr::bias_act", lib=_LIBRARY)
def _bias_act_fake(x: Tensor, b: Tensor | None, *args: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("ggdr::bias_act_grad", lib=_LIBRARY)
def _bias_act_grad_fake(
    g: Tensor,
    gb: Tensor | None,
    ref: Tensor | None,
    b: Tensor | None,
    order: int,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
    sum_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(g if ref is None else ref)
    return out, g.new_empty([0]) if sum_dtype is None else g.new_empty([g.shape[dim]], dtype=sum_dtype)


def _check_inputs(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    x, b = torch.randn([16, 64, 32, 32], generator=rng), torch.randn([64], generator=rng)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_(), b.requires_grad_()


register_self_check("bias_act", lambda x, b: bias_act(x, b, act="lrelu", clamp=256.0), _check_inputs)
