# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""grid_sample against torch's own forward pass and against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.ops.grid_sample import _adjoint_in_order, grid_sample

PADDING_MODES = ["zeros", "border", "reflection"]
SHAPES = [((2, 3, 5, 7), (4, 3)), ((1, 1, 1, 6), (5, 2)), ((3, 2, 9, 4), (1, 1))]


def affine_grid(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Positions inside and outside of the image."""
    rng = torch.Generator().manual_seed(seed)
    theta = torch.randn(n, 2, 3, dtype=torch.float64, generator=rng)
    return F.affine_grid(theta, [n, 1, *size], align_corners=False)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_samples_agree_with_torch(shape, size, padding_mode):
    x, grid = torch.randn(shape), affine_grid(shape[0], size).float()
    expected = F.grid_sample(x, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)
    assert torch.equal(grid_sample(x, grid, padding_mode=padding_mode), expected)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_first_and_second_derivatives_agree_with_finite_differences(shape, size, padding_mode):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    grid = affine_grid(shape[0], size)

    def squared(x):  # sampling alone is linear: its second derivative would be zero
        return grid_sample(x, grid, padding_mode=padding_mode).square()

    assert gradcheck(squared, (x,))
    assert gradgradcheck(squared, (x,))


def test_backward_is_the_adjoint():
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    grid = affine_grid(2, (7, 4))
    y = grid_sample(x, grid)
    g = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close((y * g).sum(), (x * grad).sum())


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_backward_in_a_fixed_order_is_that_of_torch(shape, size, padding_mode):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    grid = affine_grid(shape[0], size)
    y = F.grid_sample(x, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)
    g = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close(_adjoint_in_order(g, grid, x.shape, padding_mode), expected)


class Called(TorchDispatchMode):
    """Names of the operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms_leave_out_the_one_that_has_no_order(deterministic):
    x, grid = torch.randn(2, 3, 5, 6, device="meta", requires_grad=True), affine_grid(2, (4, 4)).float().to("meta")
    with Called() as called:
        (grad,) = torch.autograd.grad(grid_sample(x, grid).square().sum(), x, create_graph=True)
        torch.autograd.grad(grad.square().sum(), x)
    assert grad.shape == x.shape
    assert "index_put_" in called.names and "grid_sampler_2d_backward" not in called.names


def test_reflection_mirrors_at_the_outer_edges():
    x = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3)
    centres = (torch.arange(-4, 7) * 2 + 1) / 3 - 1  # of the image's pixels, and of those beyond its edges
    grid = torch.stack([centres, torch.zeros_like(centres)], dim=-1).reshape(1, 1, -1, 2)
    expected = torch.tensor([4.0, 4.0, 2.0, 1.0, 1.0, 2.0, 4.0, 4.0, 2.0, 1.0, 1.0])
    torch.testing.assert_close(grid_sample(x, grid, padding_mode="reflection").flatten(), expected)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_compiles_to_one_graph_with_its_derivative(padding_mode):
    x, grid = torch.randn(2, 3, 5, 6, requires_grad=True), affine_grid(2, (4, 4)).float()

    def squared(x):
        return grid_sample(x, grid, padding_mode=padding_mode).square().sum()

    compiled = torch.compile(squared, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), squared(x))
    (actual,), (expected,) = (torch.autograd.grad(func(x), x) for func in (compiled, squared))
    torch.testing.assert_close(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_gpu_agrees_with_cpu_to_the_second_derivative(shape, size, padding_mode):
    x, grid = torch.randn(shape), affine_grid(shape[0], size).float()

    def derivatives(x, grid):
        y = grid_sample(x.requires_grad_(), grid, padding_mode=padding_mode)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return [y.detach(), first.detach(), *torch.autograd.grad(first.square().sum(), x)]

    on_gpu = derivatives(x.cuda(), grid.cuda())
    torch.testing.assert_close([t.cpu() for t in on_gpu], derivatives(x, grid), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_deterministic_gradient_is_the_same_each_time_on_a_gpu(deterministic):
    x, grid = torch.randn(4, 3, 64, 64).cuda().requires_grad_(), affine_grid(4, (200, 200)).float().cuda()
    g = torch.randn(4, 3, 200, 200).cuda()
    first, *others = (torch.autograd.grad(grid_sample(x, grid), x, g)[0] for _ in range(5))
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, torch.autograd.grad(F.grid_sample(x, grid, align_corners=False), x, g)[0])


def test_memory_format_does_not_change_the_result():
    x, grid = torch.randn(2, 8, 6, 5), affine_grid(2, (4, 4)).float()
    strided = torch.randn(2, 16, 12, 5)[:, ::2, ::2].copy_(x)
    expected = grid_sample(x, grid)
    torch.testing.assert_close(grid_sample(x.to(memory_format=torch.channels_last), grid), expected)
    torch.testing.assert_close(grid_sample(strided, grid), expected)

    grads = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = x.clone(memory_format=memory_format).requires_grad_()
        (grad,) = torch.autograd.grad(grid_sample(leaf, grid).square().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), leaf)
        grads.append((grad.detach(), second))
    torch.testing.assert_close(grads[0], grads[1])


def test_grid_receives_no_gradient():
    x, grid = torch.randn(1, 1, 4, 4), affine_grid(1, (4, 4)).float().requires_grad_()
    assert not grid_sample(x, grid).requires_grad
    x.requires_grad_()
    grid_sample(x, grid).sum().backward()
    assert x.grad is not None and grid.grad is None


def test_wrong_arguments_are_named():
    x, grid = torch.randn(2, 1, 4, 4), affine_grid(2, (4, 4)).float()
    with pytest.raises(ValueError, match="padding_mode must be one of zeros, border, reflection; got 'reflect'"):
        grid_sample(x, grid, padding_mode="reflect")
    with pytest.raises(ValueError, match=r"x must be \[N, C, H, W\]"):
        grid_sample(x[0], grid)
    with pytest.raises(ValueError, match=r"grid must be \[2, h, w, 2\]"):
        grid_sample(x, grid[:1])
