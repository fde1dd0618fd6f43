# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The emulation runs a right kernel as a GPU does, and tells of a wrong one what is wrong."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import torch

from tests.torch_utils.ops.emulation.library import HERE, ORDERS, load_emulation
from tests.torch_utils.ops.emulation.rewrite import RewriteError, kernels, rewrite, rewrite_sources

_SCHEMA = torch.library.Library("ggdr_emulation", "FRAGMENT")
_SCHEMA.define("reverse(Tensor x, str fault) -> Tensor")


@pytest.fixture(scope="module")
def library(compiler, ops_cache):
    return load_emulation(HERE, "wrong_kernels.cu")


@pytest.fixture
def reverse(library):
    """x [128] float32 -> each half reversed, with a fault or none."""
    with library.in_place_of_the_cpu():
        yield lambda x, fault="": torch.ops.ggdr_emulation.reverse(library.guarded(x), fault)


def reversed_halves(x):
    return x.reshape(2, 64).flip(1).reshape(128)


@pytest.mark.parametrize("order", ORDERS)
def test_a_right_kernel_gives_the_right_result(library, reverse, order):
    library.set(order=order)
    x, before = torch.randn(128), library.launches("wrong_kernel")
    assert torch.equal(reverse(x), reversed_halves(x))
    assert library.launches("wrong_kernel") == before + 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("read behind", "touched byte 512 of 512 .block 0, thread 0"),
        ("read before", rf"touched byte -{os.sysconf('SC_PAGESIZE')} of 512"),
        ("write behind", "touched byte 528 of 512"),
        ("write before", "wrote beside 512 bytes"),
        ("shared memory behind", "touched byte 288 of 260"),
        ("index of an array", "undefined arithmetic, index or alignment"),
        ("misaligned", "undefined arithmetic, index or alignment"),
        ("uneven barrier", "63 of 64 threads came to a barrier"),
        ("no block", "a grid of 0 blocks"),
        ("too many threads", "1025 threads a block"),
    ],
)
def test_what_a_kernel_must_not_do_ends_its_launch(reverse, fault, message):
    with pytest.raises(RuntimeError, match=f"emulation of wrong_kernel: .*{message}"):
        reverse(torch.randn(128), fault)
    assert torch.equal(reverse(torch.ones(128)), torch.ones(128))  # the next launch is as good as any


def test_bytes_that_alignment_leaves_behind_a_tensor_must_not_change(reverse):
    with pytest.raises(RuntimeError, match="wrote beside 508 bytes"):
        reverse(torch.randn(127), "write just behind")


def test_a_grid_is_within_the_limit(library, reverse):
    library.set(max_blocks=1)
    with pytest.raises(RuntimeError, match="a grid beyond the limit, of 2 blocks"):
        reverse(torch.randn(128), "grid beyond the limit")


@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_that_was_not_written_is_nan(library, reverse, order):
    library.set(order=order)
    assert reverse(torch.randn(128), "unwritten shared memory").isnan().any()
    assert reverse(torch.randn(128), "no barrier").isnan().any()


def test_results_that_were_not_written_are_nan(library, reverse):
    library.set(max_blocks=1)
    x = torch.randn(128)
    y = reverse(x)
    assert torch.equal(y[:64], reversed_halves(x)[:64]) and y[64:].isnan().all()


def test_indices_beyond_32_bits_are_played_by_small_ones(library, reverse):
    x = torch.randn(128)
    assert reverse(x, "another result beyond 32 bits")[0] == reversed_halves(x)[0]
    library.set(int32_max=0)
    assert reverse(x, "another result beyond 32 bits")[0] == -1


def test_views_keep_their_strides_in_guarded_memory(library):
    x = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)[1:]
    y = library.guarded(x)
    assert torch.equal(x, y) and x.stride() == y.stride() and x.storage_offset() == y.storage_offset()
    assert y.data_ptr() != x.data_ptr()


# What the emulation would leave out is refused.


def test_each_launch_is_rewritten():
    text = "a<T, 2><<<f(n, m), 256, 0, stream>>>(x, y); b\n    <<<1, n>>>(x);"
    first, second = rewrite(text, "two.cu", Counter()).split(";")[:2]
    assert first == 'emulation::launch("a", f(n, m), 256, &a<T, 2>, x, y)'
    assert second == ' emulation::launch("b", 1, n, &b, x)'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f<decltype(x)><<<1, 2>>>(x);", "one.cu has 1 '<<<' that are not among the 0 rewritten"),
        ("f<T><<<1, 2, 64>>>(x);", r"one.cu: f has the launch \['1', '2', '64'\]; expected blocks, threads, 0"),
        ("extern __shared__ float values[];", "one.cu has 1 '__shared__'"),
    ],
)
def test_what_is_not_understood_is_not_left_out(text, message):
    with pytest.raises(RewriteError, match=message):
        rewrite(text, "one.cu", Counter())


def test_a_bound_that_is_gone_is_missed(tmp_path):
    (tmp_path / "one.cu").write_text("f<<<std::min(n, 1 << 20), 2>>>(x);")
    with pytest.raises(RewriteError, match="no CUDA source has 'INT32_MAX'"):
        rewrite_sources([tmp_path / "one.cu"], [], tmp_path)


def test_each_kernel_has_a_name(tmp_path):
    path = tmp_path / "one.cu"
    path.write_text("__global__ void __launch_bounds__(kThreads)\n    f(int n) {}\n__global__ void g(int n) {}")
    assert kernels([path]) == ["f", "g"]
    path.write_text("__global__ auto f(int n) -> void {}")
    with pytest.raises(RewriteError, match=r"one.cu has 1 kernels, of which \[\] have names"):
        kernels([path])
