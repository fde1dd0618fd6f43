# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Random calls of the emulated operations, with first and second derivatives, against the reference in float64."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad

from ggdr.torch_utils.ops.bias_act import ACTIVATIONS, _bias_act_ref, bias_act
from ggdr.torch_utils.ops.demodulation import _demodulation_ref, demodulation
from ggdr.torch_utils.ops.modulation import demodulated_act, modulate
from ggdr.torch_utils.ops.upfirdn2d import _upfirdn2d_ref, setup_filter, upfirdn2d
from tests.torch_utils.ops.emulation.library import INT32_MAX, ORDERS, Emulation

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SIZES = (1, 1, 2, 3, 5, 7, 8, 9, 16, 17, 24, 31, 32, 33, 64)
MAX_NUMEL = 20_000
FIR = setup_filter([1, 3, 3, 1])


def check_random_cases(emulation: Emulation, operation: str, *, seed: int = 0, num: int) -> None:
    """Draws calls of one operation; AssertionError or RuntimeError for the first that is wrong."""
    rng = random.Random(f"{operation} {seed}")
    torch.manual_seed(seed)
    for case in range(num):
        settings = {
            "max_blocks": rng.choice([1 << 20, 1 << 20, 1, 3]),
            "int32_max": rng.choice([INT32_MAX, INT32_MAX, 0]),
            "order": rng.choice(list(ORDERS)),
        }
        emulation.set(**settings)
        draw = Draw(rng, emulation)
        try:
            CHECKS[operation](draw)
        except (AssertionError, RuntimeError) as error:
            message = f"{operation}, seed {seed}, case {case}, {settings}, {draw.told}: {error}"
            raise AssertionError(message) from error


class Draw:
    """The random choices of one case."""

    def __init__(self, rng: random.Random, emulation: Emulation) -> None:
        self.rng, self.emulation = rng, emulation
        self.told: list = []  # what was drawn, for messages

    def choice(self, values: Sequence) -> object:
        self.told.append(value := self.rng.choice(values))
        return value

    def tensor(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Normal values in guarded memory, laid out in any way."""
        layout, x = _laid_out(self.rng, list(shape), dtype)
        self.told.append(f"{layout} {list(shape)}")
        return self.emulation.guarded(x)


def _laid_out(rng: random.Random, shape: list[int], dtype: torch.dtype) -> tuple[str, Tensor]:
    def normal(*size: int) -> Tensor:
        return torch.randn(size).to(dtype)

    layouts = ["contiguous", "contiguous", "reversed", "expanded", "odd address"]
    if len(shape) == 4:
        layouts += [*["channels_last"] * 5, "channels_last at an odd address", "cropped", "second images"]
    layout = rng.choice(layouts)
    memory_format = torch.channels_last if len(shape) == 4 and rng.random() < 0.5 else torch.contiguous_format
    if layout == "reversed":
        return layout, normal(*shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    if layout == "expanded":
        return layout, normal(1, *shape[1:]).expand(shape)
    if layout == "odd address":
        return layout, normal(1 + math.prod(shape))[1:].reshape(shape)
    if layout == "channels_last":
        return layout, normal(*shape).contiguous(memory_format=torch.channels_last)
    if layout == "channels_last at an odd address":
        n, c, h, w = shape
        return layout, normal(1 + math.prod(shape))[1:].reshape(n, h, w, c).permute(0, 3, 1, 2)
    if layout == "cropped":
        n, c, h, w = shape
        return layout, normal(n, c, h + 3, w + 2).contiguous(memory_format=memory_format)[:, :, 1:-2, 2:]
    if layout == "second images":
        n, c, h, w = shape
        return layout, normal(2 * n, c, h, w).contiguous(memory_format=memory_format)[::2]
    return layout, normal(*shape)


def _accuracy(dtype: torch.dtype) -> float:
    """Of the type in which values of `dtype` are added and multiplied."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def _assert_rounded(name: str, actual: Tensor, exact: Tensor, magnitude: float, *, roundings: int = 0) -> None:
    """It is the exact result, rounded once, after arithmetic on numbers up to `magnitude`; and that many times more."""
    assert actual.shape == exact.shape, f"{name} has the shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    if not exact.numel():
        return
    info = torch.finfo(actual.dtype)
    allowed = info.eps / 2 * exact.abs() + 8 * _accuracy(actual.dtype) * magnitude + info.smallest_normal * info.eps
    allowed = allowed + roundings * info.eps / 2 * magnitude
    error = (actual.double() - exact).abs()
    excess = torch.where(error.isnan(), math.inf, error / allowed).max().item()
    assert excess <= 1, f"{name} is off by {excess:.3g} times what rounding explains"


def _largest(*tensors: Tensor | None) -> float:
    return max((t.abs().max().item() for t in tensors if t is not None and t.numel()), default=0.0)


def _double(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.double()


def check_bias_act(draw: Draw) -> None:
    """One call, its gradients, and their gradients."""
    dtype, act = draw.choice(DTYPES), draw.choice(list(ACTIVATIONS))
    shape = [draw.rng.choice(SIZES) for _ in range(draw.choice([1, 2, 3, 4, 4, 4, 4, 5]))]
    while math.prod(shape) > MAX_NUMEL:
        shape[draw.rng.randrange(len(shape))] = draw.rng.choice([1, 2, 3])
    if draw.rng.random() < 0.03:
        shape[0] = 0
    dim = 1 if len(shape) == 4 and draw.rng.random() < 0.7 else draw.rng.randrange(len(shape))
    x, gy, h = (draw.tensor(shape, dtype) for _ in range(3))
    b = draw.tensor([2 * shape[dim]], draw.choice([torch.float32, dtype]))[::2] if draw.choice([0, 1, 1, 1]) else None
    hb = None if b is None else draw.tensor([shape[dim]], b.dtype)
    alpha, gain = draw.choice([None, 0.0, 0.1]), draw.choice([None, 1.0, 0.5, -1.5])
    clamp = draw.choice([None, None, 0.7, 256.0])
    draw.told.append(f"dim {dim}")
    alpha_used = ACTIVATIONS[act].default_alpha if alpha is None else alpha
    gain_used = ACTIVATIONS[act].default_gain if gain is None else gain

    def compiled(x: Tensor, b: Tensor | None) -> Tensor:
        return bias_act(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)

    def reference(x: Tensor, b: Tensor | None) -> Tensor:
        return _bias_act_ref(x, b, dim, act, alpha_used, gain_used, clamp)

    y, first, second = _derivatives(compiled, x, b, gy, h, hb)
    exact_y, exact_first, exact_second = _derivatives(reference, *map(_double, (x, b, gy, h, hb)))
    assert y.dtype == dtype and y.stride() == torch.empty_like(x).stride(), f"y is {y.dtype}, strides {y.stride()}"

    # Where a sign or the clamp depends on rounding, no slope is defined.
    v = x.double() if b is None else x.double() + b.double().reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    z = gain_used * ACTIVATIONS[act].func(v, alpha_used)
    eps = torch.finfo(dtype).eps
    undecided = (y.double() == 0) & (z != 0)
    if act in ("relu", "lrelu", "elu", "selu"):
        undecided |= v.abs() < 4 * eps * (1 + x.double().abs())
    if clamp is not None:
        undecided |= (z.abs() - clamp).abs() < 4 * eps * clamp

    size = abs(gain_used) * 4 * (1 + _largest(v))
    _assert_rounded("y", y, exact_y, size)
    size *= max(1.0, _largest(gy))
    _assert_rounded("gradient in x", *_where_decided(first[0], exact_first[0], undecided), size)
    reach = _largest(h) + _largest(hb)
    _assert_rounded("gradient in gy", *_where_decided(second[0], exact_second[0], undecided), size * reach)
    pair = _where_decided(second[1], exact_second[1], undecided)
    _assert_rounded("second gradient in x", *pair, size * reach, roundings=3)
    if b is not None and not undecided.any():
        # Values that were rounded to the type of x are added, and the sum is rounded to that of b.
        num = max(1, x.numel() // max(1, shape[dim]))
        rounding = max(eps, torch.finfo(b.dtype).eps, _accuracy(b.dtype))
        for name, actual, exact, scale in (
            ("gradient in b", first[1], exact_first[1], size),
            ("second gradient in b", second[2], exact_second[2], size * reach),
        ):
            error = _largest(actual.double() - exact)
            assert error <= 4 * rounding * scale * num**0.5, f"{name} is off by {error:.1e}"


def _derivatives(
    func: Callable, x: Tensor, b: Tensor | None, gy: Tensor, h: Tensor, hb: Tensor | None
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """The result, its gradients in x and b along gy, and the gradients in gy, x and b of those along h and hb."""
    leaves = [t.detach().requires_grad_() for t in (x, b) if t is not None]
    gy = gy.detach().requires_grad_()
    y = func(leaves[0], leaves[1] if b is not None else None)
    first = grad(y, leaves, gy, create_graph=True)
    along = [t for t in (h, hb) if t is not None]
    second = grad(first, [gy, *leaves], along, materialize_grads=True)
    return y.detach(), [t.detach() for t in first], second


def _where_decided(actual: Tensor, exact: Tensor, undecided: Tensor) -> tuple[Tensor, Tensor]:
    return actual.masked_fill(undecided, 0), exact.masked_fill(undecided, 0)


def check_upfirdn2d(draw: Draw) -> None:
    """One call, its gradient, and the gradient of that."""
    rng, dtype = draw.rng, draw.choice(DTYPES)
    is_4x4 = rng.random() < 0.6
    shape = [rng.choice([1, 2, 3]), rng.choice([1, 2, 3, 4, 8, 8, 16, 17, 24, 64]), *(rng.choice(SIZES) for _ in "yx")]
    if is_4x4:  # three kernels, of images that are not too small
        f = FIR if rng.random() < 0.2 else torch.randn(4, 4)
        up, down = draw.choice([((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2))])
        shape[2:] = (rng.choice([16, 17, 20, 32, 33, 47, 66]) for _ in "yx")
        pad = [rng.choice([0, 1, 2, 2, 3]) for _ in range(4)]
    else:
        sizes = draw.choice([[4, 4], [12], [rng.randint(1, 13)], [rng.randint(1, 8), rng.randint(1, 8)]])
        f = torch.randn(sizes, dtype=rng.choice([torch.float32, torch.float64]))
        up, down = draw.choice([(rng.randint(1, 4), rng.randint(1, 4))]), draw.choice([(rng.randint(1, 4), 1)])
        pad = [rng.randint(-2, 8) if rng.random() < 0.9 else rng.randint(8, 40) for _ in range(4)]
    while math.prod(shape) > MAX_NUMEL:
        shape[rng.randrange(2)] = rng.choice([1, 2, 8])
    for axis, size, taps in ((0, shape[3] * up[0], f.shape[-1]), (1, shape[2] * up[1], f.shape[0])):
        first, last = 2 * axis, 2 * axis + 1
        if size + min(pad[first], 0) + min(pad[last], 0) < 1:
            pad[first : last + 1] = 0, 0
        pad[last] += max(0, taps - size - pad[first] - pad[last])
    flip, gain = draw.choice([False, True]), draw.choice([1.0, 4.0, 0.3])
    draw.told.append(f"filter {list(f.shape)}, padding {pad}")
    args = (up, down, tuple(pad), flip, gain)
    f = draw.emulation.guarded(f)

    x, h = (draw.tensor(shape, dtype).requires_grad_() for _ in range(2))
    y = upfirdn2d(x, f, up=up, down=down, padding=tuple(pad), flip_filter=flip, gain=gain)
    gy = draw.tensor(y.shape, dtype).requires_grad_()
    (gx,) = grad(y, x, gy, create_graph=True)
    (ggy,) = grad(gx, gy, h)
    exact_x = x.detach().double().requires_grad_()
    exact_y = _upfirdn2d_ref(exact_x, f.double(), *args)
    (exact_gx,) = grad(exact_y, exact_x, gy.detach().double())
    exact_ggy = _upfirdn2d_ref(h.detach().double(), f.double(), *args)

    assert y.dtype == gx.dtype == ggy.dtype == dtype
    size = f.double().abs().sum().item() ** (2 if f.ndim == 1 else 1) * gain
    for name, actual, exact, source in (
        ("y", y, exact_y, x),
        ("gradient in x", gx, exact_gx, gy),
        ("gradient in gy", ggy, exact_ggy, h),
    ):
        _assert_rounded(name, actual.detach(), exact.detach(), size * _largest(source.detach()))


def check_modulation(draw: Draw) -> None:
    """One call of modulate or demodulated_act, its gradients, their gradients, and those of one of these."""
    rng, dtype, act = draw.rng, draw.choice(DTYPES), draw.choice([False, True, True])
    shape = [rng.choice(n) for n in ([1, 2, 3], [*SIZES, 40, 256, 520], SIZES, SIZES)]
    while math.prod(shape) > MAX_NUMEL:
        shape[rng.randrange(4)] = rng.choice([1, 2, 3])
    if rng.random() < 0.03:
        shape[rng.randrange(4)] = 0
    n, channels, height, width = shape
    accurate = torch.promote_types(dtype, torch.float32)
    x, gy, h, u = (draw.tensor(shape, dtype) for _ in range(4))
    d, hd = (draw.tensor([n, channels], accurate) for _ in range(2))
    b, hb = (draw.tensor([channels], accurate) for _ in range(2))
    strength, hstrength = draw.tensor([2], accurate)
    noise_shape = draw.choice([None, [n, 1, height, width], [1, 1, height, width], [height, width]])
    noise = None if noise_shape is None else draw.tensor(noise_shape, accurate)
    gain, clamp = draw.choice([1.0, 0.7]), draw.choice([None, 0.7, 256.0])
    top = math.sqrt(2) * gain

    def compiled(x: Tensor, d: Tensor, b: Tensor, strength: Tensor, noise: Tensor | None) -> Tensor:
        return demodulated_act(x, d, noise, strength, b, gain=gain, clamp=clamp) if act else modulate(x, d)

    def scaled(x: Tensor, d: Tensor, b: Tensor, strength: Tensor, noise: Tensor | None) -> Tensor:
        v = x * d[:, :, None, None]
        return v + b[:, None, None] + (0 if noise is None else noise * strength) if act else v

    def derivatives(func: Callable, *tensors: Tensor) -> list[tuple[str, Tensor]]:
        x, d, b, strength, gy, h, hd, hb, hstrength, u = (t.detach().requires_grad_() for t in tensors[:-1])
        num = 2 if not act else 3 if noise is None else 4  # of those that the result depends on
        leaves, along = (x, d, b, strength)[:num], (h, hd, hb, hstrength)[:num]
        y = func(x, d, b, strength, tensors[-1])
        first = grad(y, leaves, gy, create_graph=True)
        second = grad(first, [gy, x, d], along, create_graph=True)
        third = grad(second[0], [x, d, h, hd], u)
        results = [y, *first, *second, *third]
        names = ["y", *["gx", "gd", "gb", "gstrength"][:num], "ggy", "second gx", "second gd"]
        names += [f"third {name}" for name in ("gx", "gd", "gh", "ghd")]
        return [(name, t.detach()) for name, t in zip(names, results, strict=True)]

    inputs = (x, d, b, strength, gy, h, hd, hb, hstrength, u, noise)
    exact_inputs = [_double(t) for t in inputs]
    actual = derivatives(compiled, *inputs)
    y = actual[0][1]
    v = scaled(*exact_inputs[:4], exact_inputs[-1])
    exact_y = F.leaky_relu(v, 0.2) * top if act else v
    exact_y = exact_y if clamp is None or not act else exact_y.clamp(-clamp * gain, clamp * gain)
    like = modulate(torch.empty_strided(shape, x.stride(), dtype=dtype, device="meta"), d.to("meta"))
    assert y.dtype == dtype and y.stride() == like.stride(), f"y is {y.dtype}, strides {y.stride()}"

    # f is piecewise linear: all derivatives are those of slope v, with the slope that the result tells. The same of
    # absolute values is the size of the terms that are added.
    slope = torch.where(y > 0, torch.ones_like(v), 0.2) * top if act else torch.ones_like(v)
    if act and clamp is not None:
        slope = slope * (y.abs() < torch.tensor(clamp * gain, dtype=accurate).to(dtype))
    exact = derivatives(lambda *args: slope * scaled(*args), *exact_inputs)
    sizes = derivatives(lambda *args: slope * scaled(*args), *(t if t is None else t.abs() for t in exact_inputs))
    exact[0] = ("y", exact_y)
    for (name, a), (_, e), (_, size) in zip(actual, exact, sizes, strict=True):
        _assert_rounded(name, a, e, 2 * _largest(size))


def check_demodulation(draw: Draw) -> None:
    """One call with its scaled weights, its gradients, theirs, and those of one; of the styles also as the last."""
    rng, dtype = draw.rng, draw.choice(DTYPES)
    shape = [rng.choice(n) for n in ([*SIZES, 40], [*SIZES, 40, 256, 520], [1, 3, 3], [1, 2, 3])]
    while math.prod(shape) > MAX_NUMEL:
        shape[rng.randrange(2)] = rng.choice([1, 2, 3])
    if rng.random() < 0.03:
        shape[0] = 0
    n, (c_out, c_in, *_) = draw.choice([1, 2, 7, 9, 16]), shape
    accurate = torch.promote_types(dtype, torch.float32)
    w, hw = (draw.tensor(shape, accurate) for _ in range(2))
    stored = dtype if dtype in (torch.float16, torch.bfloat16) else accurate  # type of the scaled weights
    gw = draw.tensor(shape, stored)
    s, gs, hs, u = (draw.tensor([n, c_in], accurate) for _ in range(4))
    gd, ud = (draw.tensor([n, c_out], accurate) for _ in range(2))
    # Far from 0, where the root and the norms are steep.
    s = s.abs() + 0.5
    w = w + w.sign()

    def derivatives(func: Callable, *tensors: Tensor) -> list[Tensor]:
        w, s, gw, gs, gd, hw, hs, u, ud = (t.detach().requires_grad_() for t in tensors)
        results = func(w, s)
        first = grad(results, [w, s], [gw, gs, gd], create_graph=True)
        second = grad(first, [w, s, gs, gd], [hw, hs], create_graph=True)
        third = grad(second[2:], [w, s, hs, gd], [u, ud], allow_unused=True, materialize_grads=True, retain_graph=True)
        last = grad(first[1], [w, s, gs, gd], hs)
        return [t.detach() for t in (*results, *first, *second, *third, *last)]

    inputs = (w, s, gw, gs, gd, hw, hs, u, ud)
    actual = derivatives(lambda w, s: demodulation(w, s, dtype), *inputs)
    exact = derivatives(lambda w, s: _demodulation_ref(w, s, dtype), *(t.double() for t in inputs))
    assert actual[0].dtype == stored
    names = ["w", "s", "d", "gw", "gs"]
    names += [f"second {name}" for name in ("gw", "gs", "ggs", "ggd")]
    names += [f"third {name}" for name in ("gw", "gs", "ghs", "ggd")]
    names += [f"last {name}" for name in ("gw", "gs", "ggs", "ggd")]
    for name, a, e in zip(names, actual, exact, strict=True):
        _assert_rounded(name, a, e, (8 + c_in**0.5) * (1 + _largest(e)))


CHECKS = {
    "bias_act": check_bias_act,
    "demodulation": check_demodulation,
    "modulation": check_modulation,
    "upfirdn2d": check_upfirdn2d,
}
